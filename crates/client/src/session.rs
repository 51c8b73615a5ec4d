//! One connection: commands out, replies and pushes in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::channel::State;
use crate::dial::Socket;
use crate::driver::{self, Driver};
use crate::proto::{self, Command, ConnectRequest, ConnectResult, Push, Reply};
use crate::{Config, Error, Event, Refusal, TokenFor, codec};

/// An open connection.
pub(crate) struct Session<'a> {
    driver: &'a mut Driver,
    socket: Socket,
    /// Commands not sent yet.
    out: BytesMut,
    last_id: u32,
    /// What was asked and not answered. Ids grow, so the first has waited longest.
    asked: BTreeMap<u32, (Asked, Instant)>,
    fetches: FuturesUnordered<BoxFuture<'static, (TokenFor, Result<String, Error>)>>,
    /// When the next token for the connection is due.
    refresh: Option<Instant>,
    /// The longest silence of a server that is well.
    silence: Option<Duration>,
    heard: Instant,
    pong: bool,
}

/// What a command was.
enum Asked {
    Subscribe(String),
    Publish(oneshot::Sender<Result<(), Error>>),
    Refresh,
    SubRefresh(String),
    Unsubscribe,
}

/// What happens next.
enum Turn {
    Message(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
    Command(Option<driver::Command>),
    Left(String, u64),
    Fetched(TokenFor, Result<String, Error>),
    Alarm,
}

/// How long an answer may take, and a socket may be full.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a ping may be late.
const LATE: Duration = Duration::from_secs(10);

/// Requests that may wait for an answer.
const MAX_ASKED: usize = 1024;

/// Commands share a message up to this size: half of what a gateway takes by default.
const MAX_BATCH: usize = 32 * 1024;

/// From here on an `unsubscribe` invites to come back.
const FIRST_RETURN: u32 = 2500;

/// How long to wait before a token is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// The refusal of a token that was good once.
const TOKEN_EXPIRED: u32 = 109;

impl<'a> Session<'a> {
    /// Connects, and asks for all subscriptions.
    pub(crate) async fn open(driver: &'a mut Driver) -> Result<Self, Error> {
        let token = driver.connection_token().await?;
        let socket = driver.endpoint.dial().await?;
        let mut session = Self {
            driver,
            socket,
            out: BytesMut::new(),
            last_id: 0,
            asked: BTreeMap::new(),
            fetches: FuturesUnordered::new(),
            refresh: None,
            silence: None,
            heard: Instant::now(),
            pong: false,
        };
        let connect = ConnectRequest { token, ..ConnectRequest::default() };
        let id = session.command(Command { connect: Some(connect), ..Command::default() }).await?;
        session.flush().await?;
        let answered = timeout(PATIENCE, session.connected(id)).await;
        answered.unwrap_or_else(|late| Err(Error::Lost(late.into())))?;
        let idle = session.driver.channels.values().filter(|channel| channel.state == State::Idle);
        for name in idle.map(|channel| channel.name.clone()).collect::<Vec<_>>() {
            session.ask(&name).await?;
        }
        Ok(session)
    }

    /// Lives until the connection ends; returns why.
    pub(crate) async fn live(mut self) -> Error {
        let error = loop {
            if let Err(error) = self.turn().await {
                break error;
            }
        };
        if matches!(error, Error::Gone) {
            let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
        }
        error
    }

    async fn turn(&mut self) -> Result<(), Error> {
        self.flush().await?;
        let alarm = self.alarm();
        let Self { driver, socket, fetches, .. } = self;
        let turn = select! {
            message = socket.next() => Turn::Message(message),
            command = driver.commands.recv() => Turn::Command(command),
            Some((name, id)) = driver.leaving.next(), if !driver.leaving.is_empty() => Turn::Left(name, id),
            Some((wanted, token)) = fetches.next(), if !fetches.is_empty() => Turn::Fetched(wanted, token),
            () = sleep_until(alarm) => Turn::Alarm,
        };
        match turn {
            Turn::Message(message) => self.on_message(message).await,
            Turn::Command(command) => self.on_command(command.ok_or(Error::Gone)?).await,
            Turn::Left(name, id) => {
                if self.driver.forget(&name, id) {
                    self.unsubscribe(name).await?;
                }
                Ok(())
            }
            Turn::Fetched(wanted, token) => self.on_token(wanted, token).await,
            Turn::Alarm => self.on_alarm().await,
        }
    }

    /// Awaits the answer to the first command.
    async fn connected(&mut self, id: u32) -> Result<(), Error> {
        loop {
            let message = self.socket.next().await;
            for reply in self.replies(message)? {
                match reply {
                    Reply { error: Some(error), .. } if reply.id == id => return Err(Error::Refused(error.into())),
                    Reply { connect: Some(connected), .. } if reply.id == id => {
                        let ConnectResult { ping, pong, expires, ttl, .. } = connected;
                        self.silence = (ping > 0).then(|| Duration::from_secs(ping.into()) + LATE);
                        self.pong = pong;
                        self.refresh = renewal(expires, ttl);
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
    }

    /// Reads a message; nothing if it is one of WebSocket's own.
    fn replies(
        &mut self,
        message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    ) -> Result<Vec<Reply>, Error> {
        let Some(message) = message else {
            return Err(Error::Lost("the server ended the connection".into()));
        };
        self.heard = Instant::now();
        match message.map_err(|error| Error::Lost(error.into()))? {
            Message::Binary(bytes) => codec::read(bytes)
                .map_err(|error| Error::Foreign { url: self.driver.endpoint.url().to_owned(), source: error.into() }),
            Message::Close(Some(frame)) => {
                Err(Error::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() })
            }
            Message::Close(None) => Err(Error::Lost("the server closed the connection".into())),
            _ => Ok(Vec::new()),
        }
    }

    async fn on_message(
        &mut self,
        message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    ) -> Result<(), Error> {
        for reply in self.replies(message)? {
            if codec::is_ping(&reply) {
                if self.pong {
                    self.append(&Command::default()).await?;
                }
            } else if let Some(push) = reply.push {
                self.on_push(push).await?;
            } else if let Some((asked, _)) = self.asked.remove(&reply.id) {
                self.on_reply(asked, reply).await?;
            }
        }
        Ok(())
    }

    async fn on_push(&mut self, push: Push) -> Result<(), Error> {
        let Push { channel: name, r#pub, join, leave, unsubscribe, refresh, .. } = push;
        if let Some(refresh) = refresh {
            self.refresh = renewal(refresh.expires, refresh.ttl);
        }
        // What comes for a subscription that is not confirmed is left over from the one before.
        let Some(channel) = self.driver.channels.get_mut(&name).filter(|channel| channel.state == State::Live) else {
            return Ok(());
        };
        if let Some(proto::Unsubscribe { code, reason }) = unsubscribe {
            let error = Arc::new(Error::Unsubscribed { code, reason });
            if code < FIRST_RETURN {
                self.end(&name, error);
                return Ok(());
            }
            channel.interrupted(&error);
            return if channel.state == State::Idle { self.ask(&name).await } else { Ok(()) };
        }
        let kept_up = match (r#pub, join, leave) {
            (Some(publication), ..) => channel.published(publication),
            (_, Some(proto::Join { info: Some(info) }), _) => channel.push(Event::Join(info.into())),
            (.., Some(proto::Leave { info: Some(info) })) => channel.push(Event::Leave(info.into())),
            _ => true,
        };
        if kept_up { Ok(()) } else { self.unsubscribe(name).await }
    }

    async fn on_reply(&mut self, asked: Asked, reply: Reply) -> Result<(), Error> {
        let refused = reply.error.map(Refusal::from);
        match asked {
            Asked::Subscribe(name) => {
                let known = self.driver.channels.get_mut(&name);
                let Some(channel) = known.filter(|channel| channel.state == State::Asked(reply.id)) else {
                    return Ok(());
                };
                if let Some(refusal) = refused {
                    self.not_subscribed(&name, refusal);
                    return Ok(());
                }
                let result = reply.subscribe.unwrap_or_default();
                channel.refresh = renewal(result.expires, result.ttl);
                if !channel.confirmed(result) {
                    self.unsubscribe(name).await?;
                }
            }
            Asked::Publish(answer) => {
                let _ = answer.send(refused.map_or(Ok(()), |refusal| Err(Error::Refused(refusal))));
            }
            Asked::Refresh => match refused {
                None => {
                    let result = reply.refresh.unwrap_or_default();
                    self.refresh = renewal(result.expires, result.ttl);
                }
                Some(_) => self.refresh = Some(Instant::now() + AGAIN),
            },
            Asked::SubRefresh(name) => {
                if let Some(channel) = self.driver.channels.get_mut(&name) {
                    let result = reply.sub_refresh.unwrap_or_default();
                    let again = Some(Instant::now() + AGAIN);
                    channel.refresh = if refused.is_none() { renewal(result.expires, result.ttl) } else { again };
                }
            }
            Asked::Unsubscribe => {}
        }
        Ok(())
    }

    /// A subscription was refused: for the moment, for want of a good token, or for good.
    fn not_subscribed(&mut self, name: &str, refusal: Refusal) {
        let renewable = refusal.code == TOKEN_EXPIRED && self.driver.config.tokens.is_some();
        let Some(channel) = self.driver.channels.get_mut(name) else { return };
        if renewable {
            channel.token = None;
            channel.state = State::Fetching;
            self.fetch(TokenFor::Channel(name.to_owned()));
        } else if refusal.temporary {
            channel.state = State::Waiting(Instant::now() + channel.backoff.next());
        } else {
            self.end(name, Arc::new(Error::Refused(refusal)));
        }
    }

    async fn on_command(&mut self, command: driver::Command) -> Result<(), Error> {
        match command {
            driver::Command::Subscribe { channel, left, answer } => {
                if self.driver.forget_left(&channel.name) {
                    self.unsubscribe(channel.name.clone()).await?;
                }
                if let Some(name) = self.driver.enter(*channel, left, answer) {
                    self.ask(&name).await?;
                }
            }
            driver::Command::Resume { channel, id } => {
                if self.driver.resume(&channel, id) {
                    self.ask(&channel).await?;
                }
            }
            driver::Command::Publish { answer, .. } if self.asked.len() >= MAX_ASKED => {
                let _ = answer.send(Err(Error::Busy));
            }
            driver::Command::Publish { channel, data, answer } => {
                let publish = proto::PublishRequest { channel, data, r#type: 0 };
                let id = self.command(Command { publish: Some(publish), ..Command::default() }).await?;
                self.expect(id, Asked::Publish(answer));
            }
        }
        Ok(())
    }

    async fn on_token(&mut self, wanted: TokenFor, token: Result<String, Error>) -> Result<(), Error> {
        match (wanted, token) {
            (TokenFor::Connection, Ok(token)) => {
                self.driver.token = Some(token.clone());
                let refresh = proto::RefreshRequest { token };
                let id = self.command(Command { refresh: Some(refresh), ..Command::default() }).await?;
                self.expect(id, Asked::Refresh);
            }
            (TokenFor::Connection, Err(_)) => self.refresh = Some(Instant::now() + AGAIN),
            (TokenFor::Channel(name), token) => {
                let Some(channel) = self.driver.channels.get_mut(&name) else { return Ok(()) };
                match (channel.state, token) {
                    (State::Live, Ok(token)) => {
                        channel.token = Some(token.clone());
                        let sub_refresh = proto::SubRefreshRequest { channel: name.clone(), token };
                        let id = self.command(Command { sub_refresh: Some(sub_refresh), ..Command::default() }).await?;
                        self.expect(id, Asked::SubRefresh(name));
                    }
                    (State::Live, Err(_)) => channel.refresh = Some(Instant::now() + AGAIN),
                    (State::Fetching, Ok(token)) => {
                        channel.token = Some(token);
                        self.ask(&name).await?;
                    }
                    (State::Fetching, Err(_)) => channel.state = State::Waiting(Instant::now() + AGAIN),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The next moment at which something is due.
    fn alarm(&self) -> Instant {
        let channels = self.driver.channels.values().flat_map(|channel| {
            let waiting = if let State::Waiting(until) = channel.state { Some(until) } else { None };
            [waiting, channel.refresh]
        });
        let asked = self.asked.first_key_value().map(|(_, (_, deadline))| *deadline);
        let silence = self.silence.map(|silence| self.heard + silence);
        let alarms = channels.chain([asked, silence, self.refresh]).flatten();
        alarms.min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    async fn on_alarm(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.silence.is_some_and(|silence| self.heard + silence <= now) {
            return Err(Error::Lost("nothing was heard from the server".into()));
        }
        if self.asked.first_key_value().is_some_and(|(_, (_, deadline))| *deadline <= now) {
            return Err(Error::Lost("the server does not answer".into()));
        }
        let can_fetch = self.driver.config.tokens.is_some();
        if self.refresh.take_if(|due| *due <= now).is_some() && can_fetch {
            self.fetch(TokenFor::Connection);
        }
        let (mut ask, mut renew) = (Vec::new(), Vec::new());
        for channel in self.driver.channels.values_mut() {
            if matches!(channel.state, State::Waiting(until) if until <= now) {
                ask.push(channel.name.clone());
            }
            if channel.refresh.take_if(|due| *due <= now).is_some() && can_fetch {
                renew.push(channel.name.clone());
            }
        }
        for name in ask {
            self.ask(&name).await?;
        }
        renew.into_iter().for_each(|name| self.fetch(TokenFor::Channel(name)));
        Ok(())
    }

    /// Asks for a subscription.
    async fn ask(&mut self, name: &str) -> Result<(), Error> {
        let Some(channel) = self.driver.channels.get(name) else { return Ok(()) };
        let subscribe = Some(channel.request());
        let id = self.command(Command { subscribe, ..Command::default() }).await?;
        self.expect(id, Asked::Subscribe(name.to_owned()));
        if let Some(channel) = self.driver.channels.get_mut(name) {
            channel.state = State::Asked(id);
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, channel: String) -> Result<(), Error> {
        let unsubscribe = Some(proto::UnsubscribeRequest { channel });
        let id = self.command(Command { unsubscribe, ..Command::default() }).await?;
        self.expect(id, Asked::Unsubscribe);
        Ok(())
    }

    fn end(&mut self, name: &str, error: Arc<Error>) {
        if let Some(channel) = self.driver.channels.remove(name) {
            channel.end(error);
        }
    }

    fn fetch(&mut self, wanted: TokenFor) {
        if let Some(tokens) = self.driver.config.tokens.clone() {
            self.fetches.push(Box::pin(async move { (wanted.clone(), Config::fetch(tokens, wanted).await) }));
        }
    }

    fn expect(&mut self, id: u32, asked: Asked) {
        self.asked.insert(id, (asked, Instant::now() + PATIENCE));
    }

    /// Gives a command its id, and appends it.
    async fn command(&mut self, mut command: Command) -> Result<u32, Error> {
        self.last_id += 1;
        command.id = self.last_id;
        self.append(&command).await?;
        Ok(self.last_id)
    }

    async fn append(&mut self, command: &Command) -> Result<(), Error> {
        if !self.out.is_empty() && self.out.len() + prost::Message::encoded_len(command) > MAX_BATCH {
            self.flush().await?;
        }
        codec::write(command, &mut self.out);
        Ok(())
    }

    /// Sends what was appended.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.out.is_empty() {
            return Ok(());
        }
        let bytes: Bytes = self.out.split().freeze();
        match timeout(PATIENCE, self.socket.send(Message::Binary(bytes))).await {
            Ok(sent) => sent.map_err(|error| Error::Lost(error.into())),
            Err(late) => Err(Error::Lost(late.into())),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for (_, (asked, _)) in std::mem::take(&mut self.asked) {
            if let Asked::Publish(answer) = asked {
                let _ = answer.send(Err(Error::Lost("the connection ended before the answer".into())));
            }
        }
    }
}

impl From<proto::Error> for Refusal {
    fn from(error: proto::Error) -> Self {
        let proto::Error { code, message, temporary } = error;
        Self { code, message, temporary: temporary || code < 100 }
    }
}

/// When to renew what ends after so many seconds: a tenth before, so that the new token is there in time.
fn renewal(expires: bool, ttl: u32) -> Option<Instant> {
    expires.then(|| Instant::now() + Duration::from_secs(ttl.into()).mul_f64(0.9).max(Duration::from_secs(1)))
}
