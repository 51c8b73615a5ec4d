//! The channels of all nodes, page by page.

use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use fanwire_wire::cluster::{Answer, ChannelList, Question};
use fanwire_wire::pattern::matches;
use fanwire_wire::{Channel, Refusal};
use futures_util::future::{join, try_join_all};

use super::Missing;
use crate::{Node, Worker};

/// Which channels are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelQuery {
    /// The forms of their names: `*` stands for any text. Each is a question of its own.
    pub patterns: Vec<String>,
    /// Only those behind this one, in the order of their names.
    pub after: Option<Channel>,
    /// The most channels in the answer.
    pub limit: u32,
}

/// A page of the channels of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSurvey {
    /// In the order of their names, each with its subscribers on the nodes that answered.
    pub channels: Vec<(Channel, u64)>,
    /// Whether there are more, with names behind the last one.
    pub more: bool,
    /// Who did not answer.
    pub missing: Missing,
}

impl Node {
    /// Asks all nodes for their channels with subscribers: the first ones behind `query.after`. What is listed is counted on all
    /// that answered.
    ///
    /// # Errors
    ///
    /// Code 111 if too much has been asked of the others already.
    pub async fn survey_channels(&self, query: ChannelQuery) -> Result<ChannelSurvey, Refusal> {
        let ChannelQuery { patterns, after, limit } = query;
        let questions = patterns.iter().map(|pattern| self.ask_for_channels(pattern, after.as_ref(), limit));
        let mut missing = Missing::default();
        let mut lists = Vec::with_capacity(patterns.len());
        for (list, unheard) in try_join_all(questions).await? {
            missing.merge(unheard);
            lists.push(list);
        }
        // A channel of two forms is counted in full in both lists.
        let ChannelList { channels, more } = merge(lists, limit, |one, other| one.max(other));
        Ok(ChannelSurvey { channels, more, missing })
    }

    async fn ask_for_channels(
        &self,
        pattern: &str,
        after: Option<&Channel>,
        limit: u32,
    ) -> Result<(ChannelList, Missing), Refusal> {
        let open = self.dispatcher().inbox().open()?;
        let question = Question::Channels { pattern: pattern.to_owned(), limit, after: after.cloned() };
        let (own, asked) = join(self.channels_like(pattern, after, limit), self.ask(open, question)).await;
        let others = asked.answers.into_values().filter_map(|answer| match answer {
            Answer::Channels(list) => Some(list),
            _ => None,
        });
        Ok((merge(others.chain([own]), limit, |one, other| one + other), asked.missing))
    }

    /// This node's part.
    pub(super) async fn channels_like(&self, pattern: &str, after: Option<&Channel>, limit: u32) -> ChannelList {
        let (pattern, after) = (pattern.to_owned(), after.cloned());
        let pages = self.ask_workers(move |worker| page(worker, &pattern, after.as_ref(), limit)).await;
        merge(pages, limit, |one, other| one + other)
    }
}

/// The first channels of a worker. Looks at all of them, and holds no more than it answers.
fn page(worker: &Rc<Worker>, pattern: &str, after: Option<&Channel>, limit: u32) -> ChannelList {
    let mut first = BinaryHeap::new();
    let mut more = false;
    worker.hub().for_each_channel(|channel, members| {
        if after.is_some_and(|after| channel <= after) || !matches(pattern, channel.as_str()) {
            return;
        }
        first.push((channel.clone(), members as u64));
        if first.len() > limit as usize {
            first.pop();
            more = true;
        }
    });
    ChannelList { channels: first.into_sorted_vec(), more }
}

/// Joins lists. Behind the end of one that is cut off, counts would lack its part: the whole ends there, too.
fn merge(lists: impl IntoIterator<Item = ChannelList>, limit: u32, join: impl Fn(u64, u64) -> u64) -> ChannelList {
    let mut all: BTreeMap<Channel, u64> = BTreeMap::new();
    let mut end: Option<Channel> = None;
    for list in lists {
        if list.more {
            let last = list.channels.last().map(|(channel, _)| channel.clone());
            end = match (end, last) {
                (Some(end), Some(last)) => Some(end.min(last)),
                (end, last) => end.or(last),
            };
        }
        for (channel, members) in list.channels {
            all.entry(channel).and_modify(|known| *known = join(*known, members)).or_insert(members);
        }
    }
    let inside = |(channel, _): &(Channel, u64)| end.as_ref().is_none_or(|end| channel <= end);
    let mut channels: Vec<_> = all.into_iter().filter(inside).collect();
    let more = end.is_some() || channels.len() > limit as usize;
    channels.truncate(limit as usize);
    ChannelList { channels, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(channels: &[(&str, u64)], more: bool) -> ChannelList {
        let channel = |(name, members): &(&str, u64)| (Channel::new(name).unwrap(), *members);
        ChannelList { channels: channels.iter().map(channel).collect(), more }
    }

    fn sum<const N: usize>(lists: [ChannelList; N], limit: u32) -> ChannelList {
        merge(lists, limit, |one, other| one + other)
    }

    #[test]
    fn lists_are_added_up() {
        let lists = || [list(&[("a", 1), ("c", 2)], false), list(&[("b", 4), ("c", 8)], false), list(&[], false)];
        assert_eq!(sum(lists(), 3), list(&[("a", 1), ("b", 4), ("c", 10)], false));
        assert_eq!(sum(lists(), 2), list(&[("a", 1), ("b", 4)], true));
        let one_channel_twice = merge(lists(), 9, |one, other| one.max(other));
        assert_eq!(one_channel_twice, list(&[("a", 1), ("b", 4), ("c", 8)], false));
    }

    #[test]
    fn what_is_listed_is_counted_everywhere() {
        let lists = [list(&[("a", 1), ("b", 2)], true), list(&[("a", 1), ("c", 8)], false)];
        assert_eq!(sum(lists, 9), list(&[("a", 2), ("b", 2)], true));
        let lists = [list(&[("a", 1), ("d", 2)], true), list(&[("b", 1), ("c", 8)], true)];
        assert_eq!(sum(lists, 9), list(&[("a", 1), ("b", 1), ("c", 8)], true));
    }
}
