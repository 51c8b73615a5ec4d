//! `fanwire connections`: who is connected, page by page.

use std::process::ExitCode;

use clap::Args;
use fanwire_client::Api;
use serde::Deserialize;
use serde_json::json;

use super::api::Missing;
use super::channel::clean;
use super::table::{Align, table};
use super::{Error, Remote, complain, finish, print, run};

/// Arguments of `fanwire connections`.
#[derive(Args, Debug)]
pub(crate) struct Connections {
    /// Only those of this user
    #[arg(long)]
    user: Option<String>,
    /// Only those subscribed to this channel; needed with an API key that is for certain channels
    #[arg(long)]
    channel: Option<String>,
    /// At most so many on a page
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// The page behind this one: what the one before it said
    #[arg(long, conflicts_with = "all")]
    cursor: Option<String>,
    /// All pages, one after the other
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Deserialize)]
struct Page {
    connections: Vec<Connection>,
    #[serde(default)]
    cursor: String,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Deserialize)]
struct Connection {
    client: String,
    user: String,
    node: String,
    protocol: String,
    num_subs: u64,
}

/// Prints a page of connections, or all of them.
pub(crate) fn connections(args: &Connections) -> ExitCode {
    finish(args.remote.connect().and_then(|api| run(args.list(&api))).map(|()| String::new()))
}

impl Connections {
    async fn list(&self, api: &Api) -> Result<(), Error> {
        let Self { user, channel, limit, all, remote, .. } = self;
        let mut cursor = self.cursor.clone().unwrap_or_default();
        loop {
            let params = json!({ "user": user, "channel": channel, "limit": limit, "cursor": cursor });
            let answer = remote.ask::<Page>(api, "connections", &params).await?;
            answer.result.missing.complain();
            let next = answer.result.cursor.clone();
            print(answer.print(remote, |page| show(&page.connections)).as_bytes())?;
            if !all {
                if !next.is_empty() && !remote.json {
                    complain(&format!("there are more: --all, or --cursor {next}"));
                }
                return Ok(());
            }
            // A cursor that stands still would never end.
            if next.is_empty() || next == cursor {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn show(connections: &[Connection]) -> String {
    let columns = [
        ("CLIENT", Align::Left),
        ("USER", Align::Left),
        ("PROTOCOL", Align::Left),
        ("SUBSCRIPTIONS", Align::Right),
        ("NODE", Align::Left),
    ];
    let row = |Connection { client, user, node, protocol, num_subs }: &Connection| {
        [clean(client), clean(user), clean(protocol), num_subs.to_string(), clean(node)]
    };
    table(columns, &connections.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_connection() {
        let answer = r#"{"connections":[{"client":"c1","user":"ann","node":"n1","protocol":"native","num_subs":2},
                         {"client":"c2","user":"","node":"n1","protocol":"plain","num_subs":1}],"cursor":"c2","silent":["n2"]}"#;
        let page: Page = serde_json::from_str(answer).unwrap();
        let expected = "CLIENT  USER  PROTOCOL  SUBSCRIPTIONS  NODE\n\
                        c1      ann   native                2  n1\n\
                        c2            plain                 1  n1\n";
        assert_eq!((show(&page.connections), &*page.cursor), (expected.to_owned(), "c2"));
        assert_eq!(page.missing.notes().len(), 1);
    }
}
