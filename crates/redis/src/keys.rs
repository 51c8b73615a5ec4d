//! The names of keys and pub/sub channels.

use fanwire_wire::Channel;

/// Makes names under the configured prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The pub/sub channel of a channel.
    pub(crate) fn channel(&self, channel: &Channel) -> String {
        format!("{}:channel:{channel}", self.prefix)
    }

    /// The channel that a pub/sub channel carries.
    pub(crate) fn channel_of(&self, name: &str) -> Option<Channel> {
        let name = name.strip_prefix(&*self.prefix)?.strip_prefix(":channel:")?;
        Channel::new(name).ok()
    }

    /// The pub/sub channel on which a node hears itself.
    pub(crate) fn node(&self, node: &str) -> String {
        format!("{}:node:{node}", self.prefix)
    }

    /// Epoch, top and last incarnation of a stream.
    pub(crate) fn meta(&self, channel: &Channel) -> String {
        format!("{}:meta:{channel}", self.prefix)
    }

    /// The publications kept.
    pub(crate) fn stream(&self, channel: &Channel) -> String {
        format!("{}:stream:{channel}", self.prefix)
    }

    /// What came of a publication with an idempotency key. No channel contains `{`.
    pub(crate) fn result(&self, channel: &Channel, key: &str) -> String {
        format!("{}:result:{channel}{{{key}", self.prefix)
    }

    /// Who is listed in a channel.
    pub(crate) fn members(&self, channel: &Channel) -> String {
        format!("{}:members:{channel}", self.prefix)
    }

    /// How many of each user's connections are listed in a channel.
    pub(crate) fn users(&self, channel: &Channel) -> String {
        format!("{}:users:{channel}", self.prefix)
    }

    /// How many of each user's connections are announced per user in a channel.
    pub(crate) fn joined(&self, channel: &Channel) -> String {
        format!("{}:joined:{channel}", self.prefix)
    }

    /// The nodes' signs of life.
    pub(crate) fn signs(&self) -> String {
        format!("{}:signs", self.prefix)
    }

    /// The nodes' seals.
    pub(crate) fn fence(&self) -> String {
        format!("{}:fence", self.prefix)
    }

    /// The clients a node answers for.
    pub(crate) fn index(&self, node: &str) -> String {
        format!("{}:index:{node}", self.prefix)
    }

    /// Exists for a while after a node was condemned.
    pub(crate) fn condemned(&self, node: &str) -> String {
        format!("{}:condemned:{node}", self.prefix)
    }
}

/// A short random word of letters and digits.
pub(crate) fn random_word() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
    random_bytes::<10>().iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// A random number from 0 to 1.
pub(crate) fn random_share() -> f64 {
    f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX)
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's source of randomness answers");
    bytes
}
