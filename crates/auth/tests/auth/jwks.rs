//! Key sets that are fetched, from a server of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanwire_auth::{Config, Jwks, Verifier};
use fanwire_node::Authorizer;
use fanwire_node::authorizer::AuthError;
use futures_util::future::join_all;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::*;

/// A server that answers every request with the same, until it is told another answer.
struct Server {
    url: String,
    answer: Arc<RwLock<String>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
        let (answer, requests) = (Arc::new(RwLock::new(answer)), Arc::<AtomicUsize>::default());
        let server = Self { url, answer: Arc::clone(&answer), requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                requests.fetch_add(1, Ordering::Relaxed);
                let answer = answer.read().clone();
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    let _ = socket.read(&mut head).await;
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        server
    }

    fn say(&self, answer: String) {
        *self.answer.write() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn set(&self) -> Jwks {
        toml::from_str(&format!("url = {:?}", self.url)).expect("a good section")
    }

    fn verifier(&self) -> Verifier {
        started(&Config { jwks: vec![self.set()], ..Config::default() })
    }
}

fn started(config: &Config) -> Verifier {
    let verifier = verifier(config);
    verifier.start();
    verifier
}

/// The answer with these keys of `jwks.json`.
fn keys(ids: &[&str]) -> String {
    let all: Vec<Value> = serde_json::from_str(include_str!("../keys/jwks.json")).expect("JSON");
    let keys: Vec<_> = all.into_iter().filter(|key| ids.contains(&key["kid"].as_str().expect("an id"))).collect();
    assert_eq!(keys.len(), ids.len());
    ok(&json!({ "keys": keys }).to_string())
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

async fn user(verifier: &Verifier, token: &str) -> Result<String, AuthError> {
    Authorizer::connection(verifier, token).await.map(|identity| identity.user.to_string())
}

fn invalid(result: &Result<String, AuthError>) -> bool {
    matches!(result, Err(AuthError::Invalid(_)))
}

const CLAIMS: &str = r#"{"sub":"42","iss":"one"}"#;

/// Lets time pass without anything else happening in it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn the_key_is_found_by_its_id_and_its_type_decides() {
    let server = Server::start(keys(&["rsa-1", "p256", "p384", "p521"])).await;
    let verifier = server.verifier();
    for (algorithm, kid, key) in
        [("RS256", "rsa-1", RSA), ("ES256", "p256", P256), ("ES384", "p384", P384), ("ES512", "p521", P521)]
    {
        assert_eq!(user(&verifier, &sign_kid(algorithm, kid, key, CLAIMS)).await.as_deref(), Ok("42"), "{algorithm}");
    }
    for (algorithm, kid, key, case) in [
        ("RS256", "rsa-1", RSA_OTHER, "another key"),
        ("RS512", "rsa-1", RSA, "the set says RS256"),
        ("RS256", "p256", RSA, "the id of a key of another type"),
        ("ES384", "p256", P384, "the id of another curve's key"),
        ("HS256", "rsa-1", RSA_PUBLIC, "the public key as a secret"),
        ("HS256", "rsa-1", "", "no secret"),
        ("RS256", "rsa-9", RSA, "an id that is in no set"),
        ("RS256", "", RSA, "no id"),
    ] {
        assert!(invalid(&user(&verifier, &sign_kid(algorithm, kid, key, CLAIMS)).await), "{case}");
    }
    assert_eq!(server.requests(), 1, "what was just read is the answer");
}

#[tokio::test]
async fn keys_change_and_whoever_waits_shares_one_request() {
    let server = Server::start(keys(&["rsa-1"])).await;
    let verifier = server.verifier();
    let (old, new) = (sign_kid("RS256", "rsa-1", RSA, CLAIMS), sign_kid("RS256", "rsa-2", RSA_OTHER, CLAIMS));
    assert!(join_all((0..50).map(|_| user(&verifier, &old))).await.iter().all(Result::is_ok));
    assert_eq!(server.requests(), 1);
    server.say(keys(&["rsa-2"]));
    assert!(invalid(&user(&verifier, &new).await), "asked again too soon");
    pass(Duration::from_secs(31)).await;
    assert!(join_all((0..50).map(|_| user(&verifier, &new))).await.iter().all(Result::is_ok));
    assert!(invalid(&user(&verifier, &old).await), "it is gone from the set");
    for number in 0..5 {
        assert!(invalid(&user(&verifier, &sign_kid("RS256", &format!("no-{number}"), RSA, CLAIMS)).await));
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn what_is_known_outlives_the_server_for_a_while() {
    let server = Server::start(keys(&["rsa-1"])).await;
    let verifier = server.verifier();
    let (known, unknown) = (sign_kid("RS256", "rsa-1", RSA, CLAIMS), sign_kid("RS256", "rsa-2", RSA_OTHER, CLAIMS));
    assert!(user(&verifier, &known).await.is_ok());
    server.say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned());
    pass(Duration::from_secs(31)).await;
    let cannot_tell = |result| matches!(result, Err(AuthError::Unavailable(_)));
    assert!(cannot_tell(user(&verifier, &unknown).await), "it may be new");
    pass(Duration::from_secs(23 * 3600)).await;
    assert!(user(&verifier, &known).await.is_ok());
    pass(Duration::from_secs(2 * 3600)).await;
    assert!(cannot_tell(user(&verifier, &known).await), "too old to be trusted");
    server.say(keys(&["rsa-1"]));
    pass(Duration::from_secs(61)).await;
    assert!(user(&verifier, &known).await.is_ok());
}

#[tokio::test]
async fn a_set_is_followed_until_its_verifier_is_dropped() {
    let server = Server::start(keys(&["rsa-1"])).await;
    let verifier = server.verifier();
    let token = sign_kid("RS256", "rsa-1", RSA, CLAIMS);
    assert!(user(&verifier, &token).await.is_ok());
    // Four fifths of its lifetime, and more.
    let due = Duration::from_secs(3000);
    pass(due).await;
    while server.requests() < 2 {
        tokio::task::yield_now().await;
    }
    drop(verifier);
    pass(due).await;
    // Another one reads it for itself; the first would have asked before it.
    let next = server.verifier();
    assert!(user(&next, &token).await.is_ok());
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn answers_that_are_no_key_set() {
    let elsewhere = Server::start(keys(&["rsa-1"])).await;
    let redirection =
        format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", elsewhere.url);
    let padding = " ".repeat(64 * 1024);
    let large = keys(&["rsa-1"]);
    let large = ok(&format!("{padding}{}", large.split_once("\r\n\r\n").expect("a head").1));
    for answer in
        [redirection, large, ok("{}"), ok(r#"{"keys":[]}"#), ok("<html>"), "nonsense\r\n\r\n".to_owned(), String::new()]
    {
        let server = Server::start(answer.clone()).await;
        let token = sign_kid("RS256", "rsa-1", RSA, CLAIMS);
        let result = user(&server.verifier(), &token).await;
        assert!(matches!(result, Err(AuthError::Unavailable(_))), "{answer:.60} {result:?}");
    }
    assert_eq!(elsewhere.requests(), 0, "redirections lead nowhere");
}

#[tokio::test]
async fn a_token_names_no_address() {
    let (server, evil) = (Server::start(keys(&["rsa-1"])).await, Server::start(keys(&["rsa-2"])).await);
    let verifier = server.verifier();
    for member in [format!(r#""jku":"{0}","x5u":"{0}""#, evil.url), format!(r#""iss":"{0}""#, evil.url)] {
        let header = format!(r#"{{"alg":"RS256","kid":"rsa-2",{member}}}"#);
        assert!(invalid(&user(&verifier, &sign_rs256(&header, RSA_OTHER, CLAIMS)).await), "{header}");
    }
    assert_eq!(evil.requests(), 0);
}

/// Two issuers with a key of the same id are not one.
#[tokio::test]
async fn sets_are_bound_to_their_issuers_and_live_beside_static_keys() {
    let rename = |answer: String| answer.replace("rsa-1", "k").replace("rsa-2", "k");
    let rename = |answer: String| ok(rename(answer).split_once("\r\n\r\n").expect("a head").1);
    let (one, two) = (Server::start(rename(keys(&["rsa-1"]))).await, Server::start(rename(keys(&["rsa-2"]))).await);
    let of = |server: &Server, issuer: &str| Jwks { issuer: Some(issuer.to_owned()), ..server.set() };
    let verifier = started(&Config { jwks: vec![of(&one, "one"), of(&two, "two")], ..hmac() });
    let from = |issuer: &str| format!(r#"{{"sub":"42","iss":"{issuer}"}}"#);
    assert!(user(&verifier, &sign_kid("RS256", "k", RSA, &from("one"))).await.is_ok());
    assert!(user(&verifier, &sign_kid("RS256", "k", RSA_OTHER, &from("two"))).await.is_ok());
    for (key, claims) in [(RSA, from("two")), (RSA_OTHER, from("one")), (RSA, "{}".to_owned())] {
        assert!(invalid(&user(&verifier, &sign_kid("RS256", "k", key, &claims)).await), "{claims}");
    }
    assert!(user(&verifier, &sign_kid("HS256", "k", SECRET, CLAIMS)).await.is_ok(), "a static key asks nobody");
    assert!(user(&verifier, &token(CLAIMS)).await.is_ok());
}
