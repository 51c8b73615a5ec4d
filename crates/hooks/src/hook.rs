//! One backend: asked within limits.

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Failure;
use fanwire_node::hooks::{Asker, BackendError};
use fanwire_wire::{Disconnect, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::Breaker;
use crate::config::{HookConfig, Parsed};
use crate::event::{Event, Question, Response};
use crate::metrics::{Metrics, Outcome};
use crate::proto;
use crate::transport::{Fault, Transport};

/// One backend: asked within limits.
pub(crate) struct Hook {
    config: HookConfig,
    authorities: Option<Vec<u8>>,
    headers: Vec<HeaderName>,
    client_headers: Vec<HeaderName>,
    static_headers: HeaderMap,
    transport: Transport,
    /// As many as questions may be under way.
    permits: Semaphore,
    breaker: Arc<Breaker>,
    metrics: Metrics,
    /// Until when nothing more is said about faults.
    quiet_until: Mutex<Option<Instant>>,
    runtime: Handle,
}

/// The pause before the first retry, at most; before each further one twice as long.
const BACKOFF: Duration = Duration::from_millis(50);

/// How often a fault of a backend is worth a line in the log.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// The codes that a close frame may have for an end by the server.
const CLOSE_CODES: std::ops::RangeInclusive<u32> = 3000..=4999;

/// Why there is no result.
enum Unanswered {
    Full,
    Open,
    Fault(Fault),
}

impl Hook {
    pub(crate) fn new(config: HookConfig, parsed: Parsed, runtime: Handle) -> Arc<Self> {
        let Parsed { target, headers, client_headers, static_headers, tls, authorities } = parsed;
        let metrics = Metrics::new(&config.name);
        Arc::new(Self {
            transport: Transport::new(target, tls, config.timeout),
            permits: Semaphore::new(config.max_in_flight),
            breaker: Breaker::new(&config.name, metrics.open.clone()),
            headers,
            client_headers,
            static_headers,
            metrics,
            config,
            authorities,
            quiet_until: Mutex::default(),
            runtime,
        })
    }

    pub(crate) fn config(&self) -> &HookConfig {
        &self.config
    }

    /// Whether another one with this configuration would be the same.
    pub(crate) fn is_as(&self, config: &HookConfig, parsed: &Parsed) -> bool {
        self.config == *config && self.authorities == parsed.authorities
    }

    /// Another one has its name, or none has any more. Questions under way go on.
    pub(crate) fn retire(&self) {
        self.breaker.retire();
    }

    /// Whether JSON is to be put into base64 as well.
    pub(crate) fn wants_base64(&self) -> bool {
        self.config.binary
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.transport.is_binary()
    }

    /// Asks, and makes of the result what `read` says. Runs on the shared runtime, where the connections are; dropping
    /// the future gives the question up.
    pub(crate) async fn ask<Q: Question, T: Send + 'static>(
        self: Arc<Self>,
        asker: Asker,
        question: Q,
        read: impl FnOnce(Option<<Q::Response as Response>::Result>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Failure> {
        let runtime = self.runtime.clone();
        let mut task = JoinSet::new();
        task.spawn_on(async move { self.ask_here(&asker, &question, read).await }, &runtime);
        // Ends without an answer only when the runtime does.
        task.join_next().await.and_then(Result::ok).unwrap_or_else(|| Err(Refusal::BackendUnavailable.into()))
    }

    async fn ask_here<Q: Question, T>(
        &self,
        asker: &Asker,
        question: &Q,
        read: impl FnOnce(Option<<Q::Response as Response>::Result>) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let count = Count::begin(self, Q::EVENT);
        let answered = self.ask_within_limits(question, &self.headers_of(asker)).await;
        let judged = answered.and_then(|response| judge(response, read).map_err(Unanswered::Fault));
        match judged {
            Ok(Ok(result)) => {
                count.end(Outcome::Ok);
                Ok(result)
            }
            Ok(Err(failure)) => {
                count.end(if matches!(failure, Failure::Disconnect(_)) { Outcome::Disconnect } else { Outcome::Error });
                Err(failure)
            }
            Err(unanswered) => {
                if let Unanswered::Fault(fault) = &unanswered {
                    self.complain(Q::EVENT, fault);
                }
                count.end(outcome_of(&unanswered));
                Err(Refusal::BackendUnavailable.into())
            }
        }
    }

    /// Asks until there is an answer, as long as there is time.
    async fn ask_within_limits<Q: Question>(
        &self,
        question: &Q,
        headers: &HeaderMap,
    ) -> Result<Q::Response, Unanswered> {
        // No queue: who would wait here would wait in vain when the backend is slow, and hold up nobody but itself anyway.
        let _permit = self.permits.try_acquire().map_err(|_| Unanswered::Full)?;
        let deadline = Instant::now() + self.config.timeout;
        let mut attempt = 0;
        loop {
            let ticket = self.breaker.pass().ok_or(Unanswered::Open)?;
            let asked = timeout_at(deadline, self.transport.ask(question, headers)).await;
            let fault = match asked.unwrap_or(Err(Fault::TimedOut)) {
                Ok(response) => {
                    ticket.succeeded();
                    return Ok(response);
                }
                Err(fault) => fault,
            };
            // A backend that answers nonsense is alive; else one client's odd request could shut out all others.
            if is_ill(&fault) {
                ticket.failed();
            } else {
                ticket.succeeded();
            }
            let may_retry = Q::EVENT.is_repeatable() || matches!(fault, Fault::Unreachable(_));
            let worthwhile = is_ill(&fault) && fault != Fault::TimedOut;
            let pause = BACKOFF.mul_f64(fastrand::f64()) * (1 << attempt.min(8));
            if attempt >= self.config.retries || !may_retry || !worthwhile || Instant::now() + pause >= deadline {
                return Err(Unanswered::Fault(fault));
            }
            attempt += 1;
            sleep(pause).await;
        }
    }

    /// The headers of a question: those of the configuration, the allowed ones of the client's request, the allowed ones
    /// that the client tells in its own protocol. The first of these that has a name counts.
    fn headers_of(&self, asker: &Asker) -> HeaderMap {
        let mut headers = self.static_headers.clone();
        let Some(introduction) = &asker.introduction else { return headers };
        for (allowed, told) in
            [(&self.headers, &introduction.headers), (&self.client_headers, &introduction.client_headers)]
        {
            for name in allowed {
                if headers.contains_key(name) {
                    continue;
                }
                for (_, value) in told.iter().filter(|(told, _)| *told == name.as_str()) {
                    if let Ok(value) = HeaderValue::from_str(value) {
                        headers.append(name.clone(), value);
                    }
                }
            }
        }
        headers
    }

    fn complain(&self, event: Event, fault: &Fault) {
        let now = Instant::now();
        let mut quiet_until = self.quiet_until.lock();
        if quiet_until.is_none_or(|until| until <= now) {
            *quiet_until = Some(now + COMPLAINTS);
            tracing::warn!(hook = self.config.name, event = event.name(), %fault, "backend gave no answer");
        }
    }
}

/// Whether a fault says that the backend is not well, whatever it was asked.
fn is_ill(fault: &Fault) -> bool {
    matches!(fault, Fault::Unreachable(_) | Fault::Broken(_) | Fault::TimedOut | Fault::Ill(_))
}

/// Reads what a backend answered; the inner error is what it says in place of a result.
fn judge<R: Response, T>(
    response: R,
    read: impl FnOnce(Option<R::Result>) -> Result<T, String>,
) -> Result<Result<T, Failure>, Fault> {
    let (result, error, disconnect) = response.into_parts();
    if let Some(proto::Disconnect { code, reason }) = disconnect {
        let code = u16::try_from(code).ok().filter(|code| CLOSE_CODES.contains(&u32::from(*code)));
        let code = code.ok_or_else(|| Fault::BadAnswer("disconnect: the code must be from 4000 to 4999".to_owned()))?;
        return Ok(Err(Disconnect::from_code(code, &reason).into()));
    }
    if let Some(proto::Error { code, message, temporary }) = error {
        if code == 0 {
            return Err(Fault::BadAnswer("error: no code".to_owned()));
        }
        return Ok(Err(BackendError { code, message: message.into(), temporary }.into()));
    }
    read(result).map(Ok).map_err(Fault::BadAnswer)
}

fn outcome_of(unanswered: &Unanswered) -> Outcome {
    match unanswered {
        Unanswered::Full => Outcome::Full,
        Unanswered::Open => Outcome::Open,
        Unanswered::Fault(Fault::Unreachable(_) | Fault::Broken(_)) => Outcome::Unreachable,
        Unanswered::Fault(Fault::TimedOut) => Outcome::Timeout,
        Unanswered::Fault(Fault::Ill(_) | Fault::Failed(_)) => Outcome::Status,
        Unanswered::Fault(Fault::BadAnswer(_)) => Outcome::BadAnswer,
    }
}

/// Counts a question under way, also when it is given up.
struct Count<'a> {
    hook: &'a Hook,
    event: Event,
    began: Instant,
    outcome: Outcome,
}

impl<'a> Count<'a> {
    fn begin(hook: &'a Hook, event: Event) -> Self {
        hook.metrics.began();
        Self { hook, event, began: Instant::now(), outcome: Outcome::GivenUp }
    }

    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.hook.metrics.ended(self.event, self.outcome, self.began.elapsed());
    }
}
