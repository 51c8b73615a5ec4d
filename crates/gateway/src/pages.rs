//! Pages that live in the binary and work offline.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_net::Handler;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

/// A file of a page: path, media type, content.
type File = (&'static str, &'static str, Bytes);

/// Nothing from elsewhere, nothing inline; a page talks to its own gateway only.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Serves the demo page of `fanwire dev`. `control` is the address its `curl` publishes to.
pub(crate) fn demo(control: &str) -> Handler {
    serve([
        ("/", HTML, include_str!("../demo/index.html").replace("{{control}}", control).into()),
        ("/demo.css", CSS, Bytes::from_static(include_bytes!("../demo/demo.css"))),
        ("/demo.js", SCRIPT, Bytes::from_static(include_bytes!("../demo/demo.js"))),
        ("/fanwire.js", SCRIPT, Bytes::from_static(include_bytes!("../demo/fanwire.js"))),
    ])
}

/// Serves the dashboard, which asks for `/status.json`.
pub(crate) fn dashboard() -> Handler {
    serve([
        ("/", HTML, Bytes::from_static(include_bytes!("../dashboard/index.html"))),
        ("/dashboard.css", CSS, Bytes::from_static(include_bytes!("../dashboard/dashboard.css"))),
        ("/dashboard.js", SCRIPT, Bytes::from_static(include_bytes!("../dashboard/dashboard.js"))),
        ("/chart.js", SCRIPT, Bytes::from_static(include_bytes!("../dashboard/chart.js"))),
    ])
}

fn serve<const N: usize>(files: [File; N]) -> Handler {
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
