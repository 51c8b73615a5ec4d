//! Commands that ask a running gateway: through its control API, or as one of its clients.

mod api;
mod channel;
mod completions;
mod connections;
mod moves;
mod nodes;
mod publish;
mod reload;
mod subscribe;
mod table;
mod token;
mod top;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use fanwire_client::{Api, Error as ClientError, Roots};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::causes;

pub(crate) use api::{Call, Disconnect, Revoke, call, disconnect, revoke};
pub(crate) use channel::{Channels, History, Presence, channels, history, presence};
pub(crate) use completions::{Shell, completions, man};
pub(crate) use connections::{Connections, connections};
pub(crate) use moves::{drain, rebalance};
pub(crate) use nodes::nodes;
pub(crate) use publish::{Publish, publish};
pub(crate) use reload::reload;
pub(crate) use subscribe::{Subscribe, subscribe};
pub(crate) use token::{Token, token};
pub(crate) use top::{Top, top};

/// Which gateway is asked, and how its answer is printed.
#[derive(Args)]
pub(crate) struct Remote {
    /// The control API of any node: http:// or https://
    #[arg(long, value_name = "URL", env = "FANWIRE_API", default_value = "http://127.0.0.1:8010")]
    api: String,
    /// The API key; in the environment it does not show in the list of processes
    #[arg(long, value_name = "KEY", env = "FANWIRE_API_KEY", hide_env_values = true)]
    key: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Whose certificates are accepted.
#[derive(Args, Debug)]
pub(crate) struct Trust {
    /// Authorities to trust instead of the system's, as PEM
    #[arg(long, value_name = "FILE", env = "FANWIRE_CA")]
    ca: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It did not come to asking for anything.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A method said no, or did not answer.
    #[error("{method}")]
    Method {
        /// The method.
        method: String,
        /// What it said.
        source: ClientError,
    },
    /// Something is wrong on this machine.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Nobody reads what is printed any more.
    #[error("nobody reads the output")]
    Unread,
}

/// Exit codes beside 0: done, 1: failed.
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const REFUSED: u8 = 4;
const NOT_FOUND: u8 = 5;

/// The code of an API that wants a key, or another one.
const UNAUTHORIZED: u32 = 101;
/// The codes of a channel that belongs to no namespace, and of a method that there is not.
const UNKNOWN: [u32; 2] = [102, 104];
/// The code of what makes no sense: fields that no method takes, a configuration with mistakes.
const BAD_REQUEST: u32 = 107;

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Unread => 0,
            Self::Local { .. } => 1,
            Self::Client(error) | Self::Method { source: error, .. } => match error {
                ClientError::Usage(_) => USAGE,
                ClientError::Unreachable { .. } | ClientError::Lost(_) | ClientError::NotConnected => UNREACHABLE,
                ClientError::Status { .. } | ClientError::Refused(_) if error.is_temporary() => UNREACHABLE,
                ClientError::Refused(refusal) if UNKNOWN.contains(&refusal.code) => NOT_FOUND,
                ClientError::Refused(refusal) if refusal.code == BAD_REQUEST => USAGE,
                ClientError::Refused(_) | ClientError::Closed { .. } | ClientError::Unsubscribed { .. } => REFUSED,
                _ => 1,
            },
        }
    }

    /// What may help.
    fn hint(&self) -> Option<&'static str> {
        let Self::Method { source: ClientError::Refused(refusal), .. } = self else { return None };
        (refusal.code == UNAUTHORIZED).then_some("it wants an API key: --key, or FANWIRE_API_KEY in the environment")
    }
}

impl Trust {
    fn roots(&self) -> Result<Roots, Error> {
        match &self.ca {
            None => Ok(Roots::System),
            Some(file) => Ok(Roots::Pem(read(file)?)),
        }
    }
}

impl Remote {
    fn connect(&self) -> Result<Api, Error> {
        let api = Api::with_roots(&self.api, &self.trust.roots()?)?;
        match self.key.as_deref().filter(|key| !key.is_empty()) {
            Some(key) => Ok(api.key(key)?),
            None => Ok(api),
        }
    }

    /// Calls a method of the API.
    ///
    /// # Errors
    ///
    /// [`Error`]
    fn call<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<Answer<T>, Error> {
        run(self.ask(&self.connect()?, method, params))
    }

    async fn ask<T: DeserializeOwned>(&self, api: &Api, method: &str, params: &Value) -> Result<Answer<T>, Error> {
        let failed = |source| Error::Method { method: method.to_owned(), source };
        let raw = api.call_raw(method, params).await.map_err(failed)?;
        let foreign = |error: serde_json::Error| ClientError::Foreign { url: self.api.clone(), source: error.into() };
        let result = serde_json::from_str(raw.get()).map_err(|error| failed(foreign(error)))?;
        Ok(Answer { result, raw })
    }
}

/// What a method answered, read and as it came.
struct Answer<T> {
    result: T,
    raw: Box<RawValue>,
}

impl<T> Answer<T> {
    /// The answer as it is printed: for machines as it came, else as `show` writes it.
    fn print(self, remote: &Remote, show: impl FnOnce(T) -> String) -> String {
        if remote.json { format!("{}\n", self.raw) } else { show(self.result) }
    }
}

/// Runs what waits for a network. One thread does.
fn run<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Local { what: "cannot start".to_owned(), source })?.block_on(work)
}

/// Prints what a command has to say, and says how it went.
fn finish(outcome: Result<String, Error>) -> ExitCode {
    let Err(error) = outcome.and_then(|text| print(text.as_bytes())) else { return ExitCode::SUCCESS };
    let code = error.exit_code();
    if code != 0 {
        complain(&causes(&error));
        error.hint().into_iter().for_each(complain);
    }
    ExitCode::from(code)
}

/// Prints at once.
fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough is no failure, but an end.
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|_| Error::Unread)
}

/// Says something beside the answer.
fn complain(text: &str) {
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "fanwire: {text}");
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|source| Error::Local { what: format!("cannot read {}", file.display()), source })
}

/// Reads `OFFSET:EPOCH`, as `publish` and `history` print positions.
fn position(text: &str) -> Result<fanwire_client::Position, String> {
    let wrong = || "expected OFFSET:EPOCH, for example 17:ewosc2i2qb".to_owned();
    let (offset, epoch) = text.split_once(':').ok_or_else(wrong)?;
    let offset = offset.parse().map_err(|_| wrong())?;
    Ok(fanwire_client::Position { offset, epoch: epoch.to_owned() })
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("api", &self.api).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let at = position("17:abc").unwrap();
        assert_eq!((at.offset, &*at.epoch), (17, "abc"));
        assert_eq!(position("0:").unwrap(), fanwire_client::Position::default());
        for wrong in ["", "17", "abc:17", "-1:abc"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        let method = |source| Error::Method { method: "publish".to_owned(), source };
        let refused = |code| {
            let refusal = fanwire_client::Refusal { code, message: "no".to_owned(), temporary: code == 111 };
            method(ClientError::Refused(refusal))
        };
        let unreachable = method(ClientError::Unreachable { url: "x".to_owned(), source: "y".into() });
        let status = |status| method(ClientError::Status { url: "x".to_owned(), status, retry_after: None });
        let cases = [
            (refused(101), REFUSED),
            (refused(102), NOT_FOUND),
            (refused(107), USAGE),
            (refused(111), UNREACHABLE),
            (unreachable, UNREACHABLE),
            (status(503), UNREACHABLE),
            (status(404), 1),
            (ClientError::Usage("x".to_owned()).into(), USAGE),
            (Error::Unread, 0),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
        assert!(refused(UNAUTHORIZED).hint().is_some() && refused(102).hint().is_none());
        assert_eq!(causes(&refused(102)), "publish: no (102)");
    }
}
