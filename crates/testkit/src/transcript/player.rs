//! Plays a transcript.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_node::authorizer::Grant;
use fanwire_node::broker::Order;
use fanwire_node::protocol::{Opening, Rejection};
use fanwire_node::{HistoryRequest, Protocol, Publish, Selection};
use fanwire_wire::{Broadcast, Channel, Disconnect, Epoch, Message, Payload, Position, Publication, Refusal, Stamp};
use serde_json::{Value, json};

use super::Codec;
use super::pattern::Captures;
use super::script::{Act, Expected, Script, Sent, Step, Wait, hex, unescape, word};
use crate::harness::{self, FakeClient, Harness};
use crate::{Frame, tokens};

/// Plays a script on a node of its own; a failure comes with its line.
pub(super) fn play(protocol: Arc<dyn Protocol>, codec: Option<Codec>, script: Script) -> Result<(), (usize, String)> {
    let Script { config, steps } = script;
    harness::run(config, async |harness| {
        let mut player = Player {
            harness,
            protocol,
            codec,
            captures: Captures::default(),
            peers: HashMap::new(),
            result: Rc::default(),
        };
        for (line, step) in &steps {
            player.step(step).await.map_err(|message| (*line, message))?;
        }
        let last = steps.last().map_or(0, |(line, _)| *line);
        player.end().map_err(|message| (last, format!("at the end: {message}")))
    })
}

struct Player<'a> {
    harness: &'a Harness,
    protocol: Arc<dyn Protocol>,
    codec: Option<Codec>,
    captures: Captures,
    peers: HashMap<String, Peer>,
    /// Of the last request, until it is looked at.
    result: Rc<RefCell<Option<Value>>>,
}

/// One connection of the transcript.
struct Peer {
    opened: Result<FakeClient, Rejection>,
    /// A rejection must be expected.
    rejection_seen: bool,
    arrived: VecDeque<Item>,
}

/// What one line of a transcript can expect.
#[derive(Debug)]
enum Item {
    Text(String),
    Json(Value),
    Binary(Vec<u8>),
    Value(Value),
    Ping,
    Pong,
    Close(u16, String),
}

impl Player<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Act(act, wait) => {
                self.act(act).await?;
                if *wait == Wait::Yes {
                    self.harness.settle().await;
                }
                Ok(())
            }
            Step::Result(expected) => {
                let got = self.result.take().ok_or("no request has a result here")?;
                let expected: Value = serde_json::from_str(expected).map_err(|error| error.to_string())?;
                self.captures.check(&expected, &got).map_err(|why| mismatch(&why, &expected, &got))
            }
            Step::Expect(name, expected) => self.expect(name, expected),
        }
    }

    async fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Open(name, query, subprotocols) => {
                let query = self.captures.fill(query)?;
                self.open(name, &Opening { query, subprotocols: subprotocols.clone(), remote: None })?;
            }
            Act::Send(name, sent) => {
                let message = self.message(sent)?;
                if !self.peers.contains_key(name) {
                    self.open(name, &Opening::default())?;
                }
                self.client(name)?.send(message);
            }
            Act::Leave(name) => self.client(name)?.leave(),
            Act::Fill(name, room) => self.client(name)?.socket.fill(*room),
            Act::Drain(name) => self.client(name)?.socket.drain(),
            Act::Stubborn(name) => self.client(name)?.socket.ignore_close(),
            Act::Pass(time) => self.harness.pass(*time).await,
            Act::Request(request) => {
                self.no_error_unseen()?;
                let request = self.captures.fill(request)?;
                self.request(&request)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, name: &str, opening: &Opening) -> Result<(), String> {
        let opened = self.harness.open(&*self.protocol, opening);
        let peer = Peer { opened, rejection_seen: false, arrived: VecDeque::new() };
        match self.peers.insert(name.to_owned(), peer) {
            None => Ok(()),
            Some(_) => Err(format!("{name} is taken: give every connection a name of its own")),
        }
    }

    fn message(&self, sent: &Sent) -> Result<Message, String> {
        Ok(match sent {
            Sent::Text(text) => {
                let text = self.captures.fill(text)?;
                let is_json = serde_json::from_str::<Value>(&text).is_ok();
                let text = if is_json { text } else { unescape(&text) };
                Message::Text(Bytes::from(text))
            }
            Sent::Binary(bytes) => Message::Binary(bytes.clone().into()),
            Sent::Values(text) => {
                let codec = self.codec.ok_or("this suite has no codec")?;
                let text = self.captures.fill(text)?;
                let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
                Message::Binary((codec.encode)(&values.map_err(|error| error.to_string())?).into())
            }
            Sent::Pong => Message::Pong,
        })
    }

    fn client(&self, name: &str) -> Result<&FakeClient, String> {
        let peer = self.peers.get(name).ok_or_else(|| format!("{name} is not open"))?;
        peer.opened.as_ref().map_err(|rejection| format!("{name} was rejected: {rejection:?}"))
    }

    fn expect(&mut self, name: &str, expected: &Expected) -> Result<(), String> {
        let peer = self.peers.get_mut(name).ok_or_else(|| format!("{name} is not open"))?;
        if let Expected::Rejected(status, message) = expected {
            peer.rejection_seen = true;
            return match &peer.opened {
                Err(got) if got.status == *status && got.message.contains(message) => Ok(()),
                Err(got) => Err(format!("expected: {status} {message}\n     got: {} {}", got.status, got.message)),
                Ok(_) => Err("the connection was accepted".to_owned()),
            };
        }
        peer.fetch(self.codec)?;
        let Ok(client) = &peer.opened else {
            return Err(format!("{name} was rejected: {:?}", peer.opened.as_ref().err()));
        };
        match expected {
            Expected::Accepted(subprotocol) => {
                return if client.subprotocol == subprotocol.as_deref() {
                    Ok(())
                } else {
                    Err(format!("expected: {subprotocol:?}\n     got: {:?}", client.subprotocol))
                };
            }
            Expected::Nothing => {
                return peer.arrived.front().map_or(Ok(()), |item| Err(format!("expected: nothing\n     got: {item}")));
            }
            Expected::Gone(code) => {
                let (gone, item) = (client.is_gone(), peer.arrived.front());
                let ended = client.client.ended().unwrap_or(Disconnect::ConnectionClosed);
                return if gone && item.is_none() && ended.code() == *code {
                    Ok(())
                } else {
                    Err(format!("expected: gone for {code}\n     got: gone: {gone}, for: {ended}, arrived: {item:?}"))
                };
            }
            _ => {}
        }
        let Some(item) = peer.arrived.pop_front() else {
            return Err(format!("expected: {}\n     got: nothing", describe(expected)));
        };
        let same = match (expected, &item) {
            (Expected::Anything, _) | (Expected::Ping, Item::Ping) | (Expected::Pong, Item::Pong) => true,
            (Expected::Json(expected), Item::Json(got)) | (Expected::Values(expected), Item::Value(got)) => {
                return self.captures.check(expected, got).map_err(|why| mismatch(&why, expected, got));
            }
            (Expected::Text(expected), Item::Text(got)) => expected == got,
            (Expected::Binary(expected), Item::Binary(got)) => expected == got,
            (Expected::Close(code, reason), Item::Close(got_code, got_reason)) => {
                if !client.socket.is_write_ended() {
                    return Err("the close frame came, and the connection stays open".to_owned());
                }
                code == got_code && reason == got_reason
            }
            _ => false,
        };
        if same { Ok(()) } else { Err(format!("expected: {}\n     got: {item}", describe(expected))) }
    }

    /// Begins a request; its result is there when everything has come to rest.
    fn request(&self, request: &str) -> Result<(), String> {
        let node = Arc::clone(&self.harness.node);
        let (verb, rest) = word(request);
        let (first, more) = word(rest);
        let channel = |name: &str| Channel::new(name).map_err(|error| error.to_string());
        let selection = |user: &str| Selection { user: user.to_owned(), ..Selection::default() };
        match verb {
            "publish" | "publish_binary" => {
                let publish = publication(channel(first)?, more, verb == "publish_binary")?;
                self.answer(async move {
                    let published = node.publish(publish).await?;
                    Ok(published.position.map_or_else(|| json!({}), |position| describe_position(&position)))
                });
            }
            "publish_behind_a_gap" => {
                let publish = publication(channel(first)?, more, false)?;
                let dispatcher = Arc::clone(&self.harness.dispatcher);
                self.answer(async move {
                    let position = HistoryRequest { limit: 0, since: None, order: Order::Forward };
                    let top = node.history(&publish.channel, position).await?.top;
                    // As if the publication in between had been lost on its way to this node.
                    let position = Position { epoch: top.epoch, offset: top.offset + 2 };
                    let stamp = Some(Stamp { prev: position.offset - 1, position });
                    let Publish { channel, payload, .. } = publish;
                    let (tags, time_ms) = (Arc::default(), 0);
                    let lonely =
                        Publication { channel, payload, event: None, tags, info: None, exclude: None, stamp, time_ms };
                    dispatcher.dispatch(&Broadcast::Publication(Arc::new(lonely)));
                    Ok(json!({}))
                });
            }
            "remove_history" => {
                let channel = channel(first)?;
                self.answer(async move { node.remove_history(&channel).await.map(|()| json!({})) });
            }
            "history" => {
                let channel = channel(first)?;
                let all = HistoryRequest { limit: -1, since: None, order: Order::Forward };
                self.answer(async move {
                    let history = node.history(&channel, all).await?;
                    let data = |bytes: &Bytes| serde_json::from_slice(bytes).unwrap_or_else(|_| json!(bytes.to_vec()));
                    let mut value = describe_position(&history.top);
                    value["data"] = history.publications.iter().map(|p| data(p.payload.bytes())).collect();
                    Ok(value)
                });
            }
            "presence" => {
                let channel = channel(first)?;
                self.answer(async move {
                    let members = node.members(&channel).await?;
                    let mut users: Vec<_> = members.iter().map(|info| info.user.to_string()).collect();
                    users.sort();
                    Ok(json!(users))
                });
            }
            "counts" => self.answer(async move {
                let counts = node.counts().await;
                Ok(json!({
                    "clients": counts.clients, "users": counts.users,
                    "channels": counts.channels, "subscriptions": counts.subscriptions,
                }))
            }),
            "subscribe" => {
                let (name, options) = word(more);
                let (channel, (grant, since)) = (channel(name)?, grant(options)?);
                let selection = selection(first);
                self.answer(async move { node.subscribe(selection, channel, grant, since).await.map(|_| json!({})) });
            }
            "unsubscribe" => {
                let (selection, channel) = (selection(first), channel(more)?);
                self.answer(async move { node.unsubscribe(selection, channel).await.map(|_| json!({})) });
            }
            "disconnect" => {
                let (selection, disconnect) = (selection(first), disconnect(more)?);
                self.answer(async move { node.disconnect(selection, disconnect).await.map(|_| json!({})) });
            }
            "refresh" => {
                let expire_at = if more.is_empty() { None } else { Some(seconds_from_now(more)?) };
                let selection = selection(first);
                self.answer(async move { node.refresh(selection, expire_at).await.map(|_| json!({})) });
            }
            "revoke" => {
                let before = tokens::seconds_ago(more).map_err(|error| error.to_string())?;
                let user = first.to_owned();
                self.answer(async move { node.revoke(&user, before).await.map(|_| json!({})) });
            }
            "shutdown" => self.answer(async move {
                node.shut_down().await;
                Ok(json!({}))
            }),
            "broker" => match first {
                "down" => self.harness.faults.go_down(),
                "lose_answers" => self.harness.faults.lose_answers(),
                "hold_requests" => self.harness.faults.hold_requests(),
                "hold_answers" => self.harness.faults.hold_answers(),
                "up" => self.harness.faults.heal(),
                other => return Err(format!("a broker cannot be {other:?}")),
            },
            other => return Err(format!("no such request: {other:?}")),
        }
        Ok(())
    }

    fn answer(&self, request: impl Future<Output = Result<Value, Refusal>> + 'static) {
        let result = Rc::clone(&self.result);
        tokio::task::spawn_local(async move {
            let answer = request.await.unwrap_or_else(|refusal| json!({"error": refusal.code()}));
            *result.borrow_mut() = Some(answer);
        });
    }

    fn no_error_unseen(&self) -> Result<(), String> {
        match self.result.take() {
            Some(Value::Object(result)) if result.contains_key("error") => {
                Err(format!("the request before was refused: {}", Value::Object(result)))
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.no_error_unseen()?;
        let mut names: Vec<_> = self.peers.keys().cloned().collect();
        names.sort();
        for name in names {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            match &peer.opened {
                Err(rejection) if !peer.rejection_seen => return Err(format!("{name} was rejected: {rejection:?}")),
                _ => {}
            }
            peer.fetch(self.codec)?;
            if let Some(item) = peer.arrived.front() {
                return Err(format!("{name} got {} more: {item} …", peer.arrived.len()));
            }
        }
        Ok(())
    }
}

impl Peer {
    /// Takes what arrived, cut into what one line expects.
    fn fetch(&mut self, codec: Option<Codec>) -> Result<(), String> {
        let Ok(client) = &self.opened else { return Ok(()) };
        for frame in client.socket.take() {
            match frame {
                Frame::Text(text) => self.arrived.extend(lines(text)),
                Frame::Binary(bytes) => match codec {
                    Some(codec) => self.arrived.extend((codec.decode)(&bytes)?.into_iter().map(Item::Value)),
                    None => self.arrived.push_back(Item::Binary(bytes)),
                },
                Frame::Ping(_) => self.arrived.push_back(Item::Ping),
                Frame::Pong(_) => self.arrived.push_back(Item::Pong),
                Frame::Close(code, reason) => self.arrived.push_back(Item::Close(code, reason)),
            }
        }
        Ok(())
    }
}

/// JSON objects joined by line feeds are one item each; everything else is one.
fn lines(text: String) -> Vec<Item> {
    let objects: Result<Vec<Value>, _> = text.trim_end_matches('\n').split('\n').map(serde_json::from_str).collect();
    match objects {
        Ok(values) if values.len() == 1 || values.iter().all(Value::is_object) => {
            values.into_iter().map(Item::Json).collect()
        }
        _ => vec![Item::Text(text)],
    }
}

fn publication(channel: Channel, text: &str, binary: bool) -> Result<Publish, String> {
    let mut publish = Publish::new(channel, Payload::binary(Bytes::new()));
    let mut rest = text;
    let mut tags = Vec::new();
    loop {
        let (option, behind) = word(rest);
        match option.split_once('=') {
            Some(("key", key)) => publish.idempotency_key = Some(key.into()),
            Some(("event", event)) => publish.event = Some(event.into()),
            Some(("tag", tag)) => {
                let (name, value) = tag.split_once(':').ok_or("a tag is name:value")?;
                tags.push((name.to_owned(), value.to_owned()));
            }
            _ if option == "skip_history" => publish.skip_history = true,
            _ => break,
        }
        rest = behind;
    }
    publish.tags = tags.into();
    publish.payload = if binary {
        Payload::binary(hex(rest)?.into())
    } else {
        Payload::text(Bytes::copy_from_slice(rest.as_bytes()))
    };
    Ok(publish)
}

fn grant(options: &str) -> Result<(Grant, Option<Position>), String> {
    let mut grant = Grant::default();
    let mut since = None;
    for option in options.split(' ').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').ok_or_else(|| format!("{option:?} is no option"))?;
        if name == "since" {
            let (offset, epoch) = value.split_once(':').ok_or("since=offset:epoch")?;
            let offset = offset.parse().map_err(|_| format!("{offset:?} is no offset"))?;
            since = Some(Position { epoch: Epoch::from(epoch), offset });
        } else {
            tokens::set(&mut grant, name, value).map_err(|error| error.to_string())?;
        }
    }
    Ok((grant, since))
}

fn seconds_from_now(seconds: &str) -> Result<u64, String> {
    tokens::seconds_from_now(seconds).map_err(|error| error.to_string())
}

fn disconnect(text: &str) -> Result<Disconnect, String> {
    if text.is_empty() {
        return Ok(Disconnect::ForceDisconnect);
    }
    let (code, reason) = word(text);
    let code: u16 = code.parse().map_err(|_| format!("{code:?} is no code"))?;
    let own = Disconnect::ALL.iter().find(|known| known.code() == code).cloned();
    Ok(own.unwrap_or_else(|| Disconnect::Application { code, reason: reason.into() }))
}

fn describe_position(position: &Position) -> Value {
    json!({"epoch": position.epoch.as_str(), "offset": position.offset})
}

fn mismatch(why: &str, expected: &Value, got: &Value) -> String {
    format!("{why}\nexpected: {expected}\n     got: {got}")
}

fn describe(expected: &Expected) -> String {
    match expected {
        Expected::Json(value) | Expected::Values(value) => value.to_string(),
        Expected::Text(text) => format!("{text:?}"),
        Expected::Close(code, reason) => format!("close {code} {reason}"),
        other => format!("{other:?}"),
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(value) | Self::Value(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Binary(bytes) => write!(f, "binary {bytes:02x?}"),
            Self::Ping => f.write_str("ping"),
            Self::Pong => f.write_str("pong"),
            Self::Close(code, reason) => write!(f, "close {code} {reason}"),
        }
    }
}
