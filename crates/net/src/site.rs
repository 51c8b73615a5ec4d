//! What is where on a listener.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_node::Protocol;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

use crate::Limits;

/// Answers requests. The body is complete; the client's [`SocketAddr`](std::net::SocketAddr) is among the request's extensions.
pub type Handler = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// Answers calls of gRPC, whose bodies come and go bit by bit. The peer's address is there, too.
pub type RpcHandler = Arc<dyn Fn(Request<RpcBody>) -> BoxFuture<'static, Response<RpcBody>> + Send + Sync>;

/// The body of a call or its answer.
pub type RpcBody = UnsyncBoxBody<Bytes, BoxError>;

/// Why a body ends early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is where on a listener.
///
/// A site with client protocols is served on the node's workers, one without on the runtime that called
/// [`serve`](crate::serve).
#[derive(Default)]
pub struct Site {
    protocols: Vec<(String, Arc<dyn Protocol>)>,
    pages: Vec<Page>,
    rpc: Option<RpcHandler>,
    limits: Option<Limits>,
}

/// A handler and the requests it answers.
pub(crate) struct Page {
    prefix: String,
    pub(crate) max_body: usize,
    pub(crate) handler: Handler,
}

impl Site {
    /// An empty site: everything is 404.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens connections of a client protocol at exactly `path`.
    #[must_use]
    pub fn protocol(mut self, path: impl Into<String>, protocol: Arc<dyn Protocol>) -> Self {
        self.protocols.push((path.into(), protocol));
        self
    }

    /// Answers what is at `prefix` or below it, with bodies of at most `max_body` bytes. The longest prefix counts;
    /// `/` has everything below it.
    #[must_use]
    pub fn http(mut self, prefix: impl Into<String>, max_body: usize, handler: Handler) -> Self {
        let prefix = prefix.into().trim_end_matches('/').to_owned();
        self.pages.push(Page { prefix, max_body, handler });
        self.pages.sort_by_key(|page| std::cmp::Reverse(page.prefix.len()));
        self
    }

    /// Answers requests whose content type begins with `application/grpc`, whatever their path. They need HTTP/2, which only sites
    /// without client protocols speak.
    #[must_use]
    pub fn rpc(mut self, handler: RpcHandler) -> Self {
        self.rpc = Some(handler);
        self
    }

    /// Sets what a peer may do. Without it: the defaults, with the node's own `max_message_size`.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    pub(crate) fn own_limits(&self) -> Option<Limits> {
        self.limits.clone()
    }

    pub(crate) fn has_protocols(&self) -> bool {
        !self.protocols.is_empty()
    }

    pub(crate) fn protocol_at(&self, path: &str) -> Option<&Arc<dyn Protocol>> {
        self.protocols.iter().find(|(at, _)| at == path).map(|(_, protocol)| protocol)
    }

    pub(crate) fn rpc_handler(&self) -> Option<&RpcHandler> {
        self.rpc.as_ref()
    }

    pub(crate) fn page_at(&self, path: &str) -> Option<&Page> {
        let below =
            |page: &&Page| path.strip_prefix(&page.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.pages.iter().find(below)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocols = self.protocols.iter().map(|(path, protocol)| (path, protocol.name()));
        f.debug_struct("Site")
            .field("protocols", &protocols.collect::<Vec<_>>())
            .field("pages", &self.pages.iter().map(|page| &page.prefix).collect::<Vec<_>>())
            .field("rpc", &self.rpc.is_some())
            .field("limits", &self.limits)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let handler: Handler = Arc::new(|_| Box::pin(std::future::ready(Response::default())));
        let site =
            Site::new().http("/", 0, handler.clone()).http("/api", 1, handler.clone()).http("/api/x/", 2, handler);
        let at = |path| site.page_at(path).map(|page| page.max_body);
        assert_eq!(at("/"), Some(0));
        assert_eq!(at("/apix"), Some(0));
        assert_eq!(at("/api"), Some(1));
        assert_eq!(at("/api/publish"), Some(1));
        assert_eq!(at("/api/x"), Some(2));
        assert_eq!(at("/api/x/y"), Some(2));
        assert_eq!(Site::new().page_at("/").map(|page| page.max_body), None);
    }
}
