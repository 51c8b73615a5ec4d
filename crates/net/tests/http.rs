//! Requests that open nothing.

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use common::echo::Echo;
use common::{Peer, Server, client_config};
use fanwire_net::{Handler, Site};
use futures_util::FutureExt;
use http::{Request, Response};
use tokio::sync::Notify;

/// Says what it was asked.
fn mirror() -> Handler {
    Arc::new(|request: Request<Bytes>| {
        let peer = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        async move { Response::new(format!("{method} {path} {:?} {peer:?}", request.body()).into()) }.boxed()
    })
}

fn panicking() -> Handler {
    Arc::new(|_| async { panic!("on demand") }.boxed())
}

fn site() -> Site {
    Site::new().http("/api", 10, mirror()).http("/panic", 10, panicking())
}

/// On a runtime of its own, and on the workers beside a client protocol.
fn servers() -> [Server; 2] {
    [Server::start(site(), client_config()), Server::start(site().protocol("/ws", Arc::new(Echo)), client_config())]
}

fn post(path: &str, body: &str) -> String {
    let len = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}")
}

#[test]
fn answers_by_path() {
    for server in servers() {
        for (request, status, body) in [
            (post("/api/publish", "hello"), 200, "POST /api/publish b\"hello\" Some(127.0.0.1)"),
            (post("/api", "0123456789"), 200, "POST /api b\"0123456789\" Some(127.0.0.1)"),
            (post("/api", "0123456789x"), 413, "the body is too large\n"),
            (post("/apis", ""), 404, "there is nothing at this path\n"),
            (post("/", ""), 404, "there is nothing at this path\n"),
            (post("/panic", ""), 500, "internal error\n"),
            (
                "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                 b\r\nhello world\r\n0\r\n\r\n"
                    .to_owned(),
                413,
                "the body is too large\n",
            ),
        ] {
            let answer = Peer::connect(&server).ask(&request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{request}\n{answer}");
        }
    }
}

#[test]
fn a_connection_has_many_requests_unless_it_is_a_workers() {
    let [own, workers] = servers();
    let request = "GET /api HTTP/1.1\r\nHost: x\r\n\r\n";
    let expected = "GET /api b\"\" Some(127.0.0.1)";

    let mut peer = Peer::connect(&own);
    for _ in 0..2 {
        peer.send(request);
        let head = peer.head();
        assert!(head.contains(&format!("content-length: {}\r\n", expected.len())), "{head}");
        let mut body = vec![0; expected.len()];
        std::io::Read::read_exact(&mut peer.0, &mut body).unwrap();
        assert_eq!(body, expected.as_bytes());
    }

    let answer = Peer::connect(&workers).ask(request);
    assert!(answer.contains("connection: close\r\n") && answer.ends_with(expected), "{answer}");
}

#[test]
fn the_end_waits_for_answers() {
    let (begun, beginning) = mpsc::channel();
    let go_on = Arc::new(Notify::new());
    let slow: Handler = {
        let go_on = Arc::clone(&go_on);
        Arc::new(move |_| {
            begun.send(()).unwrap();
            let go_on = Arc::clone(&go_on);
            async move {
                go_on.notified().await;
                Response::new("done".into())
            }
            .boxed()
        })
    };
    let mut server = Server::start(Site::new().http("/", 0, slow), client_config());
    let mut peer = Peer::connect(&server);
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    beginning.recv().unwrap();
    let mut idle = Peer::connect(&server);
    server.stop();
    // Nobody is accepted any more, once the listener is gone.
    while std::net::TcpStream::connect(server.addr).is_ok() {}
    go_on.notify_one();
    assert!(String::from_utf8(peer.rest()).unwrap().ends_with("\r\n\r\ndone"));
    assert_eq!(idle.rest(), b"");
    server.join();
}
