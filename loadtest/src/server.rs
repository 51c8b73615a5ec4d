//! The gateway under test: a process started for this run, or one that runs already.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::args::{CoreArgs, ServerArgs};
use crate::client::Endpoint;
use crate::clock::{Deadline, pause};
use crate::dialect::Dialect;
use crate::error::{Context as _, Error};
use crate::{http, meter};

/// A gateway that is ready for clients.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where clients connect.
    pub(crate) endpoint: Endpoint,
    /// Its process; `None` if it was not told.
    pub(crate) pid: Option<u32>,
    /// What it calls itself.
    pub(crate) name: String,
    ops: Option<SocketAddr>,
    /// Ends with this value, if it was started here.
    process: Option<Process>,
}

impl Server {
    /// Starts a gateway on the server's core, or takes the one that was named, and binds this process
    /// to the client's core.
    pub(crate) fn start(args: &ServerArgs, cores: CoreArgs) -> Result<Self, Error> {
        let server = match &args.url {
            Some(url) => {
                let mut endpoint = Endpoint::parse(url, args.dialect)?;
                if let Some(path) = &args.publish_path {
                    endpoint.publish_path.clone_from(path);
                }
                Self { endpoint, pid: args.pid, name: url.clone(), ops: args.ops, process: None }
            }
            None if args.dialect.is_ours() => Self::spawn(&args.server_bin, args.dialect, cores)?,
            None => {
                return Err(Error::Setup(
                    "the gateway does not speak this dialect: name a server with --url".to_owned(),
                ));
            }
        };
        meter::pin(cores.client_core)?;
        Ok(server)
    }

    /// The gateway's metrics in the text format, or nothing where there are none.
    pub(crate) fn metrics(&self) -> Option<Metrics> {
        match http::get(self.ops?, "/metrics") {
            Ok((200, text)) => Some(Metrics(text)),
            _ => None,
        }
    }

    /// Shows the end of the server's log, if it was started here: a failed run may be explained there.
    pub(crate) fn show_log(&self) {
        if let Some(process) = &self.process {
            eprintln!("the end of the server's log:\n{}", process.log_end());
        }
    }

    fn spawn(binary: &Path, dialect: Dialect, cores: CoreArgs) -> Result<Self, Error> {
        if !binary.is_file() {
            return Err(Error::Setup(format!(
                "{}: not there; build it with `cargo build --release`",
                binary.display()
            )));
        }
        let [public, control, ops] = free_addresses()?;
        let folder = Folder::create()?;
        let config = folder.0.join("fanwire.toml");
        fs::write(&config, configuration(public, control, ops)).context("write a configuration")?;
        let log = folder.0.join("log");
        let output = File::create(&log).context("create a log file")?;
        // A child inherits the affinity of the thread that starts it: no moment on a wrong core.
        meter::pin(cores.server_core)?;
        let child = Command::new(binary)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the log file")?)
            .stderr(output)
            .spawn()
            .context(format!("start {}", binary.display()))?;
        let mut process = Process { child, log, _folder: folder };
        process.await_ready(ops)?;
        Ok(Self {
            endpoint: Endpoint::usual(public, dialect),
            pid: Some(process.child.id()),
            name: binary.display().to_string(),
            ops: Some(ops),
            process: Some(process),
        })
    }
}

/// A scrape of the metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of a counter over all its labels; `None` if there is no such counter.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        let mut sum = None;
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name) else {
                continue;
            };
            if !rest.starts_with([' ', '{']) {
                continue;
            }
            if let Some(value) = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()) {
                *sum.get_or_insert(0.0) += value;
            }
        }
        sum
    }
}

/// Lines of the log that are shown when something fails.
const LOG_LINES: usize = 20;

/// Time for a start, and for an end.
const PATIENCE: Duration = Duration::from_secs(10);

fn configuration(public: SocketAddr, control: SocketAddr, ops: SocketAddr) -> String {
    format!(
        "[listen]\npublic = \"{public}\"\ncontrol = \"{control}\"\nops = \"{ops}\"\n\
         [broker]\nkind = \"memory\"\n\
         [client]\nanonymous = true\ninsecure = true\n\
         [node]\nworkers = 1\n"
    )
}

/// Three ports that were free a moment ago, held together so that they differ.
fn free_addresses() -> Result<[SocketAddr; 3], Error> {
    let bind = || TcpListener::bind("127.0.0.1:0").context("find a free port");
    let listeners = [bind()?, bind()?, bind()?];
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 3];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr().context("find a free port")?;
    }
    Ok(addresses)
}

/// A child process that ends with this value.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
    _folder: Folder,
}

impl Process {
    fn await_ready(&mut self, ops: SocketAddr) -> Result<(), Error> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().context("watch the server")? {
                return Err(Error::Setup(format!("the server ended at its start, {status}:\n{}", self.log_end())));
            }
            if matches!(http::get(ops, "/health/ready"), Ok((200, _))) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(Error::Setup(format!("the server was not ready after {PATIENCE:?}:\n{}", self.log_end())));
            }
            pause(Duration::from_millis(20));
        }
    }
}

impl Process {
    fn log_end(&self) -> String {
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
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, Error> {
        let name = format!("fanwire-loadtest-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let metrics =
            Metrics("# HELP a_total x\na_total{p=\"x y\"} 3\na_total{p=\"z\"} 4.5\na_total_more 9\nb 1\n".to_owned());
        assert_eq!(metrics.sum("a_total"), Some(7.5));
        assert_eq!(metrics.sum("b"), Some(1.0));
        assert_eq!(metrics.sum("c"), None);
    }

    #[test]
    fn a_missing_binary_is_said() {
        let cores = CoreArgs { server_core: 0, client_core: 0 };
        let Err(error) = Server::spawn(Path::new("/nonexistent/fanwire"), Dialect::Native, cores) else {
            panic!("started");
        };
        assert!(error.to_string().contains("not there"), "{error}");
    }
}
