//! The lines of a transcript.

use std::time::Duration;

use fanwire_node::{ClientConfig, Config, Namespace, Permission};
use serde::Deserialize;
use serde_json::Value;

/// A transcript: its configuration and what happens, each with its line.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) config: Config,
    pub(super) steps: Vec<(usize, Step)>,
}

/// One thing that happens.
#[derive(Debug)]
pub(super) enum Step {
    Act(Act, Wait),
    Expect(String, Expected),
    Result(String),
}

/// What a transcript does. Texts may have names in them.
#[derive(Debug)]
pub(super) enum Act {
    Open(String, String, Vec<String>),
    Send(String, Sent),
    Leave(String),
    Fill(String, usize),
    Drain(String),
    Stubborn(String),
    Pass(Duration),
    Request(String),
}

/// Whether everything comes to rest before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

#[derive(Debug)]
pub(super) enum Sent {
    Text(String),
    Binary(Vec<u8>),
    Values(String),
    Pong,
}

/// What a transcript expects of a connection.
#[derive(Debug)]
pub(super) enum Expected {
    Text(String),
    Json(Value),
    Binary(Vec<u8>),
    Values(Value),
    Ping,
    Pong,
    Anything,
    Nothing,
    Close(u16, String),
    Gone(u16),
    Accepted(Option<String>),
    Rejected(u16, String),
}

type Mistake = (usize, String);

/// Reads a transcript; a mistake comes with its line.
pub(super) fn parse(text: &str) -> Result<Script, Mistake> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end())).peekable();
    let is_comment = |line: &str| line.is_empty() || line.starts_with('#');
    while lines.next_if(|(_, line)| is_comment(line)).is_some() {}
    let mut config = default_config();
    if let Some((start, _)) = lines.next_if(|(_, line)| *line == "---") {
        let toml: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "---").collect();
        let header: Header = toml::from_str(&toml.join("\n")).map_err(|error| (start, error.to_string()))?;
        let mistakes: Vec<_> = header.namespace.iter().flat_map(Namespace::mistakes).collect();
        if !mistakes.is_empty() {
            return Err((start, mistakes.join("; ")));
        }
        config = Config { client: header.client, namespaces: header.namespace, ..Config::default() };
    }
    let steps = lines.filter(|(_, line)| !is_comment(line));
    let steps = steps.map(|(number, line)| Ok((number, step(line).map_err(|message| (number, message))?)));
    Ok(Script { config, steps: steps.collect::<Result<_, _>>()? })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Header {
    client: ClientConfig,
    namespace: Vec<Namespace>,
}

fn default_config() -> Config {
    let namespace = Namespace { subscribe: Permission::Anyone, publish: Permission::Anyone, ..Namespace::default() };
    crate::harness::open_config(namespace)
}

fn step(line: &str) -> Result<Step, String> {
    let (first, rest) = word(line);
    match first {
        "~" => {
            let time = duration(rest)?;
            Ok(Step::Act(Act::Pass(time), Wait::Yes))
        }
        "!" => Ok(Step::Act(Act::Request(rest.to_owned()), Wait::Yes)),
        "!!" => Ok(Step::Act(Act::Request(rest.to_owned()), Wait::No)),
        "=" => Ok(Step::Result(rest.to_owned())),
        name if name.starts_with(|first: char| first.is_ascii_alphabetic()) => of_connection(name, rest),
        other => Err(format!("a line cannot begin with {other:?}")),
    }
}

fn of_connection(name: &str, line: &str) -> Result<Step, String> {
    let (sign, rest) = word(line);
    let name = name.to_owned();
    let act = |act| Ok(Step::Act(act, Wait::Yes));
    let expect = |name, expected| Ok(Step::Expect(name, expected));
    match sign {
        ">" | ">>" | ">b" | ">>b" | ">p" | ">>p" | ">pong" => {
            let wait = if sign.starts_with(">>") { Wait::No } else { Wait::Yes };
            let sent = match sign.trim_start_matches('>') {
                "b" => Sent::Binary(hex(rest)?),
                "p" => Sent::Values(rest.to_owned()),
                "pong" => Sent::Pong,
                _ => Sent::Text(rest.to_owned()),
            };
            Ok(Step::Act(Act::Send(name, sent), wait))
        }
        "<" => expect(
            name,
            match rest {
                "*" => Expected::Anything,
                "-" => Expected::Nothing,
                _ => serde_json::from_str(rest).map_or_else(|_| Expected::Text(unescape(rest)), Expected::Json),
            },
        ),
        "<b" => expect(name, Expected::Binary(hex(rest)?)),
        "<p" => expect(name, Expected::Values(serde_json::from_str(rest).map_err(|error| error.to_string())?)),
        "<ping" => expect(name, Expected::Ping),
        "<pong" => expect(name, Expected::Pong),
        "x" => {
            let (code, reason) = coded(rest)?;
            expect(name, Expected::Close(code, reason))
        }
        "gone" => expect(name, Expected::Gone(coded(rest)?.0)),
        "accepted" => expect(name, Expected::Accepted((rest != "-").then(|| rest.to_owned()))),
        "rejected" => {
            let (status, message) = coded(rest)?;
            expect(name, Expected::Rejected(status, message))
        }
        "open" => {
            let (query, offered) = match rest.strip_prefix('?') {
                Some(rest) => word(rest),
                None => ("", rest),
            };
            let offered = offered.split(',').filter(|name| !name.is_empty()).map(|name| name.trim().to_owned());
            act(Act::Open(name, query.to_owned(), offered.collect()))
        }
        "close" => act(Act::Leave(name)),
        "full" if rest.is_empty() => act(Act::Fill(name, 0)),
        "full" => act(Act::Fill(name, rest.parse().map_err(|_| format!("{rest:?} is no number of bytes"))?)),
        "drained" => act(Act::Drain(name)),
        "stubborn" => act(Act::Stubborn(name)),
        other => Err(format!("a connection cannot {other:?}")),
    }
}

/// The first word, and what stands behind the white space after it.
pub(super) fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// Two hexadecimal digits for each byte; spaces are ignored.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> = text.chars().filter(|digit| *digit != ' ').map(|digit| digit.to_digit(16)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
        }
        _ => Err(format!("{text:?} is not hexadecimal")),
    }
}

/// Puts line feeds for `\n` in a text that is not JSON (where `\n` means it already).
pub(super) fn unescape(text: &str) -> String {
    text.replace("\\\\", "\u{0}").replace("\\n", "\n").replace('\u{0}', "\\")
}

fn coded(text: &str) -> Result<(u16, String), String> {
    let (code, rest) = word(text);
    let code = code.parse().map_err(|_| format!("{code:?} is no code"))?;
    Ok((code, rest.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    #[derive(Deserialize)]
    struct Time(#[serde(with = "fanwire_node::config::duration")] Duration);
    serde_json::from_value::<Time>(Value::String(text.to_owned())).map(|time| time.0).map_err(|error| error.to_string())
}
