//! Many publications over one call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanwire_control::proto::{PublishRequest, PublishStreamRequest, PublishStreamResponse};
use fanwire_testkit::harness::FakeClient;
use futures_util::stream::{Stream, StreamExt, iter, pending};
use tonic::Code;

use super::grpc::{Client, run_rpc, with_key};
use super::*;

fn publication(id: u64, channel: &str, data: impl Into<Value>) -> PublishStreamRequest {
    let publish =
        PublishRequest { channel: channel.into(), data: data.into().to_string().into(), ..Default::default() };
    PublishStreamRequest { id, publish: Some(publish) }
}

fn code(acknowledgement: &PublishStreamResponse) -> u32 {
    acknowledgement.error.as_ref().map_or(0, |error| error.code)
}

fn offset(acknowledgement: &PublishStreamResponse) -> u64 {
    acknowledgement.result.as_ref().expect("a result").offset
}

/// Publishes all of it; returns the acknowledgements.
async fn publish(
    client: &mut Client,
    requests: impl Stream<Item = PublishStreamRequest> + Send + 'static,
) -> Vec<PublishStreamResponse> {
    let acknowledgements = client.publish_stream(with_key(requests)).await.expect("a stream").into_inner();
    acknowledgements.map(|acknowledgement| acknowledgement.expect("an acknowledgement")).collect().await
}

async fn subscriber(harness: &Harness, channel: &str) -> FakeClient {
    let client = harness.probe("user:42").await;
    client.subscribe(channel).await.expect("a subscription");
    harness.settle().await;
    let _ = client.take();
    client
}

#[test]
fn each_publication_is_acknowledged_with_its_position() {
    run_rpc(async |harness, mut client| {
        let probe = subscriber(harness, "news").await;
        let requests = [
            publication(7, "news", 1),
            publication(7, "nowhere:1", 1),
            publication(8, "bare:1", 1),
            PublishStreamRequest { id: 9, publish: None },
            publication(u64::MAX, "news", 2),
        ];
        let acknowledged = publish(&mut client, iter(requests)).await;
        let mut seen: Vec<_> = acknowledged.iter().map(|each| (each.id, code(each))).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(7, 0), (7, 102), (8, 0), (9, 107), (u64::MAX, 0)]);
        let positions: Vec<_> = acknowledged.iter().filter(|each| code(each) == 0).map(offset).collect();
        assert!(positions.iter().all(|offset| [0, 1, 2].contains(offset)), "{positions:?}");
        harness.settle().await;
        assert_eq!(probe.take_publications(), [json!(1), json!(2)]);
    });
}

#[test]
fn the_order_of_a_channel_is_kept_however_long_each_one_takes() {
    run_rpc(async |harness, mut client| {
        let channels = ["a", "b", "c"];
        let mut probes = Vec::new();
        for channel in channels {
            probes.push(subscriber(harness, channel).await);
        }
        harness.faults.dawdle(1, Duration::from_millis(50));
        let requests: Vec<_> = (0..300).map(|id| publication(id, channels[id as usize % 3], id)).collect();
        let acknowledged = publish(&mut client, iter(requests)).await;
        let ids: Vec<_> = acknowledged.iter().map(|each| each.id).collect();
        assert!(!ids.is_sorted(), "channels do not wait for each other");
        harness.settle().await;
        for (index, probe) in probes.iter().enumerate() {
            let sent: Vec<_> = (index as u64..300).step_by(3).collect();
            assert_eq!(probe.take_publications(), sent.iter().map(|id| json!(id)).collect::<Vec<_>>());
            let of_channel: Vec<_> = acknowledged.iter().filter(|each| each.id % 3 == index as u64).collect();
            assert_eq!(of_channel.iter().map(|each| each.id).collect::<Vec<_>>(), sent);
            assert_eq!(of_channel.iter().map(|each| offset(each)).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
        }
    });
}

#[test]
fn eight_publishers_on_one_channel_make_one_order() {
    run_rpc(async |harness, client| {
        let probe = subscriber(harness, "news").await;
        harness.faults.dawdle(7, Duration::from_millis(5));
        let streams = (0..8_u64).map(|publisher| {
            let mut client = client.clone();
            async move {
                let requests = (0..50).map(move |number| publication(number, "news", publisher * 1000 + number));
                (publisher, publish(&mut client, iter(requests)).await)
            }
        });
        let all = futures_util::future::join_all(streams).await;
        let mut by_offset = BTreeMap::new();
        for (publisher, acknowledged) in all {
            assert!(acknowledged.iter().map(offset).is_sorted(), "the order of one publisher");
            by_offset.extend(acknowledged.iter().map(|each| (offset(each), json!(publisher * 1000 + each.id))));
        }
        assert_eq!(by_offset.keys().copied().collect::<Vec<_>>(), (1..=400).collect::<Vec<_>>());
        harness.settle().await;
        assert_eq!(probe.take_publications(), by_offset.into_values().collect::<Vec<_>>());
    });
}

#[test]
fn a_slow_broker_stops_the_reading() {
    run_rpc(async |harness, mut client| {
        harness.faults.dawdle(1, Duration::from_secs(3600));
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let requests = iter((0..100_000).map(move |id| {
            counted.fetch_add(1, Ordering::Relaxed);
            publication(id, "news", id)
        }));
        let mut acknowledged = client.publish_stream(with_key(requests)).await.unwrap().into_inner();
        let waiting = tokio::time::timeout(Duration::from_millis(10), acknowledged.message()).await;
        assert!(waiting.is_err(), "the broker takes its time");
        // What the client encodes ahead comes on top.
        let taken = read.load(Ordering::Relaxed);
        assert!((1024..4000).contains(&taken), "{taken}");
    });
}

#[test]
fn bytes_are_bounded_as_well() {
    run_rpc(async |harness, mut client| {
        harness.faults.dawdle(1, Duration::from_secs(3600));
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let requests = iter((0..1000).map(move |id| {
            counted.fetch_add(1, Ordering::Relaxed);
            publication(id, "news", "x".repeat(1024 * 1024))
        }));
        let mut acknowledged = client.publish_stream(with_key(requests)).await.unwrap().into_inner();
        assert!(tokio::time::timeout(Duration::from_millis(10), acknowledged.message()).await.is_err());
        let taken = read.load(Ordering::Relaxed);
        assert!((4..10).contains(&taken), "{taken}");
    });
}

#[test]
fn a_node_that_ends_says_so() {
    run_rpc(async |harness, mut client| {
        let requests = iter([publication(1, "news", 1)]).chain(pending());
        let mut acknowledged = client.publish_stream(with_key(requests)).await.unwrap().into_inner();
        assert_eq!(acknowledged.message().await.unwrap().unwrap().id, 1);
        harness.node.shut_down().await;
        assert_eq!(acknowledged.message().await.unwrap_err().code(), Code::Unavailable);
    });
}

#[test]
fn open_streams_are_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = || {
        let text = recorder.handle().render();
        text.lines().find(|line| line.starts_with("fanwire_api_publish_streams")).map(str::to_owned)
    };
    metrics::with_local_recorder(&recorder, || {
        run_rpc(async |_, mut client| {
            let stream = client.publish_stream(with_key(pending())).await.unwrap();
            assert_eq!(shown().as_deref(), Some("fanwire_api_publish_streams 1"));
            drop(stream);
            assert_eq!(shown().as_deref(), Some("fanwire_api_publish_streams 0"));
        });
    });
}
