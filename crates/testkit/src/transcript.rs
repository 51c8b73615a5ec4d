//! Conversations written down in text files, played against a protocol without sockets and on a paused clock.
//!
//! A transcript is a text file. It begins with the node's configuration in TOML between two lines `---`
//! (a section `[client]`, any number of `[[namespace]]`); without one, anonymous clients may connect, and subscribe and
//! publish in channels without a namespace. Then one line stands for each thing that happens. Empty lines and lines that
//! begin with `#` are comments. `A` is any name of a connection: a word that begins with a letter.
//!
//! | line | meaning |
//! |---|---|
//! | `A open` | opens a connection; so does the first `A >` |
//! | `A open ?query a,b` | the same with a query string and offered subprotocols, both optional |
//! | `A accepted name` | the server chose this subprotocol; `-` for none |
//! | `A rejected 400 text` | the server answered with this HTTP status instead; the message contains the text |
//! | `A > text` | the peer sends a text frame; `\n` in it stands for a line feed, `\\` for a backslash outside of JSON |
//! | `A >b 01ff` | … a binary frame, in hexadecimal |
//! | `A >p {…}` | … a binary frame that the suite's codec makes of JSON; several values stand behind each other |
//! | `A >pong` | … an answer to a ping |
//! | `A < expected` | a text: JSON by structure, anything else literally. JSON objects joined by line feeds in one frame are one line each |
//! | `A <b 01ff` | a binary frame |
//! | `A <p {…}` | one of the JSON values that the suite's codec finds in a binary frame |
//! | `A <ping` `A <pong` | a WebSocket ping or pong |
//! | `A < *` | anything, once |
//! | `A < -` | nothing more has arrived so far |
//! | `A x 3501 bad request` | the close frame with this code and reason, and the end of the connection |
//! | `A gone 3008` | the end of the connection for this reason, without a close frame |
//! | `A close` | the peer hangs up |
//! | `A full` / `A full 100` | the peer reads no more; the socket takes none / 100 bytes more |
//! | `A drained` | the peer reads again |
//! | `A stubborn` | the peer will not hang up after the server's close frame |
//! | `~ 30s` | time passes, with all tasks running |
//! | `! request` | the backend or the world outside does something, see below |
//! | `= {…}` | the result of the last `!`; one that is an error must be expected |
//!
//! | request | result |
//! |---|---|
//! | `! publish channel data` | `{"epoch", "offset"}`, or `{}`; options in front of the data: `key=k` `event=e` `tag=k:v` `skip_history` |
//! | `! publish_binary channel 01ff` | the same |
//! | `! publish_behind_a_gap channel data` | `{}`; the publication before it was lost on its way to the node |
//! | `! remove_history channel` | `{}` |
//! | `! history channel` | `{"epoch", "offset", "data": […]}` |
//! | `! presence channel` | the users, sorted |
//! | `! counts` | `{"clients", "users", "channels", "subscriptions"}` |
//! | `! subscribe user channel` | `{}`; options: `since=offset:epoch`, and those of a subscription token ([`TokenBook`](crate::TokenBook)) |
//! | `! unsubscribe user channel` | `{}` |
//! | `! disconnect user` / `! disconnect user 4001 text` | `{}` |
//! | `! refresh user` / `! refresh user 30` | `{}`; the term in seconds from now, else for ever |
//! | `! shutdown` | `{}` |
//! | `! broker down` / `lose_answers` / `hold_requests` / `hold_answers` / `up` | `{}`; the broker fails, or loses the answers to publications, or keeps requests or answers waiting, see [`Faults`](crate::Faults) |
//!
//! Refused requests have the result `{"error": code}`.
//!
//! The n-th connection of a transcript (from 0) is pinged first `ping_interval` − n seconds after it connected, if nothing went
//! to and fro in the second half of the interval.
//!
//! A connection in which nothing goes to and fro is pinged exactly every `ping_interval`, counted from its connecting.
//!
//! In an expected JSON value the string `"*"` stands for anything, and `"<name>"` for anything as well, but for the same in
//! every place where the name is the same; in a line that is sent, in `=` and in `!`, `"<name>"` stands for what was
//! found (`<name>` for the bare text of it). A doubled sign (`A >> text`, `!! publish …`) does not wait until everything has
//! come to rest: what follows reaches the node in the same turn. Every frame that arrives must be expected, in order.

mod pattern;
mod player;
mod script;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanwire_node::Protocol;
use serde_json::Value;

/// How JSON values become one binary message of a protocol, and back.
#[derive(Clone, Copy)]
pub struct Codec {
    /// Makes one message of all these commands.
    pub encode: fn(&[Value]) -> Vec<u8>,
    /// Finds all replies in one message, or says what is wrong with it.
    pub decode: fn(&[u8]) -> Result<Vec<Value>, String>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

/// Plays every transcript in a folder (`*.txt`, not in folders below), each on a node of its own.
///
/// # Panics
///
/// If one fails, with all failures; if there is none.
pub fn run_dir(protocol: impl Fn() -> Arc<dyn Protocol>, folder: &Path) {
    run_dir_with(protocol, None, folder);
}

/// The same for a protocol with a binary encoding.
///
/// # Panics
///
/// If one fails, with all failures; if there is none.
pub fn run_dir_with(protocol: impl Fn() -> Arc<dyn Protocol>, codec: Option<Codec>, folder: &Path) {
    let paths = transcripts(folder);
    assert!(!paths.is_empty(), "no transcripts in {}", folder.display());
    let failures: Vec<String> = paths.iter().filter_map(|path| run_file(protocol(), codec, path).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} transcripts failed\n\n{}",
        failures.len(),
        paths.len(),
        failures.join("\n\n")
    );
}

/// Plays one transcript.
///
/// # Errors
///
/// Says where it failed, what was expected and what was there.
pub fn run_file(protocol: Arc<dyn Protocol>, codec: Option<Codec>, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    run_text(protocol, codec, &name, &text)
}

/// Plays a transcript from memory; `name` stands in the messages.
///
/// # Errors
///
/// Says where it failed, what was expected and what was there.
pub fn run_text(protocol: Arc<dyn Protocol>, codec: Option<Codec>, name: &str, text: &str) -> Result<(), String> {
    let script = script::parse(text).map_err(|(line, message)| format!("{name}:{line}: {message}"))?;
    player::play(protocol, codec, script).map_err(|(line, message)| format!("{name}:{line}: {message}"))
}

fn transcripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::BytesMut;
    use fanwire_node::protocol::{Accepted, Event, Opening, Rejection};
    use fanwire_node::{Client, ConnectRequest, Encoder, Failure, Session, SubscribeRequest};
    use fanwire_wire::frame::{self, Opcode};
    use fanwire_wire::{Broadcast, Disconnect, Message, Payload};
    use futures_util::future::LocalBoxFuture;

    use super::*;

    /// The smallest protocol that can be talked about: one channel per connection, publications as they are.
    struct Mini;
    struct MiniSession(String);
    struct MiniEncoder;

    impl Protocol for Mini {
        fn name(&self) -> &'static str {
            "mini"
        }

        fn accept(&self, opening: &Opening) -> Result<Accepted, Rejection> {
            if opening.query.is_empty() {
                return Err(Rejection { status: 400, message: "no channel in the query".into() });
            }
            Ok(Accepted { session: Box::new(MiniSession(opening.query.clone())), subprotocol: None })
        }
    }

    impl Session for MiniSession {
        fn encoder(&self) -> &'static dyn Encoder {
            &MiniEncoder
        }

        fn on_open<'a>(&'a self, client: &'a Rc<Client>) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
            Box::pin(async {
                let end = |failure| match failure {
                    Failure::Refusal(_) | Failure::Backend(_) => Disconnect::PermissionDenied,
                    Failure::Disconnect(disconnect) => disconnect,
                };
                client.connect(ConnectRequest::default()).await.map_err(end)?;
                let request = SubscribeRequest { channel: self.0.clone(), ..SubscribeRequest::default() };
                client.subscribe(request).await.map_err(end).map(|_| ())
            })
        }

        fn on_message<'a>(
            &'a self,
            client: &'a Rc<Client>,
            message: Message,
        ) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
            Box::pin(async move {
                let payload = match message {
                    Message::Text(text) => Payload::text(text),
                    Message::Binary(bytes) => Payload::binary(bytes),
                    Message::Pong => return client.pong(),
                };
                client.publish(&self.0, payload).await.map(|_| ()).map_err(|_| Disconnect::PermissionDenied)
            })
        }

        fn encode_event(&self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Disconnect> {
            if matches!(event, Event::Ping) {
                frame::append_bytes(out, Opcode::Ping, b"");
            }
            Ok(())
        }
    }

    impl Encoder for MiniEncoder {
        fn name(&self) -> &'static str {
            "mini"
        }

        fn encode(&self, broadcast: &Broadcast, out: &mut BytesMut) -> Result<(), Disconnect> {
            if let Broadcast::Publication(publication) = broadcast {
                frame::append_bytes(out, Opcode::Text, publication.payload.bytes());
            }
            Ok(())
        }
    }

    fn play(text: &str) -> Result<(), String> {
        run_text(Arc::new(Mini), None, "test", text)
    }

    fn failure(text: &str) -> String {
        play(text).unwrap_err()
    }

    #[test]
    fn a_conversation() {
        play(
            r#"
# Two in one room.
A open ?chat
A accepted -
B open ?chat
A > {"hello": "you", "n": 1}
A < {"n": 1, "hello": "*"}
B < {"hello": "<who>", "n": "<one>"}
B >> first
B > {"who":"<who>"}\n{"x":"<one>"}
A < first
A < {"who":"you"}
A < {"x":1}
B < *
B < *
B < *
A < -
! publish chat key=k {"y":"<one>"}
= {}
A < {"y":1}
B < {"y":1}
! publish nowhere:1 1
= {"error":102}
! counts
= {"clients":2,"users":1,"channels":1,"subscriptions":2}
B close
~ 25s
A <ping
A >pong
! disconnect <who>
A < -
~ 25s
A <ping
~ 7s
A < -
~ 1s
A x 3012 no pong
! counts
= {"clients":0,"users":0,"channels":0,"subscriptions":0}
"#,
        )
        .unwrap();
    }

    #[test]
    fn a_full_socket_ends_without_a_close_frame() {
        play(
            "---\n[client]\nanonymous = true\nqueue_size = 100\n[[namespace]]\nsubscribe = \"anyone\"\n---\n\
             A open ?chat\nA full\n! publish chat \"1234567890123456789012345678901234567890\"\n\
             ! publish chat \"1234567890123456789012345678901234567890\"\nA < -\n\
             ! publish chat \"1234567890123456789012345678901234567890\"\nA < -\n~ 2s\nA gone 3008",
        )
        .unwrap();
    }

    #[test]
    fn failures_say_where_and_why() {
        let wrong = failure("A open ?chat\nA > 1\n\nA < 2");
        assert!(wrong.starts_with("test:4: "), "{wrong}");
        assert!(wrong.contains("expected: 2") && wrong.contains("got: 1"), "{wrong}");
        assert!(failure("A open ?chat\nA > 1").contains("at the end: A got 1 more: 1"));
        assert!(failure("A open ?chat\nA < 1").contains("got: nothing"));
        assert!(failure("A open ?chat\nA > 1\nA < -").contains("got: 1"));
        assert!(failure("A open").contains("A was rejected"));
        assert!(failure("A open ?chat\nA rejected 400 x").contains("was accepted"));
        assert!(failure("A open\nA rejected 404 channel").contains("400 no channel in the query"));
        assert!(failure("A open ?chat\nA x 3000").contains("got: nothing"));
        assert!(failure("A open ?chat\nA gone 3008").contains("gone: false"));
        assert!(failure("A open ?a:b\nA x 3507").contains("close 3507 permission denied"));
        assert!(failure("! publish a:b 1").contains("refused"));
        assert!(failure("! publish chat 1\n= {\"offset\":1}").contains(".offset is not there"));
        assert!(failure("A open ?chat\nA accepted x").contains("got: None"));
        assert!(failure("A open ?chat\nA > <x>").contains("nothing was captured"));
        assert!(failure("A opne").contains("cannot \"opne\""));
        assert!(failure("---\n[client]\nx = 1\n---").contains("unknown field"));
        assert!(failure("---\n[[namespace]]\nrecovery = true\n---").contains("need history"));
    }
}
