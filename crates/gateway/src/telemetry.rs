//! What the process says about itself, line by line.

use std::io::{IsTerminal, stderr};

use crate::config::{Log, LogFormat};

/// Begins to log, to standard error.
pub(crate) fn log(config: &Log) {
    // Its mistakes were told when it was read.
    let filter = config.filter().unwrap_or_default();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.format {
        LogFormat::Text => log.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => {
            log.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
            // A panic is a line like any other.
            std::panic::set_hook(Box::new(|panic| {
                let place = panic.location().map(ToString::to_string);
                tracing::error!(place, "panicked: {}", panic.payload_as_str().unwrap_or("without a word"));
            }));
        }
    }
}
