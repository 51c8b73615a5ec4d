//! Several calls in one request: `batch`, and JSON's older form with everything at one path.

use std::collections::BTreeMap;

use fanwire_wire::Refusal;
use futures_util::future::join_all;
use http::StatusCode;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Method, parse, write};
use crate::Api;
use crate::caller::Caller;
use crate::proto;
use crate::types::{Fault, Reply};

/// The most calls in one request.
const MAX_COMMANDS: usize = 1000;

/// `{"commands": [{"publish": {…}}, …]}`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Batch<'a> {
    #[serde(borrow)]
    commands: Vec<&'a RawValue>,
    parallel: Option<bool>,
}

/// `{"replies": [{"publish": {…}}, {"error": {…}}, …]}`, without a `result` around it.
#[derive(Debug, Serialize)]
struct Replies {
    replies: Vec<Named>,
}

/// The reply to one command of a batch, under the name of its method.
#[derive(Debug)]
struct Named(Result<(Method, Box<RawValue>), Fault>);

/// One command of the older form.
#[derive(Debug, Deserialize)]
struct Command<'a> {
    id: Option<u64>,
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// The reply to it.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(flatten)]
    reply: Reply<Box<RawValue>>,
}

impl Api {
    /// Makes the calls of a batch: all at once if it says so, else one after the other. Each has its own outcome.
    pub(crate) async fn run_batch(
        &self,
        caller: &Caller,
        request: proto::BatchRequest,
    ) -> Result<proto::BatchResponse, Fault> {
        let calls = request.commands.into_iter().map(|command| self.reply(caller, command));
        let replies = self.run_all(calls, request.parallel).await?;
        Ok(proto::BatchResponse { replies })
    }

    async fn reply(&self, caller: &Caller, command: proto::Command) -> proto::Reply {
        let outcome = self.execute(caller, command).await;
        outcome.unwrap_or_else(|fault| proto::Reply { error: Some(fault.into()), ..proto::Reply::default() })
    }

    /// The same in JSON, where a command that cannot be read spoils no other.
    pub(crate) async fn run_batch_json(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let batch =
            parse::<Batch<'_>>(body).inspect_err(|fault| self.metrics.turned_away(Some(Method::Batch), fault))?;
        let calls = batch.commands.into_iter().map(|command| self.reply_json(caller, command));
        let replies = self.run_all(calls, batch.parallel.unwrap_or_default()).await?;
        write(&Replies { replies })
    }

    async fn reply_json(&self, caller: &Caller, command: &RawValue) -> Named {
        Named(match named(command) {
            Ok((method, params)) => {
                self.call_json(caller, method, params.get().as_bytes()).await.map(|result| (method, result))
            }
            Err(fault) => Err(fault),
        })
    }

    /// Makes calls in the older form, one after the other: `{"method": …, "params": {…}}`, any number of them behind each
    /// other, answered one on a line.
    pub(crate) async fn pipeline(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let commands = serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<Vec<Command<'_>>, _>>();
        let commands = commands.map_err(Fault::from).and_then(|commands| {
            check_number(commands.len())?;
            if commands.is_empty() { Err(malformed("no command")) } else { Ok(commands) }
        });
        let commands = commands.inspect_err(|fault| self.metrics.turned_away(None, fault))?;
        let mut out = Vec::new();
        for Command { id, method, params } in commands {
            let outcome = match Method::find(&method) {
                Some(method) => self.call_json(caller, method, params.map_or("", RawValue::get).as_bytes()).await,
                None => Err(Refusal::MethodNotFound.into()),
            };
            if !out.is_empty() {
                out.push(b'\n');
            }
            out.extend(write(&Line { id, reply: outcome.into() })?);
        }
        Ok(out)
    }

    async fn run_all<F: Future>(
        &self,
        calls: impl ExactSizeIterator<Item = F>,
        parallel: bool,
    ) -> Result<Vec<F::Output>, Fault> {
        let started = Instant::now();
        let bounded = check_number(calls.len());
        let mut replies = Vec::new();
        if bounded.is_ok() && parallel {
            replies = join_all(calls).await;
        } else if bounded.is_ok() {
            for call in calls {
                replies.push(call.await);
            }
        }
        self.metrics.called(Method::Batch, bounded.as_ref().err(), started.elapsed());
        bounded.map(|()| replies)
    }
}

/// Finds the one method that a command of a batch names.
fn named(command: &RawValue) -> Result<(Method, &RawValue), Fault> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(command.get())?;
    let given = fields.into_iter().filter(|(_, params)| params.get() != "null");
    let mut methods = given.filter_map(|(name, params)| Some((Method::find(&name)?, params)));
    match (methods.next(), methods.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Refusal::MethodNotFound.into()),
        (Some(_), Some(_)) => Err(Fault::bad("a command has one method")),
    }
}

fn check_number(commands: usize) -> Result<(), Fault> {
    if commands <= MAX_COMMANDS { Ok(()) } else { Err(malformed(format!("more than {MAX_COMMANDS} commands"))) }
}

/// The answer has a place for the outcome of each command, and none for that of the whole: so the status must tell.
fn malformed(detail: impl Into<String>) -> Fault {
    Fault::transport(StatusCode::BAD_REQUEST, Refusal::BadRequest, detail)
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok((method, result)) => serializer.collect_map([(method.name(), result)]),
            Err(fault) => serializer.collect_map([("error", fault)]),
        }
    }
}
