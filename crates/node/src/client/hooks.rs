//! What a backend decides about a client.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Channel, Disconnect, Payload, Refusal, Unsubscribe};

use super::lifecycle::{ConnectRequest, seconds};
use super::rights::Right;
use super::{Client, Failure};
use crate::clock;
use crate::hooks::{Asked, Asker, Hooks, Introduction, Renewal, Welcome};
use crate::node::Publish;
use crate::subscription::{Origin, Subscription};

/// How long something goes on whose backend is silent, until it is asked again; up to half as much again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes of headers kept that a client told in its own protocol.
const MAX_CLIENT_HEADERS: usize = 8 * 1024;

impl Client {
    /// Keeps what the client's opening request said, as far as hooks have a use for it ([`Hooks::keeps`]).
    pub fn introduce(&self, headers: Vec<(String, String)>) {
        if !headers.is_empty() {
            *self.introduction.borrow_mut() = Some(Arc::new(Introduction { headers, ..Introduction::default() }));
        }
    }

    /// Passes a call on to the backend; returns what that answers.
    ///
    /// # Errors
    ///
    /// Code 108 if no hook has the method, 100 if the backend does not answer, and whatever it answers in place of a result.
    pub async fn rpc(self: &Rc<Self>, method: String, payload: Option<Payload>) -> Result<Option<Payload>, Failure> {
        let node = Arc::clone(self.worker.node());
        let hook = node.rpc_hook(&method).ok_or(Refusal::NotAvailable)?;
        self.wait(self.hooks()?.rpc(&hook, self.asker(), method, payload)).await
    }

    /// Finds out who the client is: by its token, or from the backend. The latter renews by itself, so no term is told.
    pub(super) async fn welcome(self: &Rc<Self>, request: &mut ConnectRequest) -> Result<(Welcome, bool), Failure> {
        let node = Arc::clone(self.worker.node());
        let config = node.config();
        let hook = &config.client.connect_hook;
        let by_hook = request.token.is_empty() && !hook.is_empty();
        self.keep_headers(std::mem::take(&mut request.headers))?;
        let welcome = if by_hook {
            let asked = self.hooks()?.connect(hook, self.asker(), std::mem::take(&mut request.question));
            let mut welcome = self.wait(asked).await.map_err(|failure| match failure {
                // Without an answer nobody is refused for good: who comes back is asked about again.
                Failure::Refusal(Refusal::BackendUnavailable) => Disconnect::ServerError.into(),
                failure => failure,
            })?;
            // The backend vouches for it as a token made at this moment would.
            welcome.identity.issued_at = Some(clock::unix_ms() / 1000);
            if welcome.meta.is_some() {
                let mut introduction = self.introduction.borrow_mut();
                Arc::make_mut(introduction.get_or_insert_default()).meta.clone_from(&welcome.meta);
            }
            welcome
        } else {
            Welcome { identity: self.identify(&request.token).await?, ..Welcome::default() }
        };
        Ok((welcome, !by_hook && config.client.refresh_hook.is_empty()))
    }

    /// Asks the backend whether the client may subscribe.
    pub(super) async fn ask_to_subscribe(
        self: &Rc<Self>,
        hook: &str,
        channel: &Channel,
        data: Option<Payload>,
    ) -> Result<Right, Failure> {
        let asked = self.hooks()?.subscribe(hook, self.asker(), channel.clone(), data);
        Ok(Right { grant: self.wait(asked).await?, ..Right::of(Origin::Hook) })
    }

    /// Asks the backend whether the client may publish, and changes the publication as it says.
    pub(super) async fn ask_to_publish(self: &Rc<Self>, hook: &str, publish: &mut Publish) -> Result<(), Failure> {
        let (channel, payload) = (publish.channel.clone(), publish.payload.clone());
        let approval = self.wait(self.hooks()?.publish(hook, self.asker(), channel, payload)).await?;
        if let Some(payload) = approval.payload {
            publish.payload = payload;
        }
        publish.skip_history = approval.skip_history;
        publish.tags = approval.tags.into();
        publish.idempotency_key = approval.idempotency_key;
        Ok(())
    }

    /// Asks the backend whether the connection goes on, in a task.
    pub(super) fn renew(self: &Rc<Self>) {
        self.timers.expires.set(self.patience());
        let config = self.worker.node().config();
        let Ok(hooks) = self.hooks() else { return };
        let (client, asked) = (Rc::clone(self), hooks.refresh(&config.client.refresh_hook, self.asker()));
        tokio::task::spawn_local(async move {
            let answer = asked.await;
            if !client.is_connected() {
                return;
            }
            match lasting(answer) {
                Ok(Renewal::Until { expire_at, info }) => {
                    if info.is_some() {
                        *client.info.borrow_mut() = info.map(Box::new);
                    }
                    client.timers.expires.set(client.worker.second_of(expire_at));
                    client.schedule();
                }
                Ok(Renewal::Expired) => client.close(Disconnect::Expired),
                Err(Failure::Disconnect(disconnect)) => client.close(disconnect),
                Err(failure) => tracing::debug!(client = client.id(), ?failure, "connection not renewed yet"),
            }
        });
    }

    /// Asks the backend whether a subscription goes on, in a task.
    pub(super) fn renew_subscription(self: &Rc<Self>, subscription: &Rc<Subscription>) {
        let channel = subscription.channel.name.clone();
        let hook = self.worker.node().namespace(&channel).map(|namespace| namespace.sub_refresh_hook.clone());
        let (Some(hook), Ok(hooks)) = (hook.filter(|hook| !hook.is_empty()), self.hooks()) else {
            return self.end_subscription(subscription, Unsubscribe::Expired);
        };
        subscription.set_expires(self.patience());
        let asked = hooks.sub_refresh(&hook, self.asker(), channel);
        let (client, subscription) = (Rc::clone(self), Rc::clone(subscription));
        tokio::task::spawn_local(async move {
            let answer = asked.await;
            if subscription.has_left() {
                return;
            }
            match lasting(answer) {
                Ok(Renewal::Until { expire_at, info }) => {
                    if info.is_some() {
                        subscription.set_info(info);
                    }
                    subscription.set_expires(client.worker.second_of(expire_at));
                    client.schedule_end(&subscription);
                }
                Ok(Renewal::Expired) => client.end_subscription(&subscription, Unsubscribe::Expired),
                Err(Failure::Disconnect(disconnect)) => client.close(disconnect),
                Err(failure) => tracing::debug!(client = client.id(), ?failure, "subscription not renewed yet"),
            }
        });
    }

    /// Waits for an answer. The client's messages wait meanwhile, so that it is not blamed for pongs that nobody reads.
    async fn wait<T>(self: &Rc<Self>, asked: Asked<T>) -> Result<T, Failure> {
        self.asking.set(true);
        let answer = asked.await;
        self.asking.set(false);
        if self.timers.pinged.get() != 0 {
            self.timers.pinged.set(self.worker.second());
        }
        if self.is_closed() { Err(Disconnect::ConnectionClosed.into()) } else { answer }
    }

    fn hooks(&self) -> Result<&dyn Hooks, Refusal> {
        self.worker.node().hooks().ok_or(Refusal::BackendUnavailable)
    }

    fn asker(&self) -> Asker {
        Asker {
            client: self.id(),
            user: self.user(),
            dialect: self.session.dialect(),
            introduction: self.introduction.borrow().clone(),
        }
    }

    /// Keeps those headers that some hook wants of what the client says in its own protocol.
    fn keep_headers(&self, headers: Vec<(String, String)>) -> Result<(), Disconnect> {
        let Ok(hooks) = self.hooks() else { return Ok(()) };
        let wanted = hooks.keeps();
        let mut kept: Vec<_> = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        kept.retain(|(name, _)| wanted.client_headers.contains(name));
        if kept.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_CLIENT_HEADERS {
            return Err(Disconnect::BadRequest);
        }
        if !kept.is_empty() {
            let mut introduction = self.introduction.borrow_mut();
            Arc::make_mut(introduction.get_or_insert_default()).client_headers = kept;
        }
        Ok(())
    }

    /// When to ask again if no answer comes: spread, for a backend that is back is not to be asked by all at once.
    fn patience(&self) -> u32 {
        let patience = seconds(PATIENCE);
        self.worker.second() + patience + self.outlet.key.get() % (patience / 2)
    }
}

/// A term that is over already is none.
fn lasting(answer: Result<Renewal, Failure>) -> Result<Renewal, Failure> {
    answer.map(|renewal| match renewal {
        Renewal::Until { expire_at: Some(at), .. } if clock::seconds_until(at) == 0 => Renewal::Expired,
        renewal => renewal,
    })
}
