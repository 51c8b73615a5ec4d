//! What a node asks of all nodes, itself included, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanwire_wire::cluster::{Answer, Command, Control, ControlBody, Question, Report};
use fanwire_wire::{Channel, Disconnect, Position, Refusal, Selection};
use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout_at};

use super::NodeView;
use super::inbox::OpenQuestion;
use super::metrics::Outcome;
use crate::Node;
use crate::authorizer::Grant;
use crate::broker::{Error, Recipient};

/// The nodes that something did not reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The ids of those that are there and did not answer in time.
    pub silent: Vec<String>,
    /// The ids of those whose version does not know what was asked.
    pub unsupported: Vec<String>,
    /// The broker did not carry the question: there may be nodes that this one does not see.
    pub unasked: bool,
}

/// What the nodes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSurvey {
    /// Every node; those that did not answer with what they had announced before.
    pub nodes: Vec<NodeView>,
    /// Who did not answer.
    pub missing: Missing,
}

/// What stands out on the nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportSurvey {
    /// By node; this one first.
    pub reports: Vec<NodeReport>,
    /// Who did not answer.
    pub missing: Missing,
}

/// What stands out on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// Its id.
    pub node: String,
    /// What does.
    pub report: Report,
}

/// How long the other nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Missing {
    /// Adds those that something else did not reach.
    pub(super) fn merge(&mut self, other: Self) {
        let sum = |mut one: Vec<String>, other: Vec<String>| {
            one.extend(other);
            one.sort_unstable();
            one.dedup();
            one
        };
        *self = Self {
            silent: sum(std::mem::take(&mut self.silent), other.silent),
            unsupported: sum(std::mem::take(&mut self.unsupported), other.unsupported),
            unasked: self.unasked || other.unasked,
        };
    }

    /// Whether all nodes answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Node {
    /// Subscribes a user's connections to a channel, on all nodes.
    ///
    /// # Errors
    ///
    /// Code 102; what goes wrong for a single connection ends or spares that one. Else those of [`Node::disconnect`].
    pub async fn subscribe(
        &self,
        selection: Selection,
        channel: Channel,
        grant: Grant,
        since: Option<Position>,
    ) -> Result<Missing, Refusal> {
        self.namespace(&channel).ok_or(Refusal::UnknownChannel)?;
        self.command(Command::Subscribe { selection, channel, grant, since }).await
    }

    /// Ends the subscriptions of a user's connections to a channel, on all nodes.
    ///
    /// # Errors
    ///
    /// Those of [`Node::disconnect`].
    pub async fn unsubscribe(&self, selection: Selection, channel: Channel) -> Result<Missing, Refusal> {
        self.command(Command::Unsubscribe { selection, channel }).await
    }

    /// Ends a user's connections, on all nodes.
    ///
    /// # Errors
    ///
    /// [`Refusal::OutcomeUnknown`] if it is done on this node, and the others may not have been told. Code 111 if nothing is
    /// done: too much has been asked of the others already.
    pub async fn disconnect(&self, selection: Selection, disconnect: Disconnect) -> Result<Missing, Refusal> {
        self.command(Command::Disconnect { selection, disconnect }).await
    }

    /// Gives a user's connections on all nodes a new term, in seconds of Unix time; `None` for ever.
    ///
    /// # Errors
    ///
    /// Those of [`Node::disconnect`].
    pub async fn refresh(&self, selection: Selection, expire_at: Option<u64>) -> Result<Missing, Refusal> {
        self.command(Command::Refresh { selection, expire_at }).await
    }

    /// Asks all nodes what they have.
    ///
    /// # Errors
    ///
    /// Code 111 if too much has been asked of the others already.
    pub async fn survey_nodes(&self) -> Result<NodeSurvey, Refusal> {
        let mut asked = self.ask(self.dispatcher().inbox().open()?, Question::Info).await;
        let mut nodes = self.nodes().await;
        for node in &mut nodes[1..] {
            node.silent = asked.missing.silent.contains(&node.id);
            if let Some(Answer::Info(info)) = asked.answers.remove(&node.id) {
                (node.info, node.age) = (info, Duration::ZERO);
            }
        }
        // Heard for the first time while the answers came in.
        for (id, answer) in asked.answers {
            if let Answer::Info(info) = answer {
                nodes.push(NodeView { id, info, age: Duration::ZERO, silent: false });
            }
        }
        Ok(NodeSurvey { nodes, missing: asked.missing })
    }

    /// Asks all nodes what stands out on them, with at most `limit` entries in each list ([`Node::report`]).
    ///
    /// # Errors
    ///
    /// Code 111 if too much has been asked of the others already.
    pub async fn survey_reports(&self, limit: u32) -> Result<ReportSurvey, Refusal> {
        let open = self.dispatcher().inbox().open()?;
        let (own, asked) = join(self.report(limit), self.ask(open, Question::Report { limit })).await;
        let others = asked.answers.into_iter().filter_map(|(node, answer)| match answer {
            Answer::Report(report) => Some(NodeReport { node, report }),
            _ => None,
        });
        let own = NodeReport { node: self.id().to_owned(), report: own };
        Ok(ReportSurvey { reports: [own].into_iter().chain(others).collect(), missing: asked.missing })
    }

    pub(crate) async fn command(&self, command: Command) -> Result<Missing, Refusal> {
        let open = self.dispatcher().inbox().open()?;
        let here = async { join_all(self.begin(command.clone()).await).await };
        let (_, asked) = join(here, self.ask(open, Question::Command(command.clone()))).await;
        match asked.error {
            None => Ok(asked.missing),
            Some(error) => {
                self.broker_failed(&error);
                // It is done here, and perhaps elsewhere.
                Err(Refusal::OutcomeUnknown)
            }
        }
    }

    /// Asks all other nodes what has no answer but that it is done. Returns whom it did not reach, and why if it was not
    /// carried at all.
    pub(crate) async fn ask_all(&self, question: Question) -> Result<(Missing, Option<Error>), Refusal> {
        let Asked { missing, error, .. } = self.ask(self.dispatcher().inbox().open()?, question).await;
        Ok((missing, error))
    }

    /// Asks all other nodes, and waits for those known to be there, but not for long.
    pub(super) async fn ask(&self, mut open: OpenQuestion<'_>, question: Question) -> Asked {
        let cluster = self.cluster();
        let kind = question.kind();
        let deadline = Instant::now() + PATIENCE;
        let mut waiting = cluster.registry.lock().ids();
        let request = ControlBody::Request { number: open.number, question };
        let control = Control { from: self.id().to_owned(), body: request };
        let told = timeout_at(deadline, self.broker().tell(Recipient::All, control)).await;
        let mut told = told.unwrap_or(Err(Error::OutcomeUnknown));
        if told.is_ok() && cluster.registry.lock().is_isolated() {
            // Sent; but whoever carried it out is not heard here.
            told = Err(Error::OutcomeUnknown);
        }
        let mut answers = BTreeMap::new();
        while !waiting.is_empty() && !matches!(told, Err(Error::Unavailable(_))) {
            let Ok(Some((id, answer))) = timeout_at(deadline, open.answers.recv()).await else { break };
            cluster.metrics.answered();
            cluster.registry.lock().heard(&id);
            waiting.remove(&id);
            answers.insert(id, answer);
        }
        // Who answered was told, and if all did it does not matter what the broker knows about it.
        if waiting.is_empty() && !answers.is_empty() {
            told = Ok(());
        }
        let missing = self.missing(kind, &answers, waiting, told.is_err());
        let outcome = match &told {
            Err(_) => Outcome::Failed,
            Ok(()) if missing.is_empty() => Outcome::Complete,
            Ok(()) => Outcome::Partial,
        };
        cluster.metrics.asked(outcome);
        Asked { answers, missing, error: told.err() }
    }

    fn missing(
        &self,
        kind: &str,
        answers: &BTreeMap<String, Answer>,
        mut waiting: BTreeSet<String>,
        unasked: bool,
    ) -> Missing {
        let mut registry = self.cluster().registry.lock();
        // Who has left meanwhile has nothing more to answer.
        let there = registry.ids();
        waiting.retain(|id| there.contains(id));
        if !unasked {
            waiting.iter().for_each(|id| registry.silent(id, kind));
        }
        let unsupported = answers.iter().filter(|(_, answer)| **answer == Answer::Unsupported);
        let unsupported: Vec<_> = unsupported.map(|(id, _)| id.clone()).collect();
        unsupported.iter().for_each(|id| registry.outdated(id, kind));
        Missing { silent: waiting.into_iter().collect(), unsupported, unasked }
    }
}

/// What came of a question.
pub(super) struct Asked {
    /// By node.
    pub(super) answers: BTreeMap<String, Answer>,
    pub(super) missing: Missing,
    /// Why the other nodes were not asked, or may not have been.
    error: Option<Error>,
}
