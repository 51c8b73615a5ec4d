//! What services there are, as `grpc.reflection.v1.ServerReflection`: for tools that have no proto at hand.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic_reflection::server::Builder;

/// The service; its own type has no name.
pub(crate) type Reflection = Arc<dyn Fn(Request<Body>) -> BoxFuture<Response<Body>, Infallible> + Send + Sync>;

/// The service's name in paths.
pub(crate) const SERVICE_NAME: &str = "grpc.reflection.v1.ServerReflection";

/// Makes the service: it describes the control plane, health, and itself.
pub(crate) fn service() -> Reflection {
    let control = include_bytes!(concat!(env!("OUT_DIR"), "/control.bin"));
    let service = Builder::configure()
        .register_encoded_file_descriptor_set(control)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by compilers of protobuf and are part of the program");
    Arc::new(move |request| service.clone().call(request))
}
