//! What a node does when it is asked, by another node or by itself.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_wire::cluster::{Answer, ChannelList, Command, Question};
use fanwire_wire::pattern::matches;
use fanwire_wire::{Channel, Selection, Unsubscribe};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, ready};
use tokio::sync::oneshot::Receiver;

use crate::broker::Revocation;
use crate::{Client, Failure, Node, Worker};

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
            Question::Channels { pattern, limit } => {
                async move { Answer::Channels(node.channels_like(&pattern, limit).await) }.boxed()
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

    /// The first of this node's channels with names of a form.
    pub(super) async fn channels_like(&self, pattern: &str, limit: u32) -> ChannelList {
        let limit = limit as usize;
        let like = |(channel, _): &(Channel, usize)| matches(pattern, channel.as_str());
        let mut channels: Vec<_> = self.channels().await.into_iter().filter(like).collect();
        let more = channels.len() > limit;
        channels.truncate(limit);
        ChannelList {
            channels: channels.into_iter().map(|(channel, members)| (channel, members as u64)).collect(),
            more,
        }
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
