//! How many different users a node has.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

/// The users with connections on this node, over all its workers. Bounded by the connections. Its locks are leaves.
pub(crate) struct Users {
    shards: Box<[Mutex<Connections>]>,
    hasher: RandomState,
}

/// How many connections each user has.
type Connections = HashMap<Arc<str>, usize>;

const SHARDS: usize = 16;

impl Users {
    pub(crate) fn add(&self, user: &Arc<str>) {
        *self.shard(user).lock().entry(Arc::clone(user)).or_default() += 1;
    }

    pub(crate) fn remove(&self, user: &str) {
        let mut shard = self.shard(user).lock();
        let Some(connections) = shard.get_mut(user) else { return };
        *connections -= 1;
        if *connections == 0 {
            shard.remove(user);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, user: &str) -> &Mutex<Connections> {
        &self.shards[self.hasher.hash_one(user) as usize % SHARDS]
    }
}

impl Default for Users {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_counts_once_however_many_connections_it_has() {
        let users = Users::default();
        let (ann, nobody): (Arc<str>, Arc<str>) = ("ann".into(), "".into());
        for user in [&ann, &ann, &nobody] {
            users.add(user);
        }
        assert_eq!(users.len(), 2);
        users.remove("ann");
        users.remove("never seen");
        assert_eq!(users.len(), 2);
        users.remove("ann");
        users.remove("");
        assert_eq!(users.len(), 0);
    }
}
