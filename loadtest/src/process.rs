//! Processes that a run starts and ends: gateways, and their Redis.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{Deadline, pause};
use crate::error::{Context as _, Error};
use crate::meter;

/// A child process that ends with this value, and the folder it lives in.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    _folder: Folder,
}

/// Time for a start, and for an end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lines of the log that are shown when something fails.
const LOG_LINES: usize = 20;

impl Process {
    /// Starts `program` on `core`, with its output in a log in `folder`.
    pub(crate) fn start(program: &Path, arguments: &[&str], folder: Folder, core: usize) -> Result<Self, Error> {
        let log = folder.0.join("log");
        let output = File::create(&log).context("create a log file")?;
        // A child inherits the affinity of the thread that starts it: no moment on a wrong core.
        meter::pin(core)?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir(&folder.0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the log file")?)
            .stderr(output)
            .spawn()
            .context(format!("start {}", program.display()))?;
        Ok(Self { name: program.display().to_string(), child, log, _folder: folder })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so.
    pub(crate) fn await_ready(&mut self, ready: impl Fn() -> bool) -> Result<(), Error> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().context("watch a process")? {
                let name = &self.name;
                return Err(Error::Setup(format!("{name} ended at its start, {status}:\n{}", self.log_end())));
            }
            if ready() {
                return Ok(());
            }
            if deadline.passed() {
                let name = &self.name;
                return Err(Error::Setup(format!("{name} was not ready after {PATIENCE:?}:\n{}", self.log_end())));
            }
            pause(Duration::from_millis(20));
        }
    }

    /// The end of its log: a failed run may be explained there.
    pub(crate) fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, which is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Deadline::after(PATIENCE);
        while matches!(self.child.try_wait(), Ok(None)) {
            if deadline.passed() {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            pause(Duration::from_millis(10));
        }
    }
}

/// A temporary folder, removed with this value.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// A new one.
    pub(crate) fn create() -> Result<Self, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fanwire-loadtest-{}-{number}", std::process::id()));
        fs::create_dir(&path).context(format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports that were free a moment ago, held together so that they differ.
pub(crate) fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT], Error> {
    let listeners = (0..COUNT).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>();
    let listeners = listeners.context("find a free port")?;
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); COUNT];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr().context("find a free port")?;
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_early_is_said_with_its_log() {
        let folder = Folder::create().unwrap();
        let path = folder.0.clone();
        let mut process = Process::start(Path::new("sh"), &["-c", "echo sorry; exit 3"], folder, 0).unwrap();
        let error = process.await_ready(|| false).unwrap_err().to_string();
        assert!(error.contains("sorry") && error.contains('3'), "{error}");
        drop(process);
        assert!(!path.exists());
    }

    #[test]
    fn free_addresses_differ() {
        let [one, two] = free_addresses().unwrap();
        assert_ne!(one, two);
    }
}
