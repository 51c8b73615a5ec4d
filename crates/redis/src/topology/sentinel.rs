//! What sentinels say.

use redis::Pipeline;

use super::scouts::Answer;
use crate::answers::{field, items, number, text};
use crate::url::Address;

/// Who is the primary of this name, and by which election?
pub(super) fn question(primary: &str) -> Pipeline {
    let mut question = redis::pipe();
    question.cmd("SENTINEL").arg("get-master-addr-by-name").arg(primary);
    question.cmd("SENTINEL").arg("master").arg(primary);
    question
}

/// The primary of the latest election: a sentinel that was cut off may still know an earlier one.
pub(super) fn primary(answers: Vec<Answer>) -> Option<Address> {
    let read = |answer: Answer| {
        let [address, about] = <[_; 2]>::try_from(answer.values).ok()?;
        let [host, port] = <[_; 2]>::try_from(items(address)).ok()?;
        let epoch: u64 = field(about, "config-epoch").and_then(number)?;
        Some((epoch, Address { host: text(host)?.into(), port: number(port)? }))
    };
    answers.into_iter().filter_map(read).max_by_key(|(epoch, _)| *epoch).map(|(_, address)| address)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn answer(port: &str, epoch: &str) -> Answer {
        let address = Value::Array(vec![text("10.0.0.1"), text(port)]);
        let about = Value::Map(vec![(text("name"), text("main")), (text("config-epoch"), text(epoch))]);
        Answer { from: Address { host: "sentinel".into(), port: 1 }, values: vec![address, about] }
    }

    #[test]
    fn the_latest_election_counts() {
        let port = |answers| primary(answers).map(|address| address.port);
        assert_eq!(port(vec![answer("1", "7"), answer("2", "9"), answer("1", "7")]), Some(2));
        let unknown =
            Answer { from: Address { host: "sentinel".into(), port: 1 }, values: vec![Value::Nil, Value::Nil] };
        assert_eq!(port(vec![unknown, answer("1", "7")]), Some(1));
        assert_eq!(port(vec![]), None);
    }
}
