//! `fanwire health`: whether a node answers, for the health check of a container, which has no other program to ask with.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::config::causes;

/// Which node is asked.
#[derive(Args, Debug)]
pub(crate) struct Health {
    /// What to ask: /health/live, or /health/ready to fail while no new clients are taken
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8020/health/live")]
    url: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// How long the answer may take. Shorter than what a health check is given.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks. Exit codes: 0 it is well, 1 it is not, or does not answer.
pub(crate) fn run(health: &Health) -> ExitCode {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .build();
    let asked = ureq::Agent::new_with_config(config).get(&health.url).call();
    let (status, body) = match asked {
        Ok(mut response) => {
            let body = response.body_mut().with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
            (Some(response.status()), body)
        }
        Err(error) => (None, format!("cannot ask {}: {}", health.url, causes(&error))),
    };
    let well = status.is_some_and(|status| status.is_success());
    let status = status.map(|status| status.as_u16());
    let text = match status {
        _ if health.json => json!({ "well": well, "status": status, "answer": body.trim_end() }).to_string(),
        Some(status) => format!("{status} {body}"),
        None => body,
    };
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stdout(), "{text}");
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
