//! A gateway of its own for each test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A gateway that ends with its owner.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    /// Where clients connect: `ws://…`, or `wss://…` with TLS.
    pub(crate) public: String,
    /// Where backends publish: `http://…`, or `https://…`.
    pub(crate) control: String,
}

/// Its API key.
pub(crate) const KEY: &str = "a-key-of-sixteen-or-more-characters";

const CONFIG: &str = r#"
[listen]
public = "127.0.0.1:0"
control = "127.0.0.1:0"
ops = "127.0.0.1:0"
[client]
anonymous = true
[token]
hmac_secret = "not-a-secret-but-long-enough-for-the-tests"
[[api_key]]
name = "tests"
secret = "a-key-of-sixteen-or-more-characters"
[[namespace]]
name = "chat"
history_size = 1000
history_ttl = "5m"
recovery = true
presence = true
join_leave = true
subscribe = "anyone"
publish = "anyone"
[[namespace]]
name = "members"
subscribe = "token"
"#;

impl Server {
    /// Starts one on free ports.
    pub(crate) fn start() -> Self {
        Self::with(|_| String::new())
    }

    /// Starts one with more configuration, which `more` writes and may put files into its folder for.
    pub(crate) fn with(more: impl FnOnce(&Path) -> String) -> Self {
        let folder = std::env::temp_dir().join(format!("fanwire-cli-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let config = folder.join("fanwire.toml");
        std::fs::write(&config, format!("{CONFIG}{}", more(&folder))).unwrap();
        let mut command = Command::new(binary());
        command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut addresses = lines.filter_map(|line| {
            let (name, url) = line.trim().split_once(' ')?;
            let url = url.trim();
            url.starts_with("http").then(|| (name.to_owned(), url.to_owned()))
        });
        let mut address = |wanted: &str| addresses.find(|(name, _)| name == wanted).expect("announced").1;
        let public = address("public").replacen("http", "ws", 1);
        let control = address("control");
        Self { child, folder, public, control }
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> String {
        self.folder.join("fanwire.toml").display().to_string()
    }

    /// A command that talks to it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = fanwire(args);
        command.env("FANWIRE_API", &self.control).env("FANWIRE_API_KEY", KEY).env("FANWIRE_URL", &self.public);
        command
    }

    /// Runs one to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs one that must succeed; returns what it printed.
    pub(crate) fn prints(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(args);
        assert!(status.success(), "{args:?}: {status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The program, without anything from the environment of the tests.
pub(crate) fn fanwire(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for name in
        ["FANWIRE_API", "FANWIRE_API_KEY", "FANWIRE_URL", "FANWIRE_TOKEN", "FANWIRE_CHANNEL_TOKEN", "FANWIRE_CA"]
    {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_fanwire")
}
