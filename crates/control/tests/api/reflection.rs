//! Reflection: what a tool without the proto learns, and when.

use futures_util::stream;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::grpc::{Wire, with_key};
use super::*;

type Asked = stream::Iter<std::vec::IntoIter<ServerReflectionRequest>>;

fn asking(questions: Vec<MessageRequest>) -> Asked {
    let request = |question| ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    stream::iter(questions.into_iter().map(request).collect::<Vec<_>>())
}

async fn ask(api: Api, request: tonic::Request<Asked>) -> Result<Vec<MessageResponse>, Status> {
    let mut client = ServerReflectionClient::new(Wire(Arc::new(api)));
    let mut answers = client.server_reflection_info(request).await?.into_inner();
    let mut read = Vec::new();
    while let Some(ServerReflectionResponse { message_response, .. }) = answers.message().await? {
        read.extend(message_response);
    }
    Ok(read)
}

fn api(harness: &Harness) -> Api {
    Api::new(Arc::clone(&harness.node), &keys(), Audit::All)
}

fn list() -> Asked {
    asking(vec![MessageRequest::ListServices(String::new())])
}

#[test]
fn services_are_described() {
    run(async |harness, _| {
        let symbol = MessageRequest::FileContainingSymbol("fanwire.control.v1.Control".into());
        let questions = vec![MessageRequest::ListServices(String::new()), symbol];
        let answers = ask(api(harness).with_reflection(), with_key(asking(questions))).await.unwrap();
        let [MessageResponse::ListServicesResponse(listed), MessageResponse::FileDescriptorResponse(file)] =
            &answers[..]
        else {
            panic!("{answers:?}");
        };
        let mut names: Vec<_> = listed.service.iter().map(|service| &*service.name).collect();
        names.sort_unstable();
        let expected = ["fanwire.control.v1.Control", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
        assert_eq!(names, expected);
        let [file] = &file.file_descriptor_proto[..] else { panic!("one file holds all of it") };
        for name in ["fanwire/control/v1/control.proto", "PublishStream", "idempotency_key"] {
            assert!(file.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
    });
}

#[test]
fn it_needs_a_key_and_must_be_wanted() {
    run(async |harness, _| {
        let refused = ask(api(harness).with_reflection(), tonic::Request::new(list())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(ask(api(harness), with_key(list())).await.unwrap_err().code(), Code::Unimplemented);
    });
}
