//! A real Redis server, started by the test on a free port.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fanwire_redis::Config;
use tokio::time::{sleep, timeout};

/// A server that ends with its owner.
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
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
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let folder = std::env::temp_dir().join(format!("fanwire-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { folder, port, options, child: None };
        server.run().await;
        server
    }

    /// Starts the server (again), with what it finds on disk.
    pub(crate) async fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(&self.folder)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed: these tests need it"));
        let answers = async {
            while self.try_ask(&["PING"]).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), answers).await.expect("the server answers");
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

    async fn try_ask(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
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

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
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
