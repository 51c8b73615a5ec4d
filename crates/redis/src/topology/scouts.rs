//! The connections on which servers are asked where servers are.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use tokio::time::{Instant, timeout_at};

use crate::dial::Dialer;
use crate::url::Address;

/// Asks several servers the same.
pub(super) struct Scouts {
    dialer: Dialer,
    /// What is left of the last question: as many as were asked at most.
    connections: HashMap<Address, MultiplexedConnection>,
}

/// How long the first answer waits for others, which may know better.
const GRACE: Duration = Duration::from_millis(200);

/// What a server answered.
pub(super) struct Answer {
    pub(super) from: Address,
    pub(super) values: Vec<Value>,
}

impl Scouts {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, connections: HashMap::new() }
    }

    /// Asks all at once, and waits for so many answers; once there is one, not much longer for the others.
    pub(super) async fn ask(&mut self, addresses: &[Address], enough: usize, question: &Pipeline) -> Vec<Answer> {
        let Self { dialer, connections } = self;
        let mut old = std::mem::take(connections);
        let ask = |address| {
            let answer = answer(dialer, old.remove(address), address, question);
            async move { (address, answer.await) }
        };
        let mut asked: FuturesUnordered<_> = addresses.iter().map(ask).collect();
        let mut answers = Vec::new();
        let mut end = Instant::now() + dialer.timeout;
        while let Ok(Some((address, answer))) = timeout_at(end, asked.next()).await {
            match answer {
                Ok((connection, values)) => {
                    connections.insert(address.clone(), connection);
                    end = end.min(Instant::now() + GRACE);
                    answers.push(Answer { from: address.clone(), values });
                    if answers.len() >= enough {
                        break;
                    }
                }
                Err(error) => tracing::debug!(%address, %error, "cannot be asked where Redis is"),
            }
        }
        answers
    }
}

async fn answer(
    dialer: &Dialer,
    known: Option<MultiplexedConnection>,
    address: &Address,
    question: &Pipeline,
) -> RedisResult<(MultiplexedConnection, Vec<Value>)> {
    if let Some(mut connection) = known
        && let Ok(values) = question.query_async(&mut connection).await
    {
        return Ok((connection, values));
    }
    let mut connection = dialer.connect(address, |_| ()).await?;
    let values = question.query_async(&mut connection).await?;
    Ok((connection, values))
}
