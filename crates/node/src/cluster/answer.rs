//! What a node does when it is asked, by another node or by itself.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_wire::cluster::{Answer, Command, Question};
use fanwire_wire::{Selection, Unsubscribe};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, ready};
use tokio::sync::oneshot::Receiver;

use crate::broker::Revocation;
use crate::{Client, Failure, Node, Worker};

/// The most channels in one answer, whoever asks.
const MAX_LISTED: u32 = 10_000;

impl Node {
    /// Begins with what is asked; what was asked first is begun first. The future resolves to the answer.
    pub(super) async fn answer(self: &Arc<Self>, question: Question) -> BoxFuture<'static, Answer> {
        let node = Arc::clone(self);
        match question {
            Question::Command(command) => {
                let begun = self.begin(command).await;
                join_all(begun).map(|_| Answer::Done).boxed()
            }
            Question::Info => async move { Answer::Info(node.info().await) }.boxed(),
            Question::Channels { pattern, limit, after } => {
                let limit = limit.min(MAX_LISTED);
                async move { Answer::Channels(node.channels_like(&pattern, after.as_ref(), limit).await) }.boxed()
            }
            Question::Connections(query) => {
                async move { Answer::Connections(node.connections_like(&query).await) }.boxed()
            }
            Question::Report { limit } => async move { Answer::Report(node.report(limit).await) }.boxed(),
            Question::Drain { node: meant } => {
                if *meant == *node.id() {
                    node.begin_drain();
                }
                ready(Answer::Done).boxed()
            }
            Question::Rebalance { keep, per_second } => {
                node.move_above(keep, per_second);
                ready(Answer::Done).boxed()
            }
            Question::Unknown => ready(Answer::Unsupported).boxed(),
        }
    }

    /// Gives every worker its part of a command. The command is carried out when all of them have answered.
    pub(super) async fn begin(&self, command: Command) -> Vec<Receiver<()>> {
        match command {
            Command::Subscribe { selection, channel, grant, since } => {
                let subscribe = move |client: Rc<Client>| {
                    let (channel, grant, since) = (channel.clone(), grant.clone(), since.clone());
                    tokio::task::spawn_local(async move {
                        match client.subscribe_by_server(channel, grant, since).await {
                            Err(Failure::Disconnect(disconnect)) => client.close(disconnect),
                            Err(failure) => {
                                tracing::warn!(client = client.id(), ?failure, "server-side subscription failed");
                            }
                            Ok(()) => {}
                        }
                    });
                };
                self.post_clients(selection, subscribe).await
            }
            Command::Unsubscribe { selection, channel } => {
                let unsubscribe = move |client: Rc<Client>| client.unsubscribe_by_server(&channel, Unsubscribe::Server);
                self.post_clients(selection, unsubscribe).await
            }
            Command::Disconnect { selection, disconnect } => {
                self.post_clients(selection, move |client| client.close(disconnect.clone())).await
            }
            Command::Refresh { selection, expire_at } => {
                self.post_clients(selection, move |client| client.set_term_and_tell(expire_at)).await
            }
            Command::Revoke { user, before } => self.apply(vec![Revocation { user: user.into(), before }]).await,
        }
    }

    /// Posts `act` to every worker, for each of its clients that are selected.
    async fn post_clients(
        &self,
        selection: Selection,
        act: impl Fn(Rc<Client>) + Clone + Send + 'static,
    ) -> Vec<Receiver<()>> {
        self.post_workers(move |worker| selected(&selection, worker).into_iter().for_each(&act)).await
    }
}

fn selected(selection: &Selection, worker: &Worker) -> Vec<Rc<Client>> {
    let Selection { user, client: only, except } = selection;
    let wanted = |client: &Rc<Client>| {
        let id = client.id();
        client.is_somebody() && only.as_ref().is_none_or(|only| *only == id) && !except.contains(&id)
    };
    worker.clients_of(user).into_iter().filter(wanted).collect()
}
