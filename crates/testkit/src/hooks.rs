//! A backend whose hooks say in their names what they answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::Failure;
use fanwire_node::authorizer::{AuthError, Grant, Identity};
use fanwire_node::hooks::{
    Approval, Asked, Asker, BackendError, ConnectQuestion, Hooks, Introduction, Kept, Renewal, Welcome,
};
use fanwire_wire::{Channel, Disconnect, Payload, Refusal};
use serde_json::{Value, json};

use crate::tokens::{seconds_from_now, set};

/// A backend for tests. The name of a hook says in words what it answers, whatever it is asked:
///
/// ```text
/// hook   = answer *option
/// answer = "down"                          none
///        / "error:" code ":" text          an error of its own; of a code below 200 a temporary one
///        / "disconnect:" code ":" text     the end of the connection
///        / "user:" id                      connect: who the client is
///        / "yes"                           yes, on the terms of the options
///        / "expired"                       refresh and sub_refresh: it is over
///        / "echo"                          rpc: the question; connect: the question as data
/// option = ";after=" seconds               the answer takes so long
///        / ";info=" json / ";data=" json / ";exp=" seconds from now / ";skip_history=true" / ";tag=" name ":" value
///        / ";key=" idempotency key / ";meta=" json / ";subs=" channel *("," channel) / overrides as in a subscription token
/// ```
///
/// JSON in an option has no `;`. Of the client's headers, `x-kept` and `authorization` are kept.
#[derive(Clone, Debug)]
pub struct HookBook {
    kept: Arc<Kept>,
}

impl Default for HookBook {
    fn default() -> Self {
        let kept = Kept { headers: vec!["x-kept".to_owned()], client_headers: vec!["authorization".to_owned()] };
        Self { kept: Arc::new(kept) }
    }
}

impl Hooks for HookBook {
    fn keeps(&self) -> Arc<Kept> {
        Arc::clone(&self.kept)
    }

    fn connect(&self, hook: &str, asker: Asker, question: ConnectQuestion) -> Asked<Welcome> {
        answer(hook, move |answer| {
            let mut welcome = Welcome { data: answer.bytes("data"), meta: answer.bytes("meta"), ..Welcome::default() };
            if answer.word == "echo" {
                let ConnectQuestion { name, version, data, channels } = question;
                let mut value = describe(&asker);
                value["question"] = json!([name, version, data.as_ref().map(json_of), channels]);
                welcome.data = Some(value.to_string().into());
            }
            let subs = answer.option("subs").unwrap_or_default();
            welcome.identity = Identity {
                user: answer.word.strip_prefix("user:").unwrap_or_default().into(),
                expire_at: answer.expire_at()?,
                info: answer.bytes("info"),
                subscriptions: subs
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(|name| (Channel::new(name).expect("the test names a channel"), Grant::default()))
                    .collect(),
                ..Identity::default()
            };
            Ok(welcome)
        })
    }

    fn refresh(&self, hook: &str, _: Asker) -> Asked<Renewal> {
        answer(hook, renewal)
    }

    fn subscribe(&self, hook: &str, _: Asker, _: Channel, _: Option<Payload>) -> Asked<Grant> {
        answer(hook, |answer| {
            let mut grant = Grant::default();
            for (name, value) in answer.options.iter().filter(|(name, _)| *name != "after") {
                set(&mut grant, name, value)?;
            }
            Ok(grant)
        })
    }

    fn publish(&self, hook: &str, _: Asker, _: Channel, _: Payload) -> Asked<Approval> {
        answer(hook, |answer| {
            let tags = answer.option("tag").and_then(|tag| tag.split_once(':'));
            Ok(Approval {
                payload: answer.bytes("data").map(Payload::json),
                skip_history: answer.option("skip_history").is_some(),
                tags: tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect(),
                idempotency_key: answer.option("key").map(Arc::from),
            })
        })
    }

    fn rpc(&self, hook: &str, asker: Asker, method: String, payload: Option<Payload>) -> Asked<Option<Payload>> {
        answer(hook, move |answer| {
            if answer.word != "echo" {
                return Ok(answer.bytes("data").map(Payload::detect));
            }
            let mut value = describe(&asker);
            value["method"] = json!(method);
            value["data"] = payload.as_ref().map_or(Value::Null, json_of);
            Ok(Some(Payload::json(value.to_string().into())))
        })
    }

    fn sub_refresh(&self, hook: &str, _: Asker, _: Channel) -> Asked<Renewal> {
        answer(hook, renewal)
    }
}

/// What the name of a hook says.
struct Answer<'a> {
    word: &'a str,
    options: Vec<(&'a str, &'a str)>,
}

impl Answer<'_> {
    fn option(&self, wanted: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
    }

    fn bytes(&self, name: &str) -> Option<Bytes> {
        self.option(name).map(|value| Bytes::copy_from_slice(value.as_bytes()))
    }

    fn expire_at(&self) -> Result<Option<u64>, AuthError> {
        self.option("exp").map(seconds_from_now).transpose()
    }
}

fn answer<T: Send + 'static>(
    hook: &str,
    make: impl FnOnce(&Answer<'_>) -> Result<T, AuthError> + Send + 'static,
) -> Asked<T> {
    let hook = hook.to_owned();
    Box::pin(async move {
        let mut parts = hook.split(';');
        let word = parts.next().unwrap_or_default();
        let options = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        let answer = Answer { word, options };
        if let Some(seconds) = answer.option("after") {
            tokio::time::sleep(Duration::from_secs(seconds.parse().expect("the test names seconds"))).await;
        }
        let words: Vec<&str> = word.splitn(3, ':').collect();
        match words[..] {
            ["down"] => Err(Refusal::BackendUnavailable.into()),
            ["error", code, message] => {
                let code = code.parse().expect("the test names a code");
                Err(BackendError { code, message: message.into(), temporary: code < 200 }.into())
            }
            ["disconnect", code, reason] => {
                let code = code.parse().expect("the test names a code");
                Err(Disconnect::from_code(code, reason).into())
            }
            _ => make(&answer).map_err(|error| panic!("hook {hook:?}: {error}")).map_err(Failure::Refusal),
        }
    })
}

fn renewal(answer: &Answer<'_>) -> Result<Renewal, AuthError> {
    if answer.word == "expired" {
        return Ok(Renewal::Expired);
    }
    Ok(Renewal::Until { expire_at: answer.expire_at()?, info: answer.bytes("info") })
}

fn describe(asker: &Asker) -> Value {
    let Introduction { headers, client_headers, meta } = asker.introduction.as_deref().cloned().unwrap_or_default();
    let meta = meta.map(|meta| serde_json::from_slice::<Value>(&meta).expect("the test's meta is JSON"));
    json!({
        "user": *asker.user,
        "speaks": [asker.dialect.protocol, asker.dialect.encoding],
        "headers": [headers, client_headers],
        "meta": meta,
    })
}

fn json_of(payload: &Payload) -> Value {
    serde_json::from_slice(payload.bytes()).unwrap_or_else(|_| json!(payload.bytes().to_vec()))
}
