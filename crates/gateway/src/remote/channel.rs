//! `fanwire presence`, `fanwire history` and `fanwire channels`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use fanwire_client::{Member, Position, PresenceStats, Stored};
use serde::Deserialize;
use serde_json::json;

use super::api::Missing;
use super::table::{Align, table};
use super::{Remote, complain, finish, position};

/// Arguments of `fanwire presence`.
#[derive(Args, Debug)]
pub(crate) struct Presence {
    /// The channel
    channel: String,
    /// Only how many there are
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Arguments of `fanwire history`.
#[derive(Args, Debug)]
pub(crate) struct History {
    /// The channel
    channel: String,
    /// At most so many publications
    #[arg(long, default_value_t = 20)]
    limit: i32,
    /// The first ones behind this position, not the newest ones
    #[arg(long, value_name = "OFFSET:EPOCH", value_parser = position)]
    since: Option<Position>,
    #[command(flatten)]
    remote: Remote,
}

/// Arguments of `fanwire channels`.
#[derive(Args, Debug)]
pub(crate) struct Channels {
    /// Which ones; * stands for any text
    #[arg(default_value = "*")]
    pattern: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Deserialize)]
struct Members {
    presence: BTreeMap<String, Member>,
}

#[derive(Deserialize)]
struct Stream {
    publications: Vec<Stored>,
    offset: u64,
    epoch: String,
}

#[derive(Deserialize)]
struct Listed {
    channels: BTreeMap<String, Subscribers>,
    #[serde(default)]
    more: bool,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Deserialize)]
struct Subscribers {
    num_clients: u64,
}

/// Lists who is in a channel, or counts them.
pub(crate) fn presence(args: &Presence) -> ExitCode {
    let Presence { channel, stats, remote } = args;
    let params = json!({ "channel": channel });
    finish(if *stats {
        let answer = remote.call::<PresenceStats>("presence_stats", &params);
        answer.map(|answer| {
            answer.print(remote, |stats| format!("{} clients of {} users\n", stats.num_clients, stats.num_users))
        })
    } else {
        remote.call::<Members>("presence", &params).map(|answer| answer.print(remote, |members| show_members(&members)))
    })
}

/// Prints what a channel keeps.
pub(crate) fn history(args: &History) -> ExitCode {
    let History { channel, limit, since, remote } = args;
    // Without a position the newest count, and they are asked for from the end.
    let params = json!({ "channel": channel, "limit": limit, "since": since, "reverse": since.is_none() });
    finish(remote.call::<Stream>("history", &params).map(|answer| {
        let Stream { offset, epoch, .. } = &answer.result;
        if !remote.json {
            complain(&format!("{channel} stands at {offset}:{epoch}"));
        }
        answer.print(remote, |mut stream| {
            if since.is_none() {
                stream.publications.reverse();
            }
            show_publications(&stream.publications)
        })
    }))
}

/// Lists channels with subscribers, the largest first.
pub(crate) fn channels(args: &Channels) -> ExitCode {
    let Channels { pattern, remote } = args;
    finish(remote.call::<Listed>("channels", &json!({ "pattern": pattern })).map(|answer| {
        answer.result.missing.complain();
        if answer.result.more {
            complain("there are more: ask for a narrower pattern");
        }
        answer.print(remote, show_channels)
    }))
}

fn show_members(members: &Members) -> String {
    let columns = [("CLIENT", Align::Left), ("USER", Align::Left), ("INFO", Align::Left)];
    let info = |member: &Member| {
        let both = [&member.conn_info, &member.chan_info].map(|info| info.as_ref().map_or("", |info| info.get()));
        both.join(" ").trim().to_owned()
    };
    let row = |member: &Member| [clean(&member.client), clean(&member.user), clean(&info(member))];
    table(columns, &members.presence.values().map(row).collect::<Vec<_>>())
}

fn show_publications(publications: &[Stored]) -> String {
    let columns = [("OFFSET", Align::Right), ("TIME", Align::Left), ("FROM", Align::Left), ("DATA", Align::Left)];
    let row = |publication: &Stored| {
        let time = Duration::from_millis(publication.time.unsigned_abs());
        let time = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + time).to_string();
        let user = publication.info.as_ref().map_or("", |info| &*info.user);
        [publication.offset.to_string(), time, clean(user), readable(&publication.data())]
    };
    table(columns, &publications.iter().map(row).collect::<Vec<_>>())
}

fn show_channels(listed: Listed) -> String {
    let mut channels: Vec<_> = listed.channels.into_iter().collect();
    channels.sort_by_key(|(_, subscribers)| std::cmp::Reverse(subscribers.num_clients));
    let columns = [("CHANNEL", Align::Left), ("CLIENTS", Align::Right)];
    let row = |(name, subscribers): &(String, Subscribers)| [clean(name), subscribers.num_clients.to_string()];
    table(columns, &channels.iter().map(row).collect::<Vec<_>>())
}

/// Data for people: text if it is some, else its length.
pub(super) fn readable(data: &[u8]) -> String {
    str::from_utf8(data).map_or_else(|_| format!("({} bytes)", data.len()), clean)
}

/// Text on one line, that a terminal takes for nothing but text.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_foreign_reaches_the_terminal() {
        assert_eq!(readable(b"\"a\x1b[2J\""), "\"a\u{fffd}[2J\"");
        assert_eq!(readable("grüße".as_bytes()), "grüße");
        assert_eq!(readable(&[0xff, 0xfe]), "(2 bytes)");
    }

    #[test]
    fn the_largest_channel_first() {
        let listed = serde_json::from_str(r#"{"channels":{"a":{"num_clients":1},"b":{"num_clients":12}}}"#).unwrap();
        assert_eq!(show_channels(listed), "CHANNEL  CLIENTS\nb             12\na              1\n");
    }

    #[test]
    fn publications_as_a_table() {
        let publications: Vec<Stored> = serde_json::from_str(
            r#"[{"data":{"a":1},"offset":7,"time":1795253284424},
                {"data":null,"b64data":"//4=","offset":8,"time":1795253284440,"info":{"user":"ann","client":"c"}}]"#,
        )
        .unwrap();
        let text = show_publications(&publications);
        assert!(text.contains("     7  2026-11-21T") && text.contains("{\"a\":1}\n"), "{text}");
        assert!(text.contains("ann   (2 bytes)\n"), "{text}");
    }
}
