//! The same over gRPC: a client that is generated from the proto, without a network in between.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::BufMut;
use fanwire_control::Scope;
use fanwire_control::proto::control_client::ControlClient;
use fanwire_control::proto::{self, Command, PublishRequest};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::*;

/// Carries the client's calls to the API.
#[derive(Clone)]
pub(crate) struct Wire(pub(crate) Arc<Api>);

impl Service<Request<tonic::body::Body>> for Wire {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let called = Arc::clone(&self.0).handle_rpc(request);
        Box::pin(async move { Ok(called.await) })
    }
}

pub(crate) type Client = ControlClient<Wire>;

/// Runs `test` with a client, against the node that [`run`] describes.
pub(crate) fn run_rpc(test: impl AsyncFnOnce(&Harness, Client)) {
    run(async |harness, _| {
        let api = Arc::new(Api::new(Arc::clone(&harness.node), &keys(), Audit::All));
        test(harness, ControlClient::new(Wire(api))).await;
    });
}

pub(crate) fn with_key<T>(message: T) -> tonic::Request<T> {
    with_secret(SECRET, message)
}

fn with_key_of<T>(name: &str, message: T) -> tonic::Request<T> {
    with_secret(&keys::secret_of(name), message)
}

fn with_secret<T>(secret: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-api-key", secret.parse().expect("a secret for a header"));
    request
}

fn publication(channel: &str, data: &'static str) -> PublishRequest {
    PublishRequest { channel: channel.into(), data: data.into(), ..Default::default() }
}

/// The code of the API beside that of gRPC.
fn codes(status: &Status) -> (Code, u32) {
    let code = |metadata: &MetadataMap| metadata.get("fanwire-code")?.to_str().ok()?.parse().ok();
    (status.code(), code(status.metadata()).unwrap_or_default())
}

#[test]
fn both_forms_are_one_api() {
    run_rpc(async |harness, mut client| {
        let subscriber = harness.probe("user:42;info={\"name\": \"Ada\"}").await;
        subscriber.subscribe("news").await.unwrap();
        harness.settle().await;
        let _ = subscriber.take();
        let tags = [("lang".to_owned(), "en".to_owned())].into();
        let request = PublishRequest { tags, ..publication("news", "{\"x\": 1}") };
        let published = client.publish(with_key(request)).await.unwrap().into_inner();
        assert_eq!(published.offset, 1);
        client.publish(with_key(publication("news", "no JSON"))).await.unwrap();
        let exclude = subscriber.client.id();
        let echo = PublishRequest { event: "echo".into(), exclude, skip_history: true, ..publication("news", "3") };
        client.publish(with_key(echo)).await.unwrap();
        harness.settle().await;
        assert_eq!(
            subscriber.take_publications(),
            [json!({"x": 1}), json!({"bytes": "no JSON".bytes().collect::<Vec<_>>()})]
        );

        let asked = proto::HistoryRequest { channel: "news".into(), limit: -1, ..Default::default() };
        let history = client.history(with_key(asked)).await.unwrap().into_inner();
        assert_eq!((history.offset, &history.epoch), (2, &published.epoch));
        assert_eq!(history.publications[0].tags["lang"], "en");
        let data: Vec<_> = history.publications.iter().map(|publication| &*publication.data).collect();
        assert_eq!(data, [&b"{\"x\": 1}"[..], b"no JSON"]);

        let asked = proto::PresenceRequest { channel: "news".into() };
        let presence = client.presence(with_key(asked)).await.unwrap().into_inner().presence;
        assert_eq!(&*presence[&subscriber.client.id()].conn_info, b"{\"name\": \"Ada\"}");
        let info = client.info(with_key(proto::InfoRequest {})).await.unwrap().into_inner();
        assert_eq!((info.nodes[0].num_clients, &*info.nodes[0].state), (1, "active"));

        let asked = proto::DisconnectRequest { user: "42".into(), ..Default::default() };
        client.disconnect(with_key(asked)).await.unwrap();
        harness.settle().await;
        assert!(subscriber.is_gone());
    });
}

#[test]
fn refusals_have_both_codes() {
    run_rpc(async |harness, mut client| {
        for (request, expected, word) in [
            (publication("nowhere:1", "1"), (Code::NotFound, 102), "unknown channel"),
            (publication("a b", "1"), (Code::InvalidArgument, 107), "channel name"),
            (publication("a", ""), (Code::InvalidArgument, 107), "neither data nor b64data"),
        ] {
            let status = client.publish(with_key(request)).await.unwrap_err();
            assert_eq!(codes(&status), expected);
            assert!(status.message().contains(word), "{status}");
        }
        let asked = proto::PresenceRequest { channel: "bare:1".into() };
        assert_eq!(codes(&client.presence(with_key(asked)).await.unwrap_err()), (Code::FailedPrecondition, 108));
        harness.faults.go_down();
        let status = client.publish(with_key(publication("a", "1"))).await.unwrap_err();
        assert_eq!(codes(&status), (Code::Unavailable, 503));
        harness.faults.lose_answers();
        let status = client.publish(with_key(publication("a", "1"))).await.unwrap_err();
        assert_eq!(codes(&status), (Code::DeadlineExceeded, 504));
    });
}

#[test]
fn keys_open_the_door() {
    run_rpc(async |_, mut client| {
        let mut bearer = tonic::Request::new(proto::InfoRequest {});
        bearer.metadata_mut().insert("authorization", format!("apikey {SECRET}").parse().unwrap());
        client.info(bearer).await.unwrap();
        let mut wrong = tonic::Request::new(proto::InfoRequest {});
        wrong.metadata_mut().insert("x-api-key", "0123456789abcdeF".parse().unwrap());
        for request in [tonic::Request::new(proto::InfoRequest {}), wrong] {
            assert_eq!(codes(&client.info(request).await.unwrap_err()), (Code::Unauthenticated, 101));
        }
    });
}

#[test]
fn a_key_does_what_it_is_for() {
    let reader = ApiKey { scopes: Some(vec![Scope::Read]), ..keys::key("reader") };
    let hasty = ApiKey { rate: 1, burst: 1, ..keys::key("hasty") };
    let listed = [reader, hasty];
    keys::with_audit(&[], Audit::All, async |harness, _| {
        let api = Arc::new(Api::new(Arc::clone(&harness.node), &Keys::load(&listed).unwrap(), Audit::All));
        let mut client = ControlClient::new(Wire(api));
        let status = client.publish(with_key_of("reader", publication("chat:1", "1"))).await.unwrap_err();
        assert_eq!(codes(&status), (Code::PermissionDenied, 103));
        let command = Command { publish: Some(publication("chat:1", "1")), ..Default::default() };
        let batch = proto::BatchRequest { commands: vec![command], parallel: false };
        let replies = client.batch(with_key_of("reader", batch)).await.unwrap().into_inner().replies;
        assert_eq!(replies[0].error.as_ref().unwrap().code, 103);
        client.publish(with_key_of("hasty", publication("chat:1", "1"))).await.unwrap();
        let status = client.publish(with_key_of("hasty", publication("chat:1", "1"))).await.unwrap_err();
        assert_eq!(codes(&status), (Code::ResourceExhausted, 111));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    });
}

#[test]
fn a_batch_has_a_reply_for_each_command() {
    run_rpc(async |_, mut client| {
        let info = Some(proto::InfoRequest {});
        let commands = vec![
            Command { publish: Some(publication("news", "1")), ..Default::default() },
            Command { publish: Some(publication("nowhere:1", "1")), ..Default::default() },
            Command::default(),
            Command { info, channels: Some(proto::ChannelsRequest::default()), ..Default::default() },
        ];
        for parallel in [false, true] {
            let batch = proto::BatchRequest { commands: commands.clone(), parallel };
            let replies = client.batch(with_key(batch)).await.unwrap().into_inner().replies;
            let code = |reply: &proto::Reply| reply.error.as_ref().map_or(0, |error| error.code);
            assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), [0, 102, 104, 107]);
            assert!(replies[0].publish.as_ref().unwrap().offset > 0);
        }
        let commands = vec![Command::default(); 1001];
        let status = client.batch(with_key(proto::BatchRequest { commands, parallel: false })).await.unwrap_err();
        assert_eq!(codes(&status), (Code::InvalidArgument, 107));
    });
}

#[test]
fn a_call_takes_no_longer_than_its_caller_waits() {
    run_rpc(async |harness, mut client| {
        harness.faults.dawdle(1, Duration::from_secs(3600));
        let mut request = with_key(publication("news", "1"));
        request.set_timeout(Duration::from_millis(250));
        let started = tokio::time::Instant::now();
        let status = client.publish(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(started.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn messages_and_methods_that_are_not_understood() {
    run(async |harness, _| {
        let api = Arc::new(Api::new(Arc::clone(&harness.node), &keys(), Audit::All));
        let call = async |path: &str, message: &[u8]| {
            let mut body = vec![0];
            body.put_u32(message.len() as u32);
            body.extend(message);
            let request = Request::post(format!("/fanwire.control.v1.Control/{path}"))
                .header("content-type", "application/grpc")
                .header("x-api-key", SECRET)
                .body(http_body_util::Full::new(Bytes::from(body)))
                .unwrap();
            let response = Arc::clone(&api).handle_rpc(request).await;
            Status::from_header_map(response.headers()).unwrap().code()
        };
        assert_eq!(call("Dance", b"").await, Code::Unimplemented);
        assert_eq!(call("Publish", b"\xff\xff").await, Code::Internal);
        assert_eq!(call("Publish", &vec![0; 4 * 1024 * 1024 + 1]).await, Code::OutOfRange);
    });
}
