//! The same over gRPC.

use std::sync::Arc;

use fanwire_node::Failure;
use fanwire_node::hooks::{BackendError, Hooks};
use fanwire_wire::Payload;
use futures_util::future::{pending, ready};
use prost::Message;
use std::sync::atomic::Ordering;

use crate::backend::{Answer, Said, serve};
use crate::{asker, hook, unanswered};

/// As in the schema, by its numbers.
#[derive(Clone, PartialEq, Message)]
struct RpcRequest {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "10")]
    user: String,
    #[prost(string, tag = "11")]
    method: String,
    #[prost(bytes = "vec", tag = "12")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcResponse {
    #[prost(message, tag = "1")]
    result: Option<RpcResult>,
    #[prost(message, tag = "2")]
    error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcResult {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Error {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bool, tag = "3")]
    temporary: bool,
}

fn always(said: fn() -> Said) -> Answer {
    Arc::new(move |_| Box::pin(ready(said())))
}

#[tokio::test]
async fn data_goes_as_it_is() {
    let answer = || RpcResponse { result: Some(RpcResult { data: vec![2, 3] }), error: None };
    let backend = serve(Arc::new(move |_| Box::pin(ready(Said::Message(answer().encode_to_vec()))))).await;
    let hooks = hook(&format!("grpc://{}", backend.address), "headers = [\"cookie\"]");
    let asked = (0..4).map(|_| hooks.rpc("a", asker(), "add".to_owned(), Some(Payload::binary(vec![0, 1].into()))));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.unwrap().unwrap().bytes(), &[2, 3][..]);
    }
    assert_eq!(backend.connections.load(Ordering::Relaxed), 1, "all share one connection");
    let asked = &backend.asked.lock()[0];
    assert_eq!(asked.path, "/fanwire.hooks.v1.Hooks/RPC");
    assert_eq!(asked.headers["cookie"], "b=2");
    let question = RpcRequest::decode(&asked.body[5..]).unwrap();
    let expected =
        RpcRequest { client: "c1".to_owned(), user: "42".to_owned(), method: "add".to_owned(), data: vec![0, 1] };
    assert_eq!(question, expected);
}

#[tokio::test]
async fn a_backend_may_offer_it_under_another_name() {
    let backend = serve(always(|| {
        Said::Message(RpcResponse { result: Some(RpcResult::default()), error: None }.encode_to_vec())
    }))
    .await;
    let service = "grpc_service = \"centrifugal.centrifugo.proxy.CentrifugoProxy\"";
    let hooks = hook(&format!("grpc://{}", backend.address), service);
    assert_eq!(hooks.rpc("a", asker(), String::new(), None).await, Ok(None));
    assert_eq!(backend.asked.lock()[0].path, "/centrifugal.centrifugo.proxy.CentrifugoProxy/RPC");
}

#[tokio::test]
async fn errors_arrive() {
    let error = || Error { code: 1000, message: "no".to_owned(), temporary: true };
    let backend = serve(Arc::new(move |_| {
        Box::pin(ready(Said::Message(RpcResponse { result: None, error: Some(error()) }.encode_to_vec())))
    }))
    .await;
    let hooks = hook(&format!("grpc://{}", backend.address), "");
    let expected = BackendError { code: 1000, message: "no".into(), temporary: true };
    assert_eq!(hooks.rpc("a", asker(), String::new(), None).await, Err(Failure::Backend(expected)));
}

#[tokio::test]
async fn no_answer_is_no_answer() {
    for answer in [
        always(|| Said::Code(13)),
        always(|| Said::Code(14)),
        always(|| Said::Message(vec![255])),
        always(|| Said::Status(502, "")),
    ] {
        let backend = serve(answer).await;
        let hooks = hook(&format!("grpc://{}", backend.address), "");
        assert_eq!(hooks.rpc("a", asker(), String::new(), None).await, unanswered());
        assert_eq!(backend.asked.lock().len(), 1, "a call may have had an effect");
    }
    let backend = serve(Arc::new(|_| Box::pin(pending()))).await;
    let hooks = hook(&format!("grpc://{}", backend.address), "timeout = \"50ms\"");
    assert_eq!(hooks.refresh("a", asker()).await, unanswered());
    let address = backend.address;
    drop(backend);
    assert_eq!(hook(&format!("grpc://{address}"), "").refresh("a", asker()).await, unanswered());
}
