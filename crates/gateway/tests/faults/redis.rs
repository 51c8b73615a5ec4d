//! A real Redis server, started by the test on a free port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fanwire_testkit::free_port;
use rustix::process::{Pid, Signal, kill_process};

use crate::resp::{self, Value};
use crate::until;

/// What a server keeps over its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Everything it has answered for.
    Everything,
    /// The last snapshot that was asked for.
    Snapshots,
    /// Nothing.
    Nothing,
}

/// A server that ends with its owner.
#[derive(Debug)]
pub(crate) struct Redis {
    folder: PathBuf,
    port: u16,
    keeps: Keeps,
    child: Option<Child>,
    /// What earlier runs counted.
    earlier_reads: u64,
}

impl Redis {
    /// Starts a server on all addresses of the machine, which the namespaces of a test reach, too.
    pub(crate) async fn start(keeps: Keeps) -> Self {
        let mut server = Self { folder: new_folder("redis"), port: free_port(), keeps, child: None, earlier_reads: 0 };
        server.run().await;
        server
    }

    /// Starts the server (again), with what it finds on disk.
    pub(crate) async fn run(&mut self) {
        let appendonly = if self.keeps == Keeps::Everything { "yes" } else { "no" };
        let child = Command::new("redis-server")
            .args(["--bind", "0.0.0.0", "--protected-mode", "no", "--port", &self.port.to_string(), "--dir"])
            .arg(&self.folder)
            .args(["--save", "", "--appendonly", appendonly, "--appendfsync", "always"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed: these tests need it"));
        until(Duration::from_secs(20), "redis-server answers", async || {
            resp::ask(self.address(), &["PING"]).await.is_ok()
        })
        .await;
    }

    /// Kills the server, with whatever it has not written to disk.
    pub(crate) async fn kill(&mut self) {
        self.earlier_reads = self.history_reads().await;
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("the server ends");
        }
    }

    /// Ends the server in good order.
    pub(crate) async fn stop(&mut self) {
        self.earlier_reads = self.history_reads().await;
        // The answer to this is the end of the connection.
        let _ = resp::ask(self.address(), &["SHUTDOWN"]).await;
        if let Some(mut child) = self.child.take() {
            child.wait().expect("the server ends");
        }
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), signal).expect("it takes signals");
    }

    /// Runs a command.
    pub(crate) async fn ask(&self, command: &[&str]) -> Value {
        resp::ask(self.address(), command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// How many histories the server has read, over all its runs.
    pub(crate) async fn history_reads(&self) -> u64 {
        let text = self.ask(&["INFO", "commandstats"]).await.text();
        let calls = |command: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
            line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
        };
        self.earlier_reads + calls("xrange") + calls("xrevrange")
    }

    /// How many connections are subscribed to something.
    pub(crate) async fn subscriber_connections(&self) -> usize {
        self.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.text().lines().count()
    }

    /// Where the server is, for this process.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_at(Ipv4Addr::LOCALHOST)
    }

    /// Where it is for a process that knows this machine by another address.
    pub(crate) fn address_at(&self, host: Ipv4Addr) -> SocketAddr {
        (host, self.port).into()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder for a process's files.
pub(crate) fn new_folder(what: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}
