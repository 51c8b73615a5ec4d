//! Traces of requests to the control plane, for an OpenTelemetry collector.
//!
//! Off unless configured; then nothing of this is on a request's way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanwire_net::{Handler, RpcHandler};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan,
};

use crate::config;

/// Makes a span of each request that is wrapped. Clones send together.
#[derive(Clone)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The most spans that wait to be sent; with more there are gaps in traces.
const MAX_WAITING: usize = 4096;

/// How long spans gather before they are sent.
const GATHER: Duration = Duration::from_secs(1);

/// How long the collector may take, and the node for its last spans.
const PATIENCE: Duration = Duration::from_secs(3);

impl Traces {
    /// Begins, if that is wanted: `None` without an endpoint.
    ///
    /// # Errors
    ///
    /// If the exporter does not take the endpoint.
    pub(crate) fn start(config: &config::Trace, name: &str, id: &str) -> Result<Option<Self>, ExporterBuildError> {
        if config.endpoint.is_empty() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new())
            .with_endpoint(&config.endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .build()?;
        let batches =
            BatchConfigBuilder::default().with_max_queue_size(MAX_WAITING).with_scheduled_delay(GATHER).build();
        let attributes = [
            KeyValue::new("service.name", "fanwire"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", id.to_owned()),
            KeyValue::new("host.name", name.to_owned()),
        ];
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            // Who asks decides whether its trace is complete.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample))))
            .with_resource(Resource::builder_empty().with_attributes(attributes).build())
            .build();
        Ok(Some(Self { tracer: provider.tracer("fanwire"), provider }))
    }

    /// Makes a span of each request, from its headers to its answer.
    pub(crate) fn http(&self, handler: Handler) -> Handler {
        let traces = self.clone();
        Arc::new(move |request| {
            let mut span = traces.begin(&request);
            let answer = handler(request);
            async move {
                let answer = answer.await;
                note_status(&mut span, answer.status());
                answer
            }
            .boxed()
        })
    }

    /// Makes a span of each call, from its headers to the end of its answer.
    pub(crate) fn rpc(&self, handler: RpcHandler) -> RpcHandler {
        let traces = self.clone();
        Arc::new(move |request| {
            let mut span = traces.begin(&request);
            span.set_attribute(KeyValue::new("rpc.system", "grpc"));
            let answer = handler(request);
            async move {
                let (head, body) = answer.await.into_parts();
                note_status(&mut span, head.status);
                note_grpc_status(&mut span, &head.headers);
                // Dropped with the body, the span ends.
                let body = body.map_frame(move |frame| {
                    if let Some(trailers) = frame.trailers_ref() {
                        note_grpc_status(&mut span, trailers);
                    }
                    frame
                });
                Response::from_parts(head, body.boxed_unsync())
            }
            .boxed()
        })
    }

    /// Sends what is left. It blocks.
    pub(crate) fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last traces are lost");
        }
    }

    fn begin<B>(&self, request: &Request<B>) -> SdkSpan {
        // Not within anything that goes on here: a thread has many requests at a time.
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
        let path = request.uri().path();
        let mut attributes = vec![
            KeyValue::new("http.request.method", request.method().as_str().to_owned()),
            KeyValue::new("url.path", shortened(path)),
        ];
        if let Some(peer) = request.extensions().get::<SocketAddr>() {
            attributes.push(KeyValue::new("client.address", peer.ip().to_string()));
        }
        let span = self.tracer.span_builder(format!("{} {}", request.method(), shortened(path)));
        span.with_kind(SpanKind::Server).with_attributes(attributes).start_with_context(&self.tracer, &parent)
    }
}

/// The longest path in a span, in characters.
const MAX_PATH: usize = 255;

fn shortened(path: &str) -> String {
    path.chars().take(MAX_PATH).collect()
}

fn note_status(span: &mut SdkSpan, status: StatusCode) {
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
}

fn note_grpc_status(span: &mut SdkSpan, headers: &HeaderMap) {
    let Some(code) = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<i64>().ok()) else {
        return;
    };
    span.set_attribute(KeyValue::new("rpc.grpc.status_code", code));
    if code != 0 {
        span.set_status(Status::error(""));
    }
}

/// Sends spans from the exporter's own thread, where it may block.
#[derive(Debug)]
struct Post {
    agent: ureq::Agent,
    failing: AtomicBool,
}

impl Post {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .build();
        Self { agent: ureq::Agent::new_with_config(config), failing: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let (head, mut body) = self.agent.run(Request::from_parts(head, body.to_vec()))?.into_parts();
        let body = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    /// Says when it begins to fail, and when that is over.
    fn tell(&self, outcome: &Result<Response<Bytes>, ureq::Error>) {
        let mistake = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match (self.failing.swap(mistake.is_some(), Ordering::Relaxed), mistake) {
            (false, Some(error)) => tracing::warn!(error, "traces are lost: the collector does not take them"),
            (true, None) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }
}

/// The largest answer of a collector, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

impl HttpClient for Post {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        async move {
            let outcome = self.send(request);
            self.tell(&outcome);
            Ok(outcome?)
        }
        .boxed()
    }
}
