//! A real gateway process.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::home::Home;
use crate::http::{API_KEY, Http};
use crate::redis::new_folder;
use crate::until;

/// A gateway that ends with its owner.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Option<Child>,
    folder: PathBuf,
    /// What its configuration begins with: listeners and keys.
    head: String,
    /// Where clients connect, where backends publish, where it is measured.
    pub(crate) public: SocketAddr,
    pub(crate) control: SocketAddr,
    ops: SocketAddr,
    states: Arc<Mutex<Vec<(Instant, State)>>>,
    watcher: JoinHandle<()>,
}

/// What a gateway says about its way through Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    NotReady,
}

/// Its configuration.
const FILE: &str = "fanwire.toml";

/// How often a gateway is asked for its state: the precision of the times to detect.
const WATCH: Duration = Duration::from_millis(20);

impl Gateway {
    /// Starts a gateway on free ports. `config`: TOML without listeners and keys.
    pub(crate) async fn start(config: &str, home: &Home) -> Self {
        let folder = new_folder("gateway");
        let host = home.inside();
        let (file, announced) = (folder.join(FILE), folder.join("stdout"));
        let listen = format!("[listen]\npublic = \"{host}:0\"\ncontrol = \"{host}:0\"\nops = \"{host}:0\"\n");
        let key = format!("[[api_key]]\nname = \"tests\"\nsecret = \"{API_KEY}\"\n");
        // No balancer needs time, unless a test plays one.
        let drain = if config.contains("[drain]") { "" } else { "[drain]\ngrace = \"0s\"\n" };
        let head = format!("{listen}{key}{drain}");
        std::fs::write(&file, format!("{head}{config}")).expect("written");
        let mut command = home.command(&binary());
        let open = |path| File::create(path).expect("a file for its output");
        command.args(["serve", "--config"]).arg(&file).stdin(Stdio::null());
        command.stdout(open(&announced)).stderr(open(&folder.join("stderr")));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut addresses = HashMap::new();
        until(Duration::from_secs(20), "the gateway is there", async || {
            let text = std::fs::read_to_string(&announced).unwrap_or_default();
            addresses = text.lines().filter_map(address).collect();
            addresses.len() == 3
        })
        .await;
        let ops = addresses["ops"];
        let states = Arc::default();
        let watcher = tokio::spawn(watch(ops, Arc::clone(&states)));
        let (public, control) = (addresses["public"], addresses["control"]);
        let gateway = Self { child: Some(child), folder, head, public, control, ops, states, watcher };
        gateway.until_ready().await;
        gateway
    }

    /// Waits until Redis carries what the gateway publishes.
    pub(crate) async fn until_ready(&self) {
        let now = Instant::now();
        until(Duration::from_secs(90), "the gateway is ready", async || {
            self.states.lock().last().is_some_and(|(at, state)| *state == State::Ready && *at >= now)
        })
        .await;
    }

    /// When the gateway first said after `since` that Redis does not carry what it publishes.
    pub(crate) fn detected(&self, since: Instant) -> Option<Instant> {
        let states = self.states.lock();
        states.iter().find(|(at, state)| *at >= since && *state == State::NotReady).map(|(at, _)| *at)
    }

    /// When the gateway first said after `since` that Redis carries what it publishes.
    pub(crate) fn proven(&self, since: Instant) -> Option<Instant> {
        let states = self.states.lock();
        states.iter().find(|(at, state)| *at >= since && *state == State::Ready).map(|(at, _)| *at)
    }

    /// The sum of a metric over its labels, of those that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = Http::new(self.ops).get("/metrics").await.expect("metrics");
        sum(&text, name, |labels| labels.contains(label))
    }

    /// Calls a method of the control plane.
    pub(crate) async fn api(&self, method: &str, params: &Value) -> Value {
        let answer = timeout(Duration::from_secs(10), Http::new(self.control).api(method, &params.to_string())).await;
        let answer = answer.expect("an answer in time").expect("an answer");
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the gateway runs");
        kill_process(Pid::from_child(child), signal).expect("it takes signals");
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.watcher.abort();
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("the gateway ends");
        }
    }

    /// Whether the process has ended by itself. Fails if it did not end well.
    pub(crate) fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        let Some(status) = child.try_wait().expect("it can be waited for") else { return false };
        self.child = None;
        self.watcher.abort();
        assert!(status.success(), "{status}");
        self.check_log();
        true
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the gateway runs"))
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).expect("the process is there").count()
    }

    /// Another configuration takes the place of the one it has, in its file. TOML without listeners and keys.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.folder.join(FILE), format!("{}{config}", self.head)).expect("written");
    }

    /// The most memory the process ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero()));
        let status = status.expect("the process is there");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Whether it was killed.
    pub(crate) fn is_alive(&self) -> bool {
        self.child.is_some()
    }

    /// Fails if the gateway has logged what must not happen.
    pub(crate) fn check_log(&self) {
        let log = std::fs::read_to_string(self.folder.join("stderr")).expect("its log");
        let bad: Vec<_> = log.lines().filter(|line| line.contains("panicked") || line.contains(" ERROR ")).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.watcher.abort();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
            let last = log.lines().rev().take(20).collect::<Vec<_>>();
            let lines = last.iter().rev().fold(String::new(), |text, line| text + "\n  " + line);
            crate::figures::say(&format!("the log of a gateway ends with{lines}"));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The gateway that is tested: the one cargo has built, unless another is named.
#[allow(clippy::disallowed_methods, reason = "the tests run the release build, as the end-to-end tests do")]
fn binary() -> PathBuf {
    std::env::var("FANWIRE_BIN").map_or_else(|_| env!("CARGO_BIN_EXE_fanwire").into(), PathBuf::from)
}

/// An address of the announcement, as in `  public      http://127.0.0.1:8000`.
fn address(line: &str) -> Option<(String, SocketAddr)> {
    let (name, address) = line.trim().split_once(" ")?;
    Some((name.to_owned(), address.trim().strip_prefix("http://")?.parse().ok()?))
}

/// Sums a metric over its labels, of those that are wanted.
fn sum(text: &str, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        ((labels.is_empty() || labels.starts_with('{')) && wanted(labels)).then_some(value)
    });
    samples.map(|value| value.parse::<f64>().expect("a number")).sum()
}

/// Notes each change of state, and the time of the last answer.
async fn watch(ops: SocketAddr, states: Arc<Mutex<Vec<(Instant, State)>>>) {
    let mut http = Http::new(ops);
    let mut given_up = None;
    loop {
        // A connection that is given up and replaced between two looks at the health shows in the counter alone.
        if let Ok(Ok((_, text))) = timeout(Duration::from_secs(1), http.get("/metrics")).await {
            let count = sum(&text, "fanwire_redis_reconnects_total", |labels| !labels.contains("\"connect\""));
            if given_up.replace(count).is_some_and(|before| before < count) {
                note(&mut states.lock(), State::NotReady);
            }
        }
        let answer = timeout(Duration::from_secs(1), http.get("/health/ready")).await;
        let ready = answer.is_ok_and(|answer| answer.is_ok_and(|(_, body)| body.contains("\"status\":\"ready\"")));
        let state = if ready { State::Ready } else { State::NotReady };
        note(&mut states.lock(), state);
        sleep(WATCH).await;
    }
}

fn note(states: &mut Vec<(Instant, State)>, state: State) {
    // What lies between two equal states says nothing more.
    if states.len() >= 2 && states.iter().rev().take(2).all(|(_, known)| *known == state) {
        states.pop();
    }
    states.push((Instant::now(), state));
}
