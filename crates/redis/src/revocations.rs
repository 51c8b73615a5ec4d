//! Revocations: one stream for all users, read on by every node.

use std::time::Duration;

use fanwire_node::broker::{Error, Kept, Revocation};
use redis::Value;

use crate::answers::{field, items, number, text};
use crate::partitions::Partition;
use crate::store::{Store, unexpected};

/// The most entries; a user that is revoked again and again has several.
const MAX_ENTRIES: u64 = 200_000;

/// The entries read at once.
const PAGE: usize = 1000;

impl Store {
    /// Appends a revocation, and drops those that nobody needs any more.
    pub(crate) async fn revoke(&self, revocation: &Revocation, keep: Duration) -> Result<(), Error> {
        let key = self.keys.revocations();
        let mut length = redis::cmd("XLEN");
        length.arg(&key);
        if number(self.commands.command(Partition::NODES, &length).await?).unwrap_or(0) >= MAX_ENTRIES {
            return Err(Error::Unavailable("too many revocations are kept".into()));
        }
        let millis = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let oldest = fanwire_node::clock::unix_ms().saturating_sub(millis);
        let mut append = redis::cmd("XADD");
        append
            .arg(&key)
            .arg("MINID")
            .arg(oldest)
            .arg("*")
            .arg("u")
            .arg(&*revocation.user)
            .arg("b")
            .arg(revocation.before);
        self.commands.command(Partition::NODES, &append).await?;
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&key).arg(millis.clamp(1, MAX_PEXPIRE));
        // What was not told to expire yet does with the next one.
        let _ = self.commands.command(Partition::NODES, &expire).await;
        Ok(())
    }

    /// Reads the entries behind the one with this id.
    pub(crate) async fn revocations(&self, place: &str) -> Result<Kept, Error> {
        let key = self.keys.revocations();
        let range = |command, from: &str, to: &str, count: usize| {
            let mut range = redis::cmd(command);
            range.arg(&key).arg(from).arg(to).arg("COUNT").arg(count);
            (Partition::NODES, range)
        };
        let start = if place.is_empty() { "-".to_owned() } else { format!("({place}") };
        let questions = [range("XRANGE", &start, "+", PAGE), range("XREVRANGE", "+", "-", 1)];
        let mut answers = self.commands.batch(&questions).await.into_iter();
        let mut answer = || answers.next().unwrap_or(Err(Error::OutcomeUnknown)).map(items);
        let (entries, latest) = (answer()?, answer()?);
        // A stream that ends before the place has lost it: it is another one, and read from its beginning.
        let end = latest.into_iter().next().and_then(|entry| text(items(entry).into_iter().next()?));
        if end.as_deref().map_or_else(Id::default, Id::of) < Id::of(place) {
            return Ok(Kept { revocations: Vec::new(), place: String::new() });
        }
        let mut kept = Kept { revocations: Vec::with_capacity(entries.len()), place: place.to_owned() };
        for entry in entries {
            let [id, fields] = <[_; 2]>::try_from(items(entry)).map_err(|_| unexpected())?;
            kept.place = text(id).ok_or_else(unexpected)?;
            kept.revocations.extend(read(fields));
        }
        Ok(kept)
    }
}

/// An entry of a later version says something else, and nothing to this one.
fn read(fields: Value) -> Option<Revocation> {
    let user = text(field(fields.clone(), "u")?)?;
    Some(Revocation { user: user.into(), before: number(field(fields, "b")?)? })
}

/// The longest time that Redis takes, in milliseconds: a hundred years.
const MAX_PEXPIRE: u64 = 100 * 365 * 24 * 3600 * 1000;

/// An entry's id: milliseconds and a number.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64, u64);

impl Id {
    fn of(text: &str) -> Self {
        let (millis, number) = text.split_once('-').unwrap_or((text, "0"));
        Self(millis.parse().unwrap_or(0), number.parse().unwrap_or(0))
    }
}
