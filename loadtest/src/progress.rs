//! What is going on, on the standard error: a bar on a terminal, lines elsewhere.

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of a scenario.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// The progress of so many steps.
    pub(crate) fn of(name: &str, steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        if !bar.is_hidden() {
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style.progress_chars("━╸ "));
            }
        }
        Self { bar }
    }

    /// Says what begins.
    pub(crate) fn now(&self, what: impl Display) {
        if self.bar.is_hidden() {
            eprintln!("… {what}");
        } else {
            self.bar.set_message(what.to_string());
        }
    }

    /// A step is done.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str = "{prefix} {bar:24.cyan/dim} {pos}/{len} {elapsed} {spinner} {wide_msg}";
