//! A clock on the wall that can be set while a gateway runs. What runs on (the monotonic clock) does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::redis::new_folder;

/// The clock of one process, by libfaketime.
#[derive(Debug)]
pub(crate) struct Clock {
    folder: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A clock that is right at first. Fails if libfaketime is not installed.
    pub(crate) fn new() -> Self {
        let library = library().expect("libfaketime is installed (Debian package faketime): these tests need it");
        let clock = Self { folder: new_folder("clock"), library };
        clock.set("+0");
        clock
    }

    /// Puts it so far from the right time, as in `+1d` or `-1h`.
    pub(crate) fn set(&self, offset: &str) {
        // Read at any moment: never half of it.
        let new = self.folder.join("new");
        fs::write(&new, offset).and_then(|()| fs::rename(new, self.file())).expect("written");
    }

    /// A command that runs by this clock.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", self.file());
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }

    fn file(&self) -> PathBuf {
        self.folder.join("offset")
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where Debian has it: `/usr/lib/<architecture>/faketime`.
fn library() -> io::Result<PathBuf> {
    for folder in fs::read_dir("/usr/lib")? {
        let library = folder?.path().join("faketime/libfaketimeMT.so.1");
        if library.exists() {
            return Ok(library);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
