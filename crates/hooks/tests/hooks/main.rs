//! Backends as they are and as they fail, over real sockets of the loopback.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod answers;
mod backend;
mod failures;
mod grpc;
mod replaced;
mod secure;

use std::sync::Arc;

use fanwire_hooks::{Backends, HookConfig};
use fanwire_node::Failure;
use fanwire_node::hooks::{Asker, Dialect, Introduction};
use fanwire_wire::Refusal;
use tokio::runtime::Handle;

/// The hook `a` at this URL, with more of its section.
fn hook(url: &str, more: &str) -> Backends {
    Backends::new(&[section("a", url, more)], &Handle::current()).expect("a good section")
}

/// A section `[[hook]]`.
fn section(name: &str, url: &str, more: &str) -> HookConfig {
    toml::from_str(&format!("name = \"{name}\"\nurl = \"{url}\"\n{more}")).expect("a section")
}

fn asker() -> Asker {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Asker {
        client: "c1".to_owned(),
        user: "42".into(),
        dialect: Dialect::default(),
        introduction: Some(Arc::new(Introduction {
            headers: vec![pair("cookie", "a=1"), pair("cookie", "b=2"), pair("x-both", "opening")],
            client_headers: vec![pair("authorization", "Bearer x"), pair("x-both", "told"), pair("x-bad", "a\r\nb: c")],
            meta: Some(r#"{"m":1}"#.into()),
        })),
    }
}

/// What the asker of a backend without an answer gets.
fn unanswered<T>() -> Result<T, Failure> {
    Err(Refusal::BackendUnavailable.into())
}
