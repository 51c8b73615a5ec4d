//! Commands that ask a running gateway, through its control API.

mod moves;
mod nodes;
mod table;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::causes;

pub(crate) use moves::{drain, rebalance};
pub(crate) use nodes::nodes;

/// Which gateway is asked, and how its answer is printed.
#[derive(Args)]
pub(crate) struct Remote {
    /// The control API of any node
    #[arg(long, value_name = "URL", env = "FANWIRE_API", default_value = "http://127.0.0.1:8010")]
    api: String,
    /// The API key; in the environment it does not show in the list of processes
    #[arg(long, value_name = "KEY", env = "FANWIRE_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address is none.
    #[error("--api {0:?} is no http:// address")]
    Address(String),
    /// No HTTP answer came.
    #[error("cannot ask {url}")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The key is missing or wrong.
    #[error("{0} wants an API key: --key, or FANWIRE_API_KEY in the environment")]
    NoKey(String),
    #[error("{0} does not accept this API key")]
    WrongKey(String),
    /// The method said no.
    #[error("{method}: {message} ({code})")]
    Refused {
        /// The method.
        method: &'static str,
        /// Its code.
        code: u32,
        /// Its words.
        message: String,
    },
    /// Something else answered, or an older gateway.
    #[error("{url} does not answer like a Fanwire gateway (HTTP status {status})")]
    Foreign {
        /// Who was asked.
        url: String,
        /// The status.
        status: u16,
    },
}

/// How long an answer may take. The gateway gives silent nodes a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// The body of every answer.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Result(Box<RawValue>),
    Error { code: u32, message: String },
}

impl Remote {
    /// Calls a method of the API.
    ///
    /// # Errors
    ///
    /// [`Error`]
    fn call<T: DeserializeOwned>(&self, method: &'static str, params: &Value) -> Result<Answer<T>, Error> {
        let base = self.api.trim_end_matches('/');
        // The listener speaks no TLS; a key must not leave in the clear because somebody hoped so.
        if !base.starts_with("http://") {
            return Err(Error::Address(self.api.clone()));
        }
        let url = format!("{base}/api/{method}");
        // No proxy: the control plane is not on the Internet.
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .build();
        let mut request = ureq::Agent::new_with_config(config).post(&url).header("Content-Type", "application/json");
        let key = self.key.as_deref().filter(|key| !key.is_empty());
        if let Some(key) = key {
            request = request.header("X-API-Key", key);
        }
        let unreachable = |source| Error::Unreachable { url: base.to_owned(), source: Box::new(source) };
        let mut response = request.send(params.to_string()).map_err(unreachable)?;
        let status = response.status().as_u16();
        if status == 401 {
            return Err(if key.is_some() { Error::WrongKey } else { Error::NoKey }(base.to_owned()));
        }
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(unreachable)?;
        let foreign = || Error::Foreign { url: base.to_owned(), status };
        match serde_json::from_slice(&body) {
            Ok(Reply::Result(raw)) => {
                let result = serde_json::from_str(raw.get()).map_err(|_| foreign())?;
                Ok(Answer { result, raw })
            }
            Ok(Reply::Error { code, message }) => Err(Error::Refused { method, code, message }),
            Err(_) => Err(foreign()),
        }
    }
}

/// What a method answered, read and as it came.
struct Answer<T> {
    result: T,
    raw: Box<RawValue>,
}

/// Prints what a command has to say. Exit codes: 0 there was an answer, 1 there was none, 2 wrong usage.
fn finish(outcome: Result<String, Error>) -> ExitCode {
    match outcome {
        // A reader that has seen enough is no failure.
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&causes(&error));
            if matches!(error, Error::Address(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Says something beside the answer.
fn complain(text: &str) {
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "fanwire: {text}");
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("api", &self.api).finish_non_exhaustive()
    }
}
