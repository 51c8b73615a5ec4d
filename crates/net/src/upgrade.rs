//! Whether a request opens a client connection (RFC 6455 §4.2.1), and the answer to it.

use std::borrow::Cow;
use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanwire_node::protocol::{Accepted, Opening, Rejection};
use fanwire_node::{Protocol, Session, TooMany};
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body_util::Full;
use sha1::{Digest, Sha1};

use crate::http_server::text;
use crate::origin;

/// Why a request opens nothing.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    message: Cow<'static, str>,
    /// What the client should have known.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), header: None }
    }

    /// More come than the node takes.
    pub(crate) fn too_many(TooMany { retry_after }: TooMany) -> Self {
        let seconds = HeaderValue::from(retry_after.as_secs().max(1));
        let refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, "this node takes no more at the moment");
        Self { header: Some((RETRY_AFTER, seconds)), ..refused }
    }

    fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, HeaderValue::from_static(value))), ..self }
    }
}

impl From<Refused> for Response<Full<Bytes>> {
    fn from(refused: Refused) -> Self {
        let mut response = text(refused.status, refused.message);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some((name, value)) = refused.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<Rejection> for Refused {
    fn from(Rejection { status, message }: Rejection) -> Self {
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), message)
    }
}

/// A protocol's state for the new client, and the answer that opens the connection.
pub(crate) type Opened = (Box<dyn Session>, Response<Full<Bytes>>);

/// Opens a connection of `protocol`, or says why not. All that the request says is checked here.
pub(crate) fn open(
    head: &Parts,
    peer: SocketAddr,
    protocol: &dyn Protocol,
    origins: &[String],
) -> Result<Opened, Refused> {
    let accept = check_upgrade(head)?;
    check_origin(&head.headers, origins)?;
    let Accepted { session, subprotocol } = protocol.accept(&Opening {
        query: head.uri.query().unwrap_or_default().to_owned(),
        subprotocols: list(&head.headers, &SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect(),
        remote: Some(peer.ip()),
    })?;

    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    Ok((session, response))
}

/// Checks that this is an opening of a WebSocket, and nothing else besides; returns the answer to its key.
fn check_upgrade(head: &Parts) -> Result<HeaderValue, Refused> {
    let headers = &head.headers;
    if head.method != Method::GET {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET").with(ALLOW, "GET"));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        let message = "this is a WebSocket endpoint: open it with a WebSocket client \
            (if you did, a proxy in between dropped the Upgrade header)";
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, message).with(UPGRADE, "websocket"));
    }
    if head.version != Version::HTTP_11 {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "a WebSocket needs HTTP/1.1"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "the Connection header lacks Upgrade"));
    }
    let no_length = headers.get_all(CONTENT_LENGTH).into_iter().all(|length| length == "0");
    if !no_length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "the request must not have a body"));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let refused = Refused::new(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is spoken here");
        return Err(refused.with(SEC_WEBSOCKET_VERSION, "13"));
    }
    single(headers, &SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
        .map(|key| Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize())
        .and_then(|digest| HeaderValue::try_from(BASE64_STANDARD.encode(digest)).ok())
        .ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key is not 16 bytes in base64"))
}

/// RFC 6455 §1.3.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Checks that the page behind this request may connect. Without the header it is no page of a browser.
fn check_origin(headers: &HeaderMap, origins: &[String]) -> Result<(), Refused> {
    if !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let text = |name| single(headers, name).and_then(|value| value.to_str().ok());
    match text(&ORIGIN) {
        Some(origin) if origin::permits(origins, origin, text(&HOST)) => Ok(()),
        _ => Err(Refused::new(StatusCode::FORBIDDEN, "pages of this origin may not connect")),
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// The elements of a header that is a list, however many times it comes.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// The value of a header that must come once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}
