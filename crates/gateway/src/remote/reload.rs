//! `fanwire reload`: a node reads its configuration again.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;

use super::{Remote, finish};

#[derive(Deserialize)]
struct Changes {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

/// Lets the node that is asked read its configuration again, or with `dry_run` say what would come of it.
pub(crate) fn reload(remote: &Remote, dry_run: bool) -> ExitCode {
    let answer = remote.call::<Changes>("reload", &json!({ "dry_run": dry_run }));
    finish(answer.map(|answer| answer.print(remote, |changes| show(&changes, dry_run))))
}

fn show(Changes { changed, needs_restart }: &Changes, dry_run: bool) -> String {
    if changed.is_empty() && needs_restart.is_empty() {
        return "nothing is different\n".to_owned();
    }
    let lines = |what: &str, places: &[String]| -> String {
        places.iter().map(|place| format!("{what:<14} {place}\n")).collect()
    };
    lines(if dry_run { "would change" } else { "changed" }, changed) + &lines("needs restart", needs_restart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_apart_from_what_stays() {
        let changes = |changed: &[&str], needs_restart: &[&str]| Changes {
            changed: changed.iter().map(|&place| place.to_owned()).collect(),
            needs_restart: needs_restart.iter().map(|&place| place.to_owned()).collect(),
        };
        assert_eq!(show(&changes(&[], &[]), false), "nothing is different\n");
        let both = changes(&["token", "namespace.chat"], &["log.level"]);
        assert_eq!(
            show(&both, false),
            "changed        token\nchanged        namespace.chat\nneeds restart  log.level\n"
        );
        assert!(show(&both, true).starts_with("would change   token\n"));
    }
}
