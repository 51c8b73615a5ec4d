//! Health as gRPC has it: without a key, and as ready as the node.

use std::sync::atomic::{AtomicBool, Ordering};

use fanwire_node::{DrainConfig, Phase};
use futures_util::FutureExt;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::grpc::Wire;
use super::*;

const CONTROL: &str = "fanwire.control.v1.Control";

fn client(api: Api) -> HealthClient<Wire> {
    HealthClient::new(Wire(Arc::new(api)))
}

fn api(harness: &Harness) -> Api {
    Api::new(Arc::clone(&harness.node), &keys(), Audit::All)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn check(client: &mut HealthClient<Wire>, service: &str) -> Result<ServingStatus, Code> {
    client.check(of(service)).await.map(|response| response.into_inner().status()).map_err(|status| status.code())
}

/// What a watch has to say now, if anything.
async fn news(harness: &Harness, watch: &mut Streaming<HealthCheckResponse>) -> Option<Result<ServingStatus, Code>> {
    harness.settle().await;
    let told = watch.message().now_or_never()?;
    Some(told.map(|response| response.expect("a watch ends with a status").status()).map_err(|status| status.code()))
}

#[test]
fn a_node_on_its_way_down_is_not_serving() {
    run(async |harness, _| {
        let mut client = client(api(harness));
        for service in ["", CONTROL] {
            assert_eq!(check(&mut client, service).await, Ok(ServingStatus::Serving), "{service}");
        }
        assert_eq!(check(&mut client, "fanwire.control.v2.Control").await, Err(Code::NotFound));
        harness.node.begin_drain();
        for service in ["", CONTROL] {
            assert_eq!(check(&mut client, service).await, Ok(ServingStatus::NotServing), "{service}");
        }
    });
}

#[test]
fn a_watch_tells_changes_and_no_more() {
    run(async |harness, _| {
        let ready = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&ready);
        let mut client = client(api(harness).with_readiness(move || asked.load(Ordering::Relaxed)));
        let mut watch = client.watch(of(CONTROL)).await.unwrap().into_inner();
        assert_eq!(news(harness, &mut watch).await, Some(Ok(ServingStatus::Serving)));
        for status in [ServingStatus::NotServing, ServingStatus::Serving] {
            assert_eq!(news(harness, &mut watch).await, None);
            ready.store(status == ServingStatus::Serving, Ordering::Relaxed);
            harness.pass(Duration::from_millis(250)).await;
            assert_eq!(news(harness, &mut watch).await, Some(Ok(status)));
            assert_eq!(check(&mut client, "").await, Ok(status));
        }
    });
}

#[test]
fn a_watch_ends_with_the_node() {
    run(async |harness, _| {
        let mut client = client(api(harness));
        let mut watch = client.watch(of("")).await.unwrap().into_inner();
        let mut unknown = client.watch(of("nobody.knows")).await.unwrap().into_inner();
        assert_eq!(news(harness, &mut watch).await, Some(Ok(ServingStatus::Serving)));
        assert_eq!(news(harness, &mut unknown).await, Some(Ok(ServingStatus::ServiceUnknown)));
        let mut late = client.watch(of("")).await.unwrap().into_inner();
        harness.node.drain(&DrainConfig::at_once()).await;
        harness.node.shut_down().await;
        assert_eq!(harness.node.phase(), Phase::Ending);
        assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(unknown.message().await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(late.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert_eq!(late.message().await.unwrap_err().code(), Code::Unavailable);
    });
}

#[test]
fn watches_are_bounded() {
    run(async |harness, _| {
        let mut client = client(api(harness));
        let mut watches = Vec::new();
        for _ in 0..256 {
            watches.push(client.watch(of("")).await.unwrap());
        }
        assert_eq!(client.watch(of("")).await.unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(check(&mut client, "").await, Ok(ServingStatus::Serving));
        watches.pop();
        client.watch(of("")).await.unwrap();
        assert_eq!(check(&mut client, &"x".repeat(5000)).await, Err(Code::OutOfRange));
    });
}
