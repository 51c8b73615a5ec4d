//! The connections of all nodes, page by page.

use std::rc::Rc;

use fanwire_wire::Refusal;
use fanwire_wire::cluster::{Answer, Connection, ConnectionList, ConnectionQuery, Question};
use futures_util::future::join;

use super::Missing;
use crate::{Client, Node, Worker, id};

/// A page of the connections of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSurvey {
    /// In the order of their ids, each with the id of its node.
    pub connections: Vec<(String, Connection)>,
    /// Whether there are more, with ids behind the last one.
    pub more: bool,
    /// Who did not answer.
    pub missing: Missing,
}

impl Node {
    /// Asks all nodes for their connections: the first ones behind `query.after`, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Code 107 if `query.after` is not the id of a connection. Code 111 if too much has been asked of the others already.
    pub async fn survey_connections(&self, query: ConnectionQuery) -> Result<ConnectionSurvey, Refusal> {
        if !query.after.is_empty() && id::parse(&query.after).is_none() {
            return Err(Refusal::BadRequest);
        }
        let open = self.dispatcher().inbox().open()?;
        let limit = query.limit as usize;
        let question = Question::Connections(query.clone());
        let (own, asked) = join(self.connections_like(&query), self.ask(open, question)).await;
        let others = asked.answers.into_iter().filter_map(|(node, answer)| match answer {
            Answer::Connections(list) => Some((node, list)),
            _ => None,
        });
        let (connections, more) = merge(others.chain([(self.id().to_owned(), own)]), limit);
        Ok(ConnectionSurvey { connections, more, missing: asked.missing })
    }

    /// This node's part.
    pub(super) async fn connections_like(&self, query: &ConnectionQuery) -> ConnectionList {
        let limit = query.limit as usize;
        let wanted = query.clone();
        let mut all: Vec<_> = self.ask_workers(move |worker| page(worker, &wanted)).await.concat();
        all.sort_unstable_by(|one, other| one.client.cmp(&other.client));
        // Each worker gave one more than there is room for, if it has more.
        let more = all.len() > limit;
        all.truncate(limit);
        ConnectionList { connections: all, more }
    }
}

/// The first connections of a worker, and one more. Looks at all of them: a matter of milliseconds for 100,000.
fn page(worker: &Rc<Worker>, query: &ConnectionQuery) -> Vec<Connection> {
    let after = id::parse(&query.after);
    let clients = query.user.as_ref().map_or_else(|| worker.clients(), |user| worker.clients_of(user));
    let wanted = |client: &Rc<Client>| {
        client.is_somebody()
            && after.is_none_or(|after| *client.id_bytes() > after)
            && query.channel.as_ref().is_none_or(|channel| client.is_subscribed(channel))
    };
    let mut clients: Vec<_> = clients.into_iter().filter(wanted).collect();
    let room = (query.limit as usize).saturating_add(1);
    if clients.len() > room {
        clients.select_nth_unstable_by_key(room, |client| *client.id_bytes());
        clients.truncate(room);
    }
    let connection = |client: &Rc<Client>| Connection {
        client: client.id(),
        user: client.user().to_string(),
        protocol: client.protocol().to_owned(),
        subscriptions: client.subscription_count() as u64,
    };
    clients.iter().map(connection).collect()
}

/// Joins the pages of several nodes. Behind the end of one that is cut off, that node's part would be missing: the page ends
/// there, too.
fn merge(pages: impl Iterator<Item = (String, ConnectionList)>, limit: usize) -> (Vec<(String, Connection)>, bool) {
    let mut end: Option<String> = None;
    let mut all = Vec::new();
    for (node, page) in pages {
        if page.more
            && let Some(last) = page.connections.last()
            && end.as_ref().is_none_or(|end| last.client < *end)
        {
            end = Some(last.client.clone());
        }
        all.extend(page.connections.into_iter().map(|connection| (node.clone(), connection)));
    }
    all.sort_unstable_by(|(_, one), (_, other)| one.client.cmp(&other.client));
    let within =
        all.iter().take_while(|(_, connection)| end.as_ref().is_none_or(|end| connection.client <= *end)).count();
    let more = end.is_some() || within > limit;
    all.truncate(within.min(limit));
    (all, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(ids: &[&str], more: bool) -> ConnectionList {
        let connection = |client: &&str| Connection {
            client: (*client).to_owned(),
            user: String::new(),
            protocol: String::new(),
            subscriptions: 0,
        };
        ConnectionList { connections: ids.iter().map(connection).collect(), more }
    }

    fn merged(pages: &[ConnectionList], limit: usize) -> (String, bool) {
        let (connections, more) = merge(pages.iter().cloned().map(|page| ("node".to_owned(), page)), limit);
        (connections.iter().map(|(_, connection)| &*connection.client).collect(), more)
    }

    #[test]
    fn pages_are_joined() {
        for (pages, limit, expected) in [
            (vec![page_of(&["a", "c"], false), page_of(&["b", "d"], false)], 9, ("abcd", false)),
            (vec![page_of(&["a", "c"], false), page_of(&["b", "d"], false)], 4, ("abcd", false)),
            (vec![page_of(&["a", "c"], false), page_of(&["b", "d"], false)], 3, ("abc", true)),
            (vec![page_of(&["a", "b"], true), page_of(&["c", "d"], false)], 9, ("ab", true)),
            (vec![page_of(&["a", "d"], true), page_of(&["b", "c"], true)], 9, ("abc", true)),
            (vec![page_of(&[], false)], 9, ("", false)),
        ] {
            assert_eq!(merged(&pages, limit), (expected.0.to_owned(), expected.1), "{pages:?}");
        }
    }
}
