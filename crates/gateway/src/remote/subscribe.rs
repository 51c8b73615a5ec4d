//! `fanwire subscribe`: what happens in channels, as it happens.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use fanwire_client::{
    Client, ClientInfo, Config, Event, Position, Publication, Recovery, Subscribe as Wish, Subscription,
};
use futures_util::future::select_all;
use serde::Serialize;
use serde_json::value::RawValue;

use super::channel::readable;
use super::{Error, Trust, complain, finish, position, print, run};
use crate::config::causes;

/// Arguments of `fanwire subscribe`.
#[derive(Args)]
pub(crate) struct Subscribe {
    /// The channels
    #[arg(required = true)]
    channels: Vec<String>,
    /// Any node's address for clients, or the balancer's: ws:// or wss://
    #[arg(long, value_name = "URL", env = "FANWIRE_URL", default_value = "ws://127.0.0.1:8000")]
    url: String,
    /// The connection token, where one is needed
    #[arg(long, value_name = "TOKEN", env = "FANWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The subscription token, where the channel needs one
    #[arg(long, value_name = "TOKEN", env = "FANWIRE_CHANNEL_TOKEN", hide_env_values = true)]
    channel_token: Option<String>,
    /// Go on behind this position, where the channel is recoverable
    #[arg(long, value_name = "OFFSET:EPOCH", value_parser = position, conflicts_with = "all")]
    since: Option<Position>,
    /// Begin with everything that is kept, where the channel is recoverable
    #[arg(long)]
    all: bool,
    /// Show who enters and leaves, too
    #[arg(long)]
    joins: bool,
    /// End after so many publications
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    trust: Trust,
    /// Print everything that happens as a line of JSON
    #[arg(long)]
    json: bool,
}

/// Prints publications until it is interrupted, everything has ended or `--count` is reached.
pub(crate) fn subscribe(args: &Subscribe) -> ExitCode {
    finish(run(async {
        tokio::select! {
            outcome = args.follow() => outcome.map(|()| String::new()),
            _ = tokio::signal::ctrl_c() => Ok(String::new()),
        }
    }))
}

impl Subscribe {
    async fn follow(&self) -> Result<(), Error> {
        if self.count == Some(0) {
            return Ok(());
        }
        let config = Config::new(&self.url).roots(self.trust.roots()?);
        let config = self.token.iter().fold(config, |config, token| config.token(token));
        let client = Client::connect(config).await?;
        let mut open = Vec::new();
        for channel in &self.channels {
            open.push(client.subscribe(self.wish(channel)).await?);
        }
        let mut left = self.count;
        while !open.is_empty() {
            let (event, index) = next(&mut open).await;
            let Some(event) = event else { return Err(Error::Client(fanwire_client::Error::Gone)) };
            let published = matches!(event, Event::Publication(_));
            self.show(open[index].channel(), &event)?;
            if let Event::Ended(error) = event {
                open.swap_remove(index);
                if open.is_empty() {
                    return Err(self.ended(&error));
                }
            }
            if let Some(left) = left.as_mut().filter(|_| published) {
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn wish(&self, channel: &str) -> Wish {
        let mut wish = Wish::new(channel);
        if self.joins {
            wish = wish.joins();
        }
        if let Some(token) = &self.channel_token {
            wish = wish.token(token);
        }
        match (&self.since, self.all) {
            (Some(position), _) => wish.since(position.clone()),
            (None, true) => wish.since(Position::default()),
            (None, false) => wish,
        }
    }

    /// Prints an event: publications are the output, what happens to the subscription is said beside it.
    fn show(&self, channel: &str, event: &Event) -> Result<(), Error> {
        if self.json {
            return print(format!("{}\n", to_json(channel, event)).as_bytes());
        }
        // With one channel its name says nothing.
        let label = if self.channels.len() > 1 { format!("{channel}  ") } else { String::new() };
        let at = |position: &Option<Position>| {
            position.as_ref().map_or(String::new(), |at| format!(" at {}:{}", at.offset, at.epoch))
        };
        match event {
            Event::Publication(Publication { data, .. }) => {
                print(format!("{label}{}\n", readable(data)).as_bytes())?;
            }
            Event::Join(info) => print(format!("{label}+ {}\n", who(info)).as_bytes())?,
            Event::Leave(info) => print(format!("{label}- {}\n", who(info)).as_bytes())?,
            Event::Subscribed(now) => complain(&match now.recovery {
                Recovery::Fresh => format!("{channel}: subscribed{}", at(&now.position)),
                Recovery::Whole => format!("{channel}: subscribed{}, nothing is missing", at(&now.position)),
                Recovery::Lost => format!("{channel}: subscribed{}, SOMETHING IS MISSING before it", at(&now.position)),
            }),
            Event::Interrupted(error) => complain(&format!("{channel}: interrupted: {}", causes(&**error))),
            Event::Ended(error) if self.channels.len() > 1 => complain(&format!("{channel}: {}", causes(&**error))),
            _ => {}
        }
        Ok(())
    }

    /// The end of the last subscription is the command's own.
    fn ended(&self, error: &fanwire_client::Error) -> Error {
        use fanwire_client::Error as Client;
        let source = match error {
            Client::Refused(refusal) => Client::Refused(refusal.clone()),
            Client::Closed { code, reason } => Client::Closed { code: *code, reason: reason.clone() },
            Client::Unsubscribed { code, reason } => Client::Unsubscribed { code: *code, reason: reason.clone() },
            error => Client::Lost(causes(error).into()),
        };
        Error::Method { method: format!("subscribe {}", self.channels.join(" ")), source }
    }
}

/// The next event of any, and whose it is.
async fn next(open: &mut [Subscription]) -> (Option<Event>, usize) {
    let waiting = open.iter_mut().map(|subscription| Box::pin(subscription.next()));
    let (event, index, _) = select_all(waiting).await;
    (event, index)
}

fn who(info: &ClientInfo) -> String {
    format!("{} {} {}", readable(info.user.as_bytes()), readable(info.client.as_bytes()), readable(&info.conn_info))
}

/// An event as a line of JSON. What is not there is left out.
#[derive(Default, Serialize)]
struct Line<'a> {
    r#type: &'a str,
    channel: &'a str,
    #[serde(flatten)]
    data: Data<'a>,
    #[serde(flatten)]
    position: Option<&'a Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Who<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Bytes: as JSON if they are some, else in base64.
#[derive(Default, Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
}

#[derive(Serialize)]
struct Who<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
}

fn to_json(channel: &str, event: &Event) -> String {
    let line = Line { channel, ..Line::default() };
    let line = match event {
        Event::Publication(Publication { data, position, info, tags }) => Line {
            r#type: "publication",
            data: data.as_ref().into(),
            position: position.as_ref(),
            info: info.as_ref().map(Who::from),
            tags: (!tags.is_empty()).then_some(tags),
            ..line
        },
        Event::Join(info) => Line { r#type: "join", info: Some(info.into()), ..line },
        Event::Leave(info) => Line { r#type: "leave", info: Some(info.into()), ..line },
        Event::Subscribed(now) => Line {
            r#type: "subscribed",
            data: if now.data.is_empty() { Data::default() } else { now.data.as_ref().into() },
            position: now.position.as_ref(),
            recovery: Some(match now.recovery {
                Recovery::Fresh => "fresh",
                Recovery::Whole => "whole",
                Recovery::Lost => "lost",
            }),
            ..line
        },
        Event::Interrupted(error) => Line { r#type: "interrupted", reason: Some(causes(&**error)), ..line },
        Event::Ended(error) => Line { r#type: "ended", reason: Some(causes(&**error)), ..line },
        _ => Line { r#type: "unknown", ..line },
    };
    serde_json::to_string(&line).unwrap_or_default()
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        match serde_json::from_slice(bytes) {
            Ok(data) => Self { data: Some(data), b64data: None },
            Err(_) => Self { data: None, b64data: Some(BASE64_STANDARD.encode(bytes)) },
        }
    }
}

impl<'a> From<&'a ClientInfo> for Who<'a> {
    fn from(info: &'a ClientInfo) -> Self {
        let json = |bytes: &'a [u8]| serde_json::from_slice(bytes).ok();
        let ClientInfo { user, client, conn_info, chan_info } = info;
        Self { user, client, conn_info: json(conn_info), chan_info: json(chan_info) }
    }
}

impl fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe").field("channels", &self.channels).field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(data: &'static [u8]) -> Event {
        let position = Some(Position { offset: 7, epoch: "e".to_owned() });
        let tags = BTreeMap::from([("kind".to_owned(), "note".to_owned())]);
        Event::Publication(Publication { data: data.into(), position, info: None, tags })
    }

    #[test]
    fn data_is_printed_as_it_came() {
        let line = to_json("a", &publication(br#"{"z":1.00,"a":12345678901234567890123}"#));
        assert_eq!(
            line,
            r#"{"type":"publication","channel":"a","data":{"z":1.00,"a":12345678901234567890123},"offset":7,"epoch":"e","tags":{"kind":"note"}}"#
        );
        assert!(to_json("a", &publication(&[0xff])).contains(r#""b64data":"/w==""#));
    }
}
