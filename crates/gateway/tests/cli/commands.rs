//! Each command does what its help says, and tells failures apart by its exit code.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Output, Stdio};

use serde_json::{Value, json};

use crate::server::{Server, fanwire};

/// The exit code and what is said on standard error.
fn failed(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A `fanwire subscribe --json` that runs.
struct Tail {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(server: &Server, args: &[&str]) -> Self {
        let args = [&["subscribe", "--json"], args].concat();
        let mut child = server.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut tail = Self { child, lines };
        assert_eq!(tail.next()["type"], "subscribed");
        tail
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().expect("a line").unwrap()).unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn publications_reach_those_who_watch() {
    let server = Server::start();
    let mut tail = Tail::start(&server, &["chat:a", "--joins"]);
    assert_eq!(tail.next()["type"], "join");

    let position = server.prints(&["publish", "chat:a", r#"{"n": 1}"#, "--tag", "kind=note", "--json"]);
    let position: Value = serde_json::from_str(&position).unwrap();
    assert_eq!(position["offset"], 1);
    let line = tail.next();
    assert_eq!((&line["type"], &line["channel"]), (&json!("publication"), &json!("chat:a")));
    assert_eq!((&line["data"], &line["tags"]), (&json!({ "n": 1 }), &json!({ "kind": "note" })));
    assert_eq!((&line["offset"], &line["epoch"]), (&json!(1), &position["epoch"]));

    server.prints(&["publish", "chat:a", "--text", "hello"]);
    assert_eq!(tail.next()["data"], "hello");
    server.prints(&["publish", "chat:a", "--skip-history", "3"]);
    let line = tail.next();
    assert_eq!((&line["data"], line.get("offset")), (&json!(3), None));

    let presence: Value = serde_json::from_str(&server.prints(&["presence", "chat:a", "--json"])).unwrap();
    assert_eq!(presence["presence"].as_object().unwrap().len(), 1);
    assert_eq!(server.prints(&["presence", "chat:a", "--stats"]), "1 clients of 1 users\n");
    assert_eq!(server.prints(&["channels", "chat:*"]), "CHANNEL  CLIENTS\nchat:a         1\n");
    assert_eq!(server.prints(&["channels", "other:*"]), "CHANNEL  CLIENTS\n");
    let seen = json_lines(&server.prints(&["top", "--json", "--count", "1"]));
    assert_eq!(seen[0]["info"]["nodes"][0]["publications"], 3);
    assert_eq!(seen[0]["report"]["clients"], json!([]));
    // The terminal of a person is none of a test's.
    assert_eq!(failed(&server.run(&["top"])).0, 2);
}

#[test]
fn what_was_kept_is_shown() {
    let server = Server::start();
    let mut child = server
        .command(&["publish", "chat:a", "--lines", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"1\n2\n3\n").unwrap();
    let positions = json_lines(&String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap());
    assert_eq!(positions.iter().map(|at| at["offset"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);

    let newest = server.prints(&["history", "chat:a", "--limit", "2"]);
    let data: Vec<_> = newest.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(data, ["2", "3"], "{newest}");
    let since = format!("1:{}", positions[0]["epoch"].as_str().unwrap());
    let stream: Value =
        serde_json::from_str(&server.prints(&["history", "chat:a", "--since", &since, "--json"])).unwrap();
    assert_eq!(stream["publications"].as_array().unwrap().len(), 2);

    let seen = json_lines(&server.prints(&["subscribe", "chat:a", "--since", &since, "--count", "2", "--json"]));
    assert_eq!(seen[0]["recovery"], "whole");
    assert_eq!((&seen[1]["data"], &seen[2]["data"]), (&json!(2), &json!(3)));
    assert_eq!(server.prints(&["subscribe", "chat:a", "--all", "--count", "3"]), "1\n2\n3\n");
    server.prints(&["call", "history_remove", r#"{"channel":"chat:a"}"#]);
    assert_eq!(server.prints(&["history", "chat:a"]).lines().count(), 1);
}

#[test]
fn tokens_open_what_they_say() {
    let server = Server::start();
    let config = server.config();
    let mint =
        |args: &[&str]| server.prints(&[&["token", "mint", "--config", &config], args].concat()).trim().to_owned();
    let (ann, door) = (mint(&["--user", "ann"]), mint(&["--user", "ann", "--channel", "members:1"]));

    let found = server.prints(&["token", "inspect", &ann, "--config", &config]);
    assert!(found.contains(r#"good: user "ann" may connect"#), "{found}");
    let (code, _) = failed(&server.run(&["token", "inspect", &format!("{ann}x"), "--config", &config]));
    assert_eq!(code, 4);

    let (code, said) = failed(&server.run(&["subscribe", "members:1", "--token", &ann]));
    assert_eq!((code, said.contains("permission denied (103)")), (4, true), "{said}");
    let (code, said) = failed(&server.run(&["subscribe", "chat:a", "--token", "rubbish"]));
    assert_eq!((code, said.contains("3500")), (4, true), "{said}");

    let mut tail = Tail::start(&server, &["members:1", "--token", &ann, "--channel-token", &door]);
    server.prints(&["disconnect", "ann", "--code", "4999", "--reason", "enough"]);
    let line = tail.next();
    assert_eq!((&line["type"], line["reason"].as_str().unwrap().contains("4999 enough")), (&json!("ended"), true));
    assert_eq!(tail.child.wait().unwrap().code(), Some(4));
}

#[test]
fn who_is_connected_is_listed_page_by_page() {
    let server = Server::start();
    let config = server.config();
    let ann = server.prints(&["token", "mint", "--config", &config, "--user", "ann"]).trim().to_owned();
    let _tails = [
        Tail::start(&server, &["chat:a", "chat:b", "--token", &ann]),
        Tail::start(&server, &["chat:a"]),
        Tail::start(&server, &["chat:a"]),
    ];
    let pages = json_lines(&server.prints(&["connections", "--limit", "2", "--all", "--json"]));
    let sizes = |pages: &[Value]| pages.iter().map(|page| page["connections"].as_array().unwrap().len()).sum::<usize>();
    assert_eq!((pages.len() >= 2, sizes(&pages)), (true, 3), "{pages:?}");

    let first = server.run(&["connections", "--limit", "1"]);
    let said = String::from_utf8(first.stderr).unwrap();
    let cursor = said.trim().rsplit(' ').next().unwrap();
    let shown = String::from_utf8(first.stdout).unwrap();
    assert!(shown.starts_with("CLIENT") && shown.lines().count() == 2 && said.contains("--cursor"), "{shown}{said}");
    let rest = server.prints(&["connections", "--cursor", cursor]);
    assert_eq!(rest.lines().count(), 3, "{rest}");

    let hers = server.prints(&["connections", "--user", "ann", "--channel", "chat:a"]);
    let row: Vec<_> = hers.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((hers.lines().count(), row[1], row[2], row[3]), (2, "ann", "native", "2"));
    assert_eq!(server.prints(&["connections", "--channel", "chat:none"]).lines().count(), 1);
}

#[test]
fn a_publication_may_have_a_name_and_spare_one() {
    let server = Server::start();
    let mut tail = Tail::start(&server, &["chat:a"]);
    let seen = json_lines(&server.prints(&["connections", "--json"]));
    let client = seen[0]["connections"][0]["client"].as_str().unwrap();
    server.prints(&["publish", "chat:a", "1", "--exclude", client]);
    server.prints(&["publish", "chat:a", "2", "--event", "moved"]);
    let line = tail.next();
    assert_eq!((&line["data"], &line["tags"]["event"]), (&json!(2), &json!("moved")));
}

#[test]
fn what_tokens_grant_is_taken_back() {
    let server = Server::start();
    let config = server.config();
    let token = server.prints(&[
        "token",
        "mint",
        "--config",
        &config,
        "--user",
        "ann",
        "--allow",
        "subscribe=members:*",
        "--json",
    ]);
    let token: Value = serde_json::from_str(&token).unwrap();
    assert_eq!(token["claims"]["caps"][0]["channels"], json!(["members:*"]));
    let token = token["token"].as_str().unwrap();
    let mut tail = Tail::start(&server, &["members:1", "--token", token]);
    // The second in which it was issued is spared otherwise.
    let next = token_second(token) + 1;
    server.prints(&["revoke", "ann", "--before", &next.to_string()]);
    assert!(matches!(tail.next()["type"].as_str(), Some("interrupted" | "ended")));
    let (code, said) = failed(&server.run(&["subscribe", "members:1", "--token", token]));
    assert_eq!(code, 4, "{said}");
}

/// When a token was issued.
fn token_second(token: &str) -> u64 {
    let output = fanwire(&["token", "inspect", "--json", token]).output().unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["claims"]["iat"].as_u64().unwrap()
}

#[test]
fn a_configuration_is_tried_before_it_is_taken_on() {
    let server = Server::start();
    let file = server.config();
    let config = std::fs::read_to_string(&file).unwrap();
    assert_eq!(server.prints(&["reload"]), "nothing is different\n");
    std::fs::write(
        &file,
        config.replace("[client]", "[log]\nlevel = \"error\"\n[client]\norigins = [\"https://a.example\"]"),
    )
    .unwrap();
    let expected = "would change   client.origins\nneeds restart  log.level\n";
    assert_eq!(server.prints(&["reload", "--dry-run"]), expected);
    let answer: Value = serde_json::from_str(&server.prints(&["reload", "--json"])).unwrap();
    assert_eq!(answer, json!({ "changed": ["client.origins"], "needs_restart": ["log.level"] }));
    std::fs::write(&file, config.replace("[client]", "[client]\nno_such_key = 1")).unwrap();
    for args in [&["reload"][..], &["reload", "--dry-run"], &["check-config", "--config", &file]] {
        let (code, said) = failed(&server.run(args));
        assert_eq!((code, said.contains("no_such_key")), (2, true), "{said}");
    }
    let output = server.run(&["check-config", "--json", "--config", &file]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["good"]), (Some(2), &json!(false)));
    assert!(found["mistakes"][0].as_str().unwrap().contains("no_such_key"), "{found}");
    let version: Value = serde_json::from_str(&server.prints(&["version", "--json"])).unwrap();
    assert_eq!(server.prints(&["version"]), format!("fanwire {}\n", version["version"].as_str().unwrap()));
}

#[test]
fn failures_are_told_apart() {
    let server = Server::start();
    let (code, said) = failed(&server.run(&["publish", "nowhere:1", "1"]));
    assert_eq!((code, said.as_str()), (5, "fanwire: publish: unknown channel (102)\n"));
    assert_eq!(failed(&server.run(&["call", "dance"])).0, 5);
    let (code, said) = failed(&server.run(&["publish", "chat:a", "1", "--event", &"x".repeat(256)]));
    assert_eq!((code, said.contains("event")), (2, true), "{said}");
    let (code, said) = failed(&server.command(&["nodes"]).env("FANWIRE_API_KEY", "").output().unwrap());
    assert_eq!((code, said.contains("FANWIRE_API_KEY")), (4, true), "{said}");
    let (code, said) = failed(&server.run(&["publish", "chat:a", "no JSON"]));
    assert_eq!((code, said.contains("--text")), (2, true), "{said}");
    let (code, _) = failed(&server.run(&["history", "chat:a", "--since", "x"]));
    assert_eq!(code, 2);
    let (code, said) = failed(&fanwire(&["nodes", "--api", "127.0.0.1:8010"]).output().unwrap());
    assert_eq!((code, said.contains("http://")), (2, true), "{said}");

    // Nobody listens where somebody did.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, said) = failed(&fanwire(&["nodes", "--api", &format!("http://{free}")]).output().unwrap());
    assert_eq!((code, said.contains("cannot reach")), (3, true), "{said}");
    let health = fanwire(&["health", "--json", "--url", &format!("http://{free}/health/live")]).output().unwrap();
    let found: Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!((health.status.code(), &found["well"], &found["status"]), (Some(1), &json!(false), &Value::Null));
    let (code, _) = failed(&fanwire(&["subscribe", "a", "--url", &format!("ws://{free}")]).output().unwrap());
    assert_eq!(code, 3);
    // Something else than the API answers.
    let (code, said) = failed(&server.run(&["nodes", "--api", &server.public.replace("ws://", "http://")]));
    assert_eq!((code, said.contains("404")), (1, true), "{said}");
}

#[test]
fn shells_and_man_know_every_command() {
    let script = fanwire(&["completions", "bash"]).output().unwrap();
    let script = String::from_utf8(script.stdout).unwrap();
    let folder = std::env::temp_dir().join(format!("fanwire-man-{}-{:x}", std::process::id(), fastrand::u64(..)));
    assert!(fanwire(&["man"]).arg(&folder).status().unwrap().success());
    for command in ["publish", "subscribe", "nodes", "connections", "revoke", "reload", "token", "check-config"] {
        assert!(
            script.contains(&format!("fanwire__{}", command.replace('-', "__"))) || script.contains(command),
            "{command}"
        );
        assert!(folder.join(format!("fanwire-{command}.1")).exists(), "{command}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
