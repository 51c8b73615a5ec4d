//! `fanwire disconnect`, `fanwire revoke` and `fanwire call`.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Remote, complain, finish};

/// Arguments of `fanwire disconnect`.
#[derive(Args, Debug)]
pub(crate) struct Disconnect {
    /// The user
    user: String,
    /// Only the connection with this id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// The close code: 4000 to 4499 for clients that may come back, 4500 to 4999 for those that may not, or one of the
    /// gateway's own
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    code: u16,
    /// What the client is told, beside a code of 4000 and above
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    remote: Remote,
}

/// Arguments of `fanwire revoke`.
#[derive(Args, Debug)]
pub(crate) struct Revoke {
    /// The user
    user: String,
    /// Tokens issued before this moment: like 2026-11-21T19:48:45Z, or in seconds of Unix time; without it, this second
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// Arguments of `fanwire call`.
#[derive(Args, Debug)]
pub(crate) struct Call {
    /// The method, for example history_remove
    method: String,
    /// Its fields, as JSON
    #[arg(default_value = "{}")]
    params: String,
    #[command(flatten)]
    remote: Remote,
}

/// The nodes that something did not reach.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Missing {
    silent: Vec<String>,
    unsupported: Vec<String>,
    unasked: bool,
}

/// Ends a user's connections.
pub(crate) fn disconnect(args: &Disconnect) -> ExitCode {
    let Disconnect { user, client, code, reason, remote } = args;
    let params = json!({ "user": user, "client": client, "disconnect": { "code": code, "reason": reason } });
    finish(remote.call::<Missing>("disconnect", &params).map(|answer| {
        answer.result.complain();
        answer.print(remote, |_| String::new())
    }))
}

/// Takes back what a user's tokens grant.
pub(crate) fn revoke(args: &Revoke) -> ExitCode {
    let Revoke { user, before, remote } = args;
    finish(remote.call::<Missing>("revoke", &json!({ "user": user, "before": before })).map(|answer| {
        answer.result.complain();
        answer.print(remote, |_| String::new())
    }))
}

/// Calls any method.
pub(crate) fn call(args: &Call) -> ExitCode {
    let Call { method, params, remote } = args;
    let params = serde_json::from_str::<Value>(params).map_err(|error| Error::Usage(format!("the fields: {error}")));
    finish(params.and_then(|params| {
        let answer = remote.call::<Value>(method, &params)?;
        Ok(answer.print(remote, |result| format!("{result:#}\n")))
    }))
}

impl Missing {
    /// Says what an answer lacks.
    pub(super) fn complain(&self) {
        self.notes().iter().for_each(|note| complain(note));
    }

    /// What an answer lacks, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.silent.is_empty() {
            notes.push(format!("no answer from {}", self.silent.join(", ")));
        }
        if !self.unsupported.is_empty() {
            notes.push(format!("of a version that does not answer this: {}", self.unsupported.join(", ")));
        }
        if self.unasked {
            notes.push("other nodes cannot be asked at the moment: there may be more than these".to_owned());
        }
        notes
    }
}

/// Reads a moment, as seconds of Unix time.
fn moment(text: &str) -> Result<u64, String> {
    let written = || humantime::parse_rfc3339_weak(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok();
    let seconds = text.parse().ok().or_else(|| Some(written()?.as_secs()));
    seconds.ok_or_else(|| "expected a time like 2026-11-21T19:48:45Z, or seconds of Unix time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("1795290525"), Ok(1_795_290_525));
        assert_eq!(moment("2026-11-21T19:48:45Z"), moment("1795290525"));
        assert!(moment("yesterday").is_err() && moment("-1").is_err());
    }
}
