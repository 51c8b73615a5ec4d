//! The same API as gRPC.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::timeout;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;

use crate::Api;
use crate::health::Health;
use crate::methods::Method;
use crate::proto::control_server::{ControlServer, SERVICE_NAME};
use crate::reflection;
use crate::types::Fault;

/// The largest message taken, in bytes.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// How long a call takes at most, whatever time its caller has.
const PATIENCE: Duration = Duration::from_secs(30);

/// The metadata with the code of `Error`.
const CODE: &str = "fanwire-code";

/// The metadata with the position of `Error`.
const OFFSET: &str = "fanwire-offset";
const EPOCH: &str = "fanwire-epoch";

/// The metadata with the milliseconds after which clients of gRPC try again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Api {
    /// Answers one gRPC call: a request whose content type begins with `application/grpc`.
    pub async fn handle_rpc<B>(self: Arc<Self>, request: Request<B>) -> Response<tonic::body::Body>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let service = head.uri.path().split('/').nth(1).unwrap_or_default();
        if service == HealthServer::<Health>::NAME {
            // Probes have no keys.
            let called: BoxFuture<_, _> = self.health.clone().call(Request::from_parts(head, body));
            return called.await.unwrap_or_else(|never: Infallible| match never {});
        }
        let reflection = self.reflection.clone().filter(|_| service == reflection::SERVICE_NAME);
        let method = method(head.uri.path());
        match self.authenticate(&head) {
            Ok(caller) => head.extensions.insert(caller),
            Err(fault) => {
                self.metrics.turned_away(method, &fault);
                return Status::from(fault).into_http();
            }
        };
        if let Some(describe) = reflection {
            let described = describe(Request::from_parts(head, tonic::body::Body::new(body))).await;
            return described.unwrap_or_else(|never| match never {});
        }
        let deadline = deadline(&head.headers);
        let mut service = ControlServer::from_arc(self).max_decoding_message_size(MAX_MESSAGE);
        let called: BoxFuture<_, Infallible> = service.call(Request::from_parts(head, body));
        match timeout(deadline, called).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Status::deadline_exceeded("the call took too long; it may be done, or still be").into_http(),
        }
    }
}

/// The method that a path names, if it is one.
fn method(path: &str) -> Option<Method> {
    Method::find_rpc(path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)?.strip_prefix('/')?)
}

/// How long the caller waits, and no longer than [`PATIENCE`].
fn deadline(headers: &HeaderMap) -> Duration {
    let wanted = headers.get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    wanted.map_or(PATIENCE, |wanted| wanted.min(PATIENCE))
}

/// Reads at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut status = Self::new(code(&fault), fault.message());
        let metadata = status.metadata_mut();
        metadata.insert(CODE, MetadataValue::from(fault.code()));
        if let Some(position) = fault.position() {
            metadata.insert(OFFSET, MetadataValue::from(position.offset));
            // Brokers make them of letters and digits.
            if let Ok(epoch) = position.epoch.as_str().parse() {
                metadata.insert(EPOCH, epoch);
            }
        }
        if let Some(after) = fault.retry_after {
            metadata.insert(PUSHBACK, MetadataValue::from(after.as_micros().div_ceil(1000) as u64));
        }
        status
    }
}

/// What a refusal is called in gRPC.
fn code(fault: &Fault) -> Code {
    use fanwire_wire::Refusal as R;
    if fault.status == StatusCode::UNAUTHORIZED {
        return Code::Unauthenticated;
    }
    match fault.refusal {
        R::Internal => Code::Internal,
        R::Unavailable | R::BackendUnavailable => Code::Unavailable,
        // As at any deadline: it may have been applied.
        R::OutcomeUnknown => Code::DeadlineExceeded,
        R::Unauthorized | R::TokenExpired => Code::Unauthenticated,
        R::UnknownChannel => Code::NotFound,
        R::PermissionDenied => Code::PermissionDenied,
        R::MethodNotFound => Code::Unimplemented,
        R::AlreadySubscribed => Code::AlreadyExists,
        R::LimitExceeded | R::TooManyRequests => Code::ResourceExhausted,
        R::BadRequest => Code::InvalidArgument,
        R::NotAvailable | R::Expired => Code::FailedPrecondition,
        R::UnrecoverablePosition => Code::OutOfRange,
        // What gRPC has for a read and a write that have to be repeated together.
        R::Conflict => Code::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_bounded() {
        for (text, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("3u", Some(Duration::from_micros(3))),
            ("2M", Some(Duration::from_secs(120))),
            ("1H", Some(Duration::from_secs(3600))),
            ("", None),
            ("S", None),
            ("100000000n", None),
            ("1", None),
            ("-1S", None),
            ("1ä", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        let headers =
            |text: &str| HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), text.parse().unwrap())]);
        assert_eq!(deadline(&headers("1S")), Duration::from_secs(1));
        assert_eq!(deadline(&headers("5H")), PATIENCE);
        assert_eq!(deadline(&headers("soon")), PATIENCE);
    }

    #[test]
    fn paths_name_methods() {
        assert_eq!(method("/fanwire.control.v1.Control/PresenceStats"), Some(Method::PresenceStats));
        for path in ["/fanwire.control.v1.Control/presence_stats", "/Control/Publish", "/api/publish", ""] {
            assert_eq!(method(path), None);
        }
    }
}
