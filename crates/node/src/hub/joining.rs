//! What is held for subscribers whose history is being read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use fanwire_wire::{Position, Publication};
use tokio::sync::Notify;

use super::{Gap, LocalChannel};

/// Publications held for a subscriber whose history is being read.
#[derive(Debug, Default)]
pub(super) struct Joining {
    held: RefCell<Vec<Arc<Publication>>>,
    overflowed: Cell<bool>,
    /// From where to where the channel has come without what lies between.
    lost: RefCell<Option<(Position, Position)>>,
    /// Something was held.
    moved: Notify,
}

/// The most publications held for one joining subscriber.
const MAX_HELD: usize = 1024;

impl Joining {
    pub(super) fn hold(&self, publication: &Arc<Publication>) {
        let mut held = self.held.borrow_mut();
        if held.len() < MAX_HELD {
            held.push(Arc::clone(publication));
        } else {
            self.overflowed.set(true);
        }
        self.moved.notify_one();
    }

    pub(super) fn lose(&self, from: &Position, top: &Position) {
        self.held.borrow_mut().clear();
        *self.lost.borrow_mut() = Some((from.clone(), top.clone()));
        self.moved.notify_one();
    }

    fn is_outdated(&self, end: &Position) -> bool {
        self.lost.borrow().as_ref().is_some_and(|(from, top)| {
            let behind = end.epoch == top.epoch && end.offset > from.offset.max(top.offset);
            end != top && !behind
        })
    }
}

/// Holds publications as long as it lives.
pub(crate) struct JoinGuard {
    pub(super) channel: Rc<LocalChannel>,
    pub(super) joining: Rc<Joining>,
}

impl JoinGuard {
    /// What came behind `top`, if it continues there without a gap and ends where the channel stands.
    pub(crate) fn behind(&self, top: &Position) -> Option<Vec<Arc<Publication>>> {
        let behind = self.held_behind(top)?;
        (self.channel.stream().position.borrow().as_ref() == Some(end_of(&behind, top))).then_some(behind)
    }

    /// Whether a history that ends at `top` was read before the channel went over something that is lost.
    pub(crate) fn is_outdated(&self, top: &Position) -> bool {
        self.joining.is_outdated(top)
    }

    /// Whether the channel stands where the history read up to `top`, with what came behind it, ends: whatever is dispatched
    /// from then on lies behind both.
    pub(crate) fn meets(&self, top: &Position) -> bool {
        self.behind(top).is_some()
    }

    /// Waits until it does, as long as that can be.
    pub(crate) async fn meet(&self, top: &Position) {
        while !self.meets(top) && self.held_behind(top).is_some() {
            self.joining.moved.notified().await;
        }
    }

    /// Brings a channel that stands behind the place it should have met there: who missed something.
    #[must_use]
    pub(crate) fn catch_up(&self, top: &Position) -> Option<Gap> {
        let behind = self.held_behind(top)?;
        let end = end_of(&behind, top);
        {
            let mut position = self.channel.stream().position.borrow_mut();
            let ahead = |at: &Position| at.epoch == end.epoch && at.offset >= end.offset;
            if position.as_ref().is_some_and(ahead) {
                return None;
            }
            // Nothing can be missed in a channel that begins.
            position.replace(end.clone())?;
        }
        Some(self.channel.gap())
    }

    fn held_behind(&self, top: &Position) -> Option<Vec<Arc<Publication>>> {
        if self.joining.overflowed.get() || self.is_outdated(top) {
            return None;
        }
        let mut offset = top.offset;
        let mut behind = Vec::new();
        for publication in self.joining.held.borrow().iter() {
            let Some(stamp) = &publication.stamp else { continue };
            if stamp.position.epoch == top.epoch && stamp.position.offset <= offset {
                continue;
            }
            if stamp.position.epoch != top.epoch || stamp.prev != offset {
                return None;
            }
            offset = stamp.position.offset;
            behind.push(Arc::clone(publication));
        }
        Some(behind)
    }
}

fn end_of<'a>(behind: &'a [Arc<Publication>], top: &'a Position) -> &'a Position {
    behind.last().and_then(|last| last.stamp.as_ref()).map_or(top, |stamp| &stamp.position)
}

impl Drop for JoinGuard {
    fn drop(&mut self) {
        self.channel.stream().joining.borrow_mut().retain(|joining| !Rc::ptr_eq(joining, &self.joining));
    }
}
