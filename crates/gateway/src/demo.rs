//! The demo page of `fanwire dev`: lives in the binary, works offline.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_net::Handler;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

/// The page's files: path, media type, content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../demo/index.html")),
    ("/demo.css", "text/css; charset=utf-8", include_str!("../demo/demo.css")),
    ("/demo.js", "text/javascript; charset=utf-8", include_str!("../demo/demo.js")),
    ("/fanwire.js", "text/javascript; charset=utf-8", include_str!("../demo/fanwire.js")),
];

/// Nothing from elsewhere, nothing inline; the page talks to its own gateway only.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Serves the page. `control` is the address its `curl` publishes to.
pub(crate) fn page(control: &str) -> Handler {
    let files = FILES
        .map(|(path, media_type, content)| (path, media_type, Bytes::from(content.replace("{{control}}", control))));
    Arc::new(move |request| {
        let found = files.iter().find(|(path, ..)| *path == request.uri().path());
        let response = match found {
            Some((_, media_type, content)) => {
                let mut response = Response::new(content.clone());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
                headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                response
            }
            None => {
                let mut response = Response::new(Bytes::from_static(b"no such page\n"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        };
        std::future::ready(response).boxed()
    })
}
