//! What is written of each call.

use std::io;
use std::net::SocketAddr;

use fanwire_control::{CertificateName, Scope};
use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

use super::*;

/// The lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).expect("text");
        text.lines().map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the same calls with each setting; returns what was logged of each.
fn logged(audit: Audit, calls: &[(&str, Value)]) -> Vec<Vec<String>> {
    logged_as(audit, calls, Format::Text)
}

/// How lines look.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Text,
    Json,
}

fn logged_as(audit: Audit, calls: &[(&str, Value)], format: Format) -> Vec<Vec<String>> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("off,fanwire::audit=info"))
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone());
    let subscriber = match format {
        Format::Text => tracing::Dispatch::new(subscriber.finish()),
        Format::Json => tracing::Dispatch::new(subscriber.json().flatten_event(true).finish()),
    };
    let key = ApiKey { scopes: Some(vec![Scope::Publish, Scope::Disconnect]), ..keys::key("shop") };
    let mut logged = Vec::new();
    // With only one alive, the thread of another test, which has none, may decide that nobody wants these lines.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    tracing::dispatcher::with_default(&subscriber, || {
        keys::with_audit(&[key], audit, async |_, api| {
            for (method, params) in calls {
                let mut request = Request::post(format!("/api/{method}")).header("X-API-Key", keys::secret_of("shop"));
                let peer: SocketAddr = ([192, 0, 2, 1], 5000).into();
                request.extensions_mut().expect("a good request").insert(peer);
                if format == Format::Json {
                    let name = CertificateName("shop.example.com".into());
                    request.extensions_mut().expect("a good request").insert(name);
                }
                api.handle(request.body(params.to_string().into()).expect("a good request")).await;
                logged.push(lines.take());
            }
            let wrong = Request::post("/api/info").header("X-API-Key", "a-secret-nobody-has");
            api.handle(wrong.body(Bytes::new()).expect("a good request")).await;
            logged.push(lines.take());
        });
    });
    logged
}

fn calls() -> Vec<(&'static str, Value)> {
    vec![
        ("publish", json!({"channel": "chat:1", "data": "PAYLOAD", "tags": {"a": "PAYLOAD"}})),
        ("broadcast", json!({"channels": ["chat:1", "chat:2", "chat:3"], "b64data": "UEFZTE9BRA=="})),
        ("subscribe", json!({"user": "ann\n", "channel": "chat:1", "data": "PAYLOAD", "info": "PAYLOAD"})),
        ("disconnect", json!({"user": "ann", "client": "846c", "disconnect": {"code": 4000, "reason": "PAYLOAD"}})),
        ("disconnect", json!({"client": "846c"})),
        ("history", json!({"channel": "chat:1"})),
        ("batch", json!({"commands": [{"refresh": {"user": "ann"}}, {"info": {}}]})),
    ]
}

#[test]
fn every_call_has_a_line_that_says_who_and_what() {
    let line = |rest: &str| format!(" INFO fanwire::audit: call key=\"shop\" peer=192.0.2.1:5000 {rest} ms=0");
    assert_eq!(
        logged(Audit::All, &calls()),
        [
            vec![line("method=\"publish\" channel=\"chat:1\" outcome=\"ok\"")],
            vec![line("method=\"broadcast\" channel=\"chat:1\" channels=3 outcome=\"ok\"")],
            vec![line("method=\"subscribe\" channel=\"chat:1\" user=\"ann\\n\" outcome=\"ok\"")],
            vec![line("method=\"disconnect\" user=\"ann\" client=\"846c\" outcome=\"ok\"")],
            vec![line("method=\"disconnect\" client=\"846c\" outcome=\"bad_request\"")],
            vec![line("method=\"history\" channel=\"chat:1\" outcome=\"permission_denied\"")],
            vec![
                line("method=\"refresh\" user=\"ann\" outcome=\"ok\""),
                line("method=\"info\" outcome=\"permission_denied\""),
            ],
            vec![" INFO fanwire::audit: call key=\"\" method=\"\" outcome=\"unauthorized\" ms=0".to_owned()],
        ]
    );
}

#[test]
fn less_is_written_where_less_is_wanted() {
    let numbers = |audit| logged(audit, &calls()).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(numbers(Audit::Changes), [0, 0, 1, 1, 1, 1, 2, 1]);
    assert_eq!(numbers(Audit::Off), [0; 8]);
}

#[test]
fn in_json_each_name_is_as_it_was_given() {
    let calls = [("subscribe", json!({"user": "ann\n\"x\"", "channel": "chat:1"}))];
    let lines = logged_as(Audit::All, &calls, Format::Json);
    let line: Value = serde_json::from_str(&lines[0][0]).expect("JSON");
    let fields = ["key", "certificate", "channel", "user", "outcome"].map(|field| &line[field]);
    let expected = ["shop", "shop.example.com", "chat:1", "ann\n\"x\"", "ok"].map(|text| json!(text));
    assert_eq!(fields, expected.each_ref());
    assert!(line.get("client").is_none(), "{line}");
}
