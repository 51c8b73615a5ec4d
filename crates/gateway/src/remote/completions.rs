//! `fanwire completions` and `fanwire man`.

use std::path::Path;
use std::process::ExitCode;

use super::{Error, finish};

pub(crate) use clap_complete::Shell;

/// Prints the completions of a shell.
pub(crate) fn completions(mut cli: clap::Command, shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli, "fanwire", &mut script);
    finish(Ok(String::from_utf8_lossy(&script).into_owned()))
}

/// Writes a manual page for each command into a folder.
pub(crate) fn man(cli: clap::Command, folder: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(cli, folder));
    let what = || format!("cannot write to {}", folder.display());
    finish(written.map(|()| String::new()).map_err(|source| Error::Local { what: what(), source }))
}
