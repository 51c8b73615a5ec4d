//! Real Redis servers, started by the test on free ports.

pub(crate) mod cluster;
pub(crate) mod proxy;
pub(crate) mod sentinel;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fanwire_redis::Config;
use fanwire_testkit::free_port;
use tokio::time::{sleep, timeout};

/// A server that ends with its owner.
pub(crate) struct Server {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    file: Option<PathBuf>,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server that keeps nothing on disk.
    pub(crate) async fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server with these options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let server = Self::prepare("redis-server".as_ref(), free_port(), options);
        server.started().await
    }

    /// Starts a Valkey server that keeps nothing on disk.
    pub(crate) async fn start_valkey() -> Self {
        Self::prepare(&valkey(), free_port(), &["--save", "", "--appendonly", "no"]).started().await
    }

    /// Starts a replica of the server at a port, and waits until it follows.
    pub(crate) async fn start_replica_of(port: u16) -> Self {
        let replica = Self::start_with(&["--save", "", "--repl-diskless-sync-delay", "0"]).await;
        replica.ask(&["REPLICAOF", "127.0.0.1", &port.to_string()]).await;
        replica.until(&["INFO", "replication"], |info| info.contains("master_link_status:up")).await;
        replica
    }

    /// A server that does not run yet.
    pub(crate) fn prepare(program: &Path, port: u16, options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("fanwire-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self { program: program.to_owned(), folder, port, file: None, options, child: None }
    }

    async fn started(mut self) -> Self {
        self.run().await;
        self
    }

    /// Starts the server (again), with what it finds on disk.
    pub(crate) async fn run(&mut self) {
        self.spawn();
        self.until_it_answers().await;
    }

    /// A sentinel, which keeps what it knows in this file.
    pub(crate) fn set_config_file(&mut self, file: &Path) {
        self.options = vec!["--sentinel".to_owned()];
        self.file = Some(file.to_owned());
    }

    pub(crate) fn spawn(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.file)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(&self.folder)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed: these tests need it"));
    }

    pub(crate) async fn until_it_answers(&self) {
        self.until(&["PING"], |_| true).await;
    }

    /// Asks the same until the answer is right.
    pub(crate) async fn until(&self, command: &[&str], right: impl Fn(&str) -> bool) {
        let answers = async {
            loop {
                match self.try_ask(command).await {
                    Ok(answer) if right(&words(&answer)) => return,
                    _ => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let in_time = timeout(Duration::from_secs(30), answers).await.is_ok();
        let last = self.try_ask(command).await.map(|answer| words(&answer));
        assert!(in_time, "{command:?} is not answered as it should be on {}: {last:?}", self.port);
    }

    /// Kills the server with whatever it has not written to disk.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("the server ends");
        }
    }

    /// Ends the server in good order.
    pub(crate) async fn stop(&mut self) {
        // The answer to this is the end of the connection.
        let _ = self.try_ask(&["SHUTDOWN"]).await;
        if let Some(mut child) = self.child.take() {
            child.wait().expect("the server ends");
        }
    }

    /// Sends the server a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("the server runs").id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "signal {signal}");
    }

    /// Runs a command.
    pub(crate) async fn ask(&self, command: &[&str]) -> redis::Value {
        self.try_ask(command).await.expect("the server answers")
    }

    pub(crate) async fn try_ask(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await
    }

    /// How often the server has run a command.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let redis::Value::BulkString(text) = self.ask(&["INFO", "commandstats"]).await else { panic!("statistics") };
        let text = String::from_utf8(text).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
    }

    /// The folder in which the server keeps its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The configuration of a node on this server.
    pub(crate) fn config(&self, prefix: &str) -> Config {
        Config { urls: vec![self.url()], prefix: prefix.to_owned(), ..Config::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The program.
pub(crate) fn valkey() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.test/valkey/valkey-server");
    let program = if installed.exists() { installed } else { "valkey-server".into() };
    let found = Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found, "there is no valkey-server: `./test tools` installs one");
    program
}

/// The texts and numbers in an answer, with spaces between.
pub(crate) fn words(answer: &redis::Value) -> String {
    match answer {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::SimpleString(text) => text.clone(),
        redis::Value::VerbatimString { text, .. } => text.clone(),
        redis::Value::Int(number) => number.to_string(),
        redis::Value::Okay => "OK".to_owned(),
        redis::Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}
