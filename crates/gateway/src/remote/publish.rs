//! `fanwire publish`.

use std::io::{BufRead, Read};
use std::process::ExitCode;

use clap::Args;
use fanwire_client::{Api, Error as ClientError, Position, Publish as Publication};
use serde_json::value::RawValue;

use super::{Error, Remote, finish, print, run};

/// Arguments of `fanwire publish`.
#[derive(Args, Debug)]
pub(crate) struct Publish {
    /// The channel
    channel: String,
    /// The data, as JSON; without it, standard input
    data: Option<String>,
    /// The data is text, published as a JSON string
    #[arg(long, conflicts_with = "binary")]
    text: bool,
    /// The data is any bytes, published as they are
    #[arg(long)]
    binary: bool,
    /// Each line of standard input is a publication
    #[arg(long, conflicts_with = "data")]
    lines: bool,
    /// A label for subscribers; may be given several times
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// A name for what it tells
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// The id of a connection that does not get it
    #[arg(long, value_name = "ID")]
    exclude: Option<String>,
    /// Deliver it, but do not keep it
    #[arg(long)]
    skip_history: bool,
    /// A repetition under the same key within five minutes is not applied again
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// The largest data read from standard input, in bytes: what the API takes at most.
const MAX_DATA: u64 = 4 * 1024 * 1024;

/// Publishes, and prints the position.
pub(crate) fn publish(args: &Publish) -> ExitCode {
    finish(args.remote.connect().and_then(|api| run(args.publish(&api))))
}

impl Publish {
    async fn publish(&self, api: &Api) -> Result<String, Error> {
        if self.lines {
            // Nothing else waits on this thread.
            for line in std::io::stdin().lock().lines() {
                let line = line.map_err(unreadable)?;
                print(self.send(api, line.as_bytes()).await?.as_bytes())?;
            }
            return Ok(String::new());
        }
        let data = match &self.data {
            Some(data) => data.clone().into_bytes(),
            None => {
                let mut data = Vec::new();
                std::io::stdin().lock().take(MAX_DATA + 1).read_to_end(&mut data).map_err(unreadable)?;
                data
            }
        };
        self.send(api, &data).await
    }

    async fn send(&self, api: &Api, data: &[u8]) -> Result<String, Error> {
        let publication = self.publication(data)?;
        let position = api.publish(publication).await.map_err(|source| match source {
            source @ ClientError::Usage(_) => Error::Client(source),
            source => Error::Method { method: "publish".to_owned(), source },
        })?;
        Ok(match (position, self.remote.json) {
            (Some(Position { offset, epoch }), true) => format!("{{\"offset\":{offset},\"epoch\":\"{epoch}\"}}\n"),
            (Some(Position { offset, epoch }), false) => format!("{offset}:{epoch}\n"),
            (None, true) => "{}\n".to_owned(),
            (None, false) => "published, not kept\n".to_owned(),
        })
    }

    fn publication(&self, data: &[u8]) -> Result<Publication, Error> {
        let text = || str::from_utf8(data).map_err(|_| Error::Usage("the data is no text: --binary".to_owned()));
        let publication = if self.binary {
            Publication::bytes(&*self.channel, data)
        } else if self.text {
            Publication::json(&*self.channel, text()?)?
        } else {
            let json: &RawValue = serde_json::from_str(text()?)
                .map_err(|error| Error::Usage(format!("the data is no JSON: {error}; --text publishes it as text")))?;
            Publication::json(&*self.channel, json)?
        };
        let publication = self.tags.iter().fold(publication, |publication, (name, value)| publication.tag(name, value));
        let publication = if self.skip_history { publication.skip_history() } else { publication };
        let publication = self.event.iter().fold(publication, |publication, name| publication.event(name));
        let publication = self.exclude.iter().fold(publication, |publication, client| publication.exclude(client));
        Ok(self.idempotency_key.iter().fold(publication, |publication, key| publication.idempotency_key(key)))
    }
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn unreadable(source: std::io::Error) -> Error {
    Error::Local { what: "cannot read standard input".to_owned(), source }
}
