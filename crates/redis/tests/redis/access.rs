//! TLS, users with few rights, passwords in files.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fanwire_node::broker::PublishOptions;
use fanwire_node::{Broker, Dispatcher};
use fanwire_redis::Config;
use fanwire_testkit::free_port;
use tokio::time::timeout;

use crate::server::Server;
use crate::server::cluster::Cluster;
use crate::server::sentinel::{NAME, Sentinels};
use crate::shards::publication;
use crate::suite::{start, suite, until_up};

/// The rules in the documentation: for every form, for a cluster, behind sentinels.
fn rules() -> [Vec<&'static str>; 3] {
    let text = include_str!("../../../../docs/redis.md");
    let mut rules = text.lines().filter_map(|line| line.strip_prefix("ACL SETUSER fanwire "));
    let mut next = || rules.next().expect("three sets of rules").split(' ').collect::<Vec<_>>();
    [next(), next(), next()]
}

/// The user may use other prefixes of the same beginning, too: each case has its own.
async fn set_user(server: &Server, rules: &mut [&'static str]) {
    for rule in rules.iter_mut() {
        *rule = match *rule {
            "~fanwire:*" => "~fanwire-*",
            "&fanwire:*" => "&fanwire-*",
            rule => rule,
        };
    }
    let rules = &*rules;
    let command: Vec<_> = ["ACL", "SETUSER", "fanwire"].iter().chain(rules).copied().collect();
    server.ask(&command).await;
}

fn with_user(mut config: Config) -> Config {
    config.urls.iter_mut().for_each(|url| *url = url.replacen("://", "://fanwire:password@", 1));
    config
}

/// Whether a node with this configuration gets through within a moment in which others do.
async fn comes_up(config: &Config) -> bool {
    let redis = start(config, Dispatcher::new(1));
    timeout(Duration::from_secs(2), until_up(&redis.health)).await.is_ok()
}

#[tokio::test]
async fn the_documented_rules_are_enough() {
    let server = Server::start().await;
    let [mut rules, ..] = rules();
    set_user(&server, &mut rules).await;
    suite(|prefix| with_user(server.config(prefix))).await;
    assert!(server.calls("fcall").await > 0 && server.calls("evalsha").await == 0, "functions were run");
}

#[tokio::test]
async fn the_documented_rules_are_enough_for_scripts() {
    let server = Server::start().await;
    let [mut rules, ..] = rules();
    rules.push("-function|load");
    set_user(&server, &mut rules).await;
    suite(|prefix| with_user(server.config(prefix))).await;
    assert!(server.calls("fcall").await == 0 && server.calls("evalsha").await > 0, "scripts were run");
}

#[tokio::test]
async fn the_documented_rules_are_enough_in_a_cluster() {
    let cluster = Cluster::start(3, 0).await;
    let [mut rules, mut more, _] = rules();
    for node in &cluster.nodes {
        set_user(node, &mut rules).await;
        set_user(node, &mut more).await;
    }
    suite(|prefix| with_user(cluster.config(prefix))).await;
}

#[tokio::test]
async fn the_documented_rules_are_enough_behind_sentinels() {
    let sentinels = Sentinels::start(1).await;
    let [mut rules, _, mut more] = rules();
    for server in &sentinels.servers {
        set_user(server, &mut rules).await;
        set_user(server, &mut more).await;
    }
    for sentinel in &sentinels.sentinels {
        sentinel.ask(&["ACL", "SETUSER", "default", "resetpass", ">watchful"]).await;
    }
    let folder = sentinels.servers[0].folder();
    let (password, sentinel_password) = (folder.join("password"), folder.join("sentinel-password"));
    std::fs::write(&password, "password\n").expect("written");
    std::fs::write(&sentinel_password, "watchful\n").expect("written");
    suite(|prefix| {
        let mut config = sentinels.config(prefix);
        config.urls.iter_mut().for_each(|url| *url = url.replacen("://", "://fanwire@", 1));
        Config {
            password_file: Some(password.clone()),
            sentinel_password_file: Some(sentinel_password.clone()),
            ..config
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let server = Server::start().await;
    server.ask(&["CONFIG", "SET", "requirepass", "rightpassword"]).await;
    let config = |password: &str| {
        let mut config = server.config("fanwire");
        config.urls.iter_mut().for_each(|url| *url = url.replacen("://", &format!("://:{password}@"), 1));
        config
    };
    assert!(comes_up(&config("rightpassword")).await);
    let redis = start(&config("wrongpassword"), Dispatcher::new(1));
    let refused = redis.broker.publish(publication("a"), PublishOptions::default()).await.expect_err("refused");
    assert!(refused.to_string().contains("WRONGPASS") && !refused.to_string().contains("wrongpassword"), "{refused}");
    assert!(!format!("{:?}", config("wrongpassword")).contains("wrongpassword"));
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let certificates = Certificates::make();
    let port = free_port();
    let options = certificates.options(port);
    let server = Server::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let config = |prefix: &str| Config {
        urls: vec![format!("rediss://127.0.0.1:{port}")],
        prefix: prefix.to_owned(),
        ..certificates.config()
    };
    suite(config).await;
    assert!(server.calls("fcall").await > 0);
    assert!(!comes_up(&Config { cert_file: None, key_file: None, ..config("a") }).await, "without a certificate");
    assert!(!comes_up(&Config { ca_file: None, ..config("a") }).await, "the system does not know the CA");
    let other = Certificates::make();
    assert!(!comes_up(&Config { ca_file: Some(other.file("ca.crt")), ..config("a") }).await, "of somebody else");
    let by_name = Config { urls: vec![format!("rediss://localhost:{port}")], ..config("a") };
    assert!(!comes_up(&by_name).await, "the certificate is for an address");
}

#[tokio::test]
async fn tls_in_a_cluster() {
    let certificates = Certificates::make();
    let ports = [free_port(), free_port(), free_port()];
    let mut options = ports.iter().map(|port| {
        let mut options = certificates.options(*port);
        options.extend(["--tls-cluster".to_owned(), "yes".to_owned()]);
        options
    });
    let cluster = Cluster::start_with(3, 0, || options.next().expect("three nodes")).await;
    suite(|prefix| Config {
        urls: vec![format!("rediss+cluster://127.0.0.1:{}", ports[1])],
        prefix: prefix.to_owned(),
        ..certificates.config()
    })
    .await;
    for node in &cluster.nodes {
        assert!(node.calls("fcall").await > 0, "every primary has its channels");
    }
}

#[tokio::test]
async fn tls_behind_a_sentinel() {
    let certificates = Certificates::make();
    let (port, sentinel_port) = (free_port(), free_port());
    let options = certificates.options(port);
    let server = Server::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut sentinel = Server::prepare("redis-server".as_ref(), free_port(), &[]);
    let file = sentinel.folder().join("sentinel.conf");
    let options = certificates.options(sentinel_port);
    let lines = options
        .chunks(2)
        .filter(|pair| pair[0].starts_with("--tls"))
        .fold(String::new(), |text, pair| text + &format!("{} {}\n", pair[0].trim_start_matches('-'), pair[1]));
    let monitor = format!("tls-replication yes\nsentinel monitor {NAME} 127.0.0.1 {port} 1\n");
    std::fs::write(&file, lines + &monitor).expect("written");
    sentinel.set_config_file(&file);
    sentinel.run().await;
    suite(|prefix| Config {
        urls: vec![format!("rediss+sentinel://127.0.0.1:{sentinel_port}/{NAME}")],
        prefix: prefix.to_owned(),
        ..certificates.config()
    })
    .await;
    assert!(server.calls("fcall").await > 0);
}

/// A certificate authority of its own, with one certificate for servers and one for nodes.
struct Certificates(PathBuf);

impl Certificates {
    fn make() -> Self {
        let folder = std::env::temp_dir().join(format!("fanwire-tls-{}-{}", std::process::id(), free_port()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let made = Self(folder);
        let config = "[req]\ndistinguished_name = name\n[name]\n[ca]\nbasicConstraints = critical, CA:TRUE\n\
                      [leaf]\nbasicConstraints = CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
        std::fs::write(made.file("openssl.conf"), config).expect("written");
        made.certificate("ca", "ca", &[]);
        made.certificate("server", "leaf", &["-CA", "ca.crt", "-CAkey", "ca.key"]);
        made.certificate("node", "leaf", &["-CA", "ca.crt", "-CAkey", "ca.key"]);
        made
    }

    fn certificate(&self, name: &str, kind: &str, signed: &[&str]) {
        let made = Command::new("openssl")
            .current_dir(&self.0)
            .args(["req", "-x509", "-config", "openssl.conf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-extensions", kind, "-subj", &format!("/CN={name}")])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .args(signed)
            .stderr(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "openssl is installed: these tests need it");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What a server needs to speak TLS on this port, beside its other one.
    fn options(&self, port: u16) -> Vec<String> {
        let path = |name: &str| self.file(name).display().to_string();
        let mut options: Vec<_> = ["--save", "", "--tls-port", &port.to_string()].map(str::to_owned).into();
        for (option, file) in [("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt")] {
            options.extend([format!("--tls-{option}-file"), path(file)]);
        }
        options
    }

    /// What a node needs.
    fn config(&self) -> Config {
        Config {
            ca_file: Some(self.file("ca.crt")),
            cert_file: Some(self.file("node.crt")),
            key_file: Some(self.file("node.key")),
            ..Config::default()
        }
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
