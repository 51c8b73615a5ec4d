//! The wiring: which parts a gateway is made of and which listener carries which.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use fanwire_control::{Api, CertificateName};
use fanwire_hooks::Backends;
use fanwire_native::Native;
use fanwire_net::{ClientName, Handler, Proxies, RpcHandler, Site, Workers};
use fanwire_node::{Broker, Dispatcher, MemoryBroker, MemoryPresence, Node, Parts, Phase, Presence};
use fanwire_plain::Plain;
use futures_util::FutureExt;
use http::Request;
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{BrokerKind, Config, Mistakes};
use crate::listeners::{Certificates, Listeners};
use crate::memory::Memory;
use crate::ops::Readiness;
use crate::reload::{LiveVerifier, MAX_WAITING, Reloader, SharedVerifier, Source};
use crate::traces::Traces;
use crate::{ops, pages, status};

/// How a gateway is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For a person who tries things out.
    Dev,
    /// For production.
    Serve,
}

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration names keys or files that are no good.
    #[error(transparent)]
    Config(#[from] Mistakes),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] fanwire_net::Error),
    /// The address of Redis makes no sense.
    #[error("cannot use Redis")]
    Redis(#[from] fanwire_redis::Error),
    /// The system refuses threads or signals.
    #[error("cannot start")]
    Start(#[from] std::io::Error),
    /// A certificate changed since it was checked, and cannot be used.
    #[error("cannot use a certificate")]
    Tls(#[from] fanwire_net::TlsError),
    /// Traces cannot be sent.
    #[error("cannot send traces")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The metrics recorder cannot be installed.
    #[error("cannot install metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Runs a gateway until it is told to end.
///
/// `source` is for reading the configuration again; a gateway without one ends on SIGHUP.
///
/// # Errors
///
/// Only before it is ready.
pub(crate) fn run(config: &Config, mode: Mode, source: Option<Source>) -> Result<(), Error> {
    let (verifier, keys) = config.secrets().map_err(Mistakes)?;
    let recorder = ops::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers().min(MAX_SHARED_THREADS))
        .thread_name("fanwire-shared")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        verifier.start();
        let hangups = source.as_ref().map(|_| signal(SignalKind::hangup())).transpose()?;
        let dispatcher = Dispatcher::new(config.workers());
        let verifier = Arc::new(LiveVerifier::new(verifier));
        let (broker, presence, health) = carrier(config, &dispatcher)?;
        let hooks = Backends::new(&config.hook, &Handle::current()).map_err(Mistakes)?;
        let node = Node::new(Parts {
            config: config.of_node(),
            dispatcher,
            broker,
            presence,
            authorizer: Box::new(SharedVerifier(Arc::clone(&verifier))),
            hooks: Some(Box::new(hooks.clone())),
        });
        node.admit_at_most(&config.admission);
        let readiness = Readiness {
            node: Arc::clone(&node),
            health: health.clone(),
            unready_when_down: config.broker.redis.unready_when_down,
        };
        let ready = readiness.clone();
        let mut api = Api::new(Arc::clone(&node), &keys, config.log.audit).with_readiness(move || ready.is_ready());
        if config.control.reflection {
            api = api.with_reflection();
        }
        let (reader, wishes) = mpsc::channel(MAX_WAITING);
        if source.is_some() {
            api = api.with_reader(reader);
        }
        let api = Arc::new(api);
        let certificates = Certificates::load(&config.tls)?;
        let watched = certificates.all();
        let proxies = Proxies::new(&config.proxy.trusted).map_err(Mistakes)?;
        let public = if config.proxy.protocol { proxies.clone().with_protocol() } else { proxies.clone() };
        let mut listeners = Listeners::bind(&config.listen, certificates, [public, proxies])?;
        let control = format!("http://{}", listeners.control_addr());

        listeners.public(public_site);
        let traces = Traces::start(&config.trace, node.name(), node.id())?;
        listeners.control(|site| control_site(site, Arc::clone(&api), traces.as_ref()));
        listeners.ops(|site| ops_site(site, recorder.clone(), readiness));
        if listeners.ops_stands_alone() {
            listeners.ops(|site| dashboard_site(site, status::handler(Arc::clone(&node), health.clone())));
        }
        if mode == Mode::Dev {
            listeners.public(|site| site.http("/", 0, pages::demo(&control)));
        }
        let announcement = match mode {
            Mode::Dev => listeners.welcome(),
            Mode::Serve => listeners.summary(),
        };

        let workers = Workers::start(&node)?;
        tokio::spawn(Arc::clone(&node).reconcile());
        tokio::spawn(Arc::clone(&node).take_part());
        let memory = Memory::new(config.shedding.memory_limit);
        let mut shedding = config.shedding.clone();
        if let Some(limit) = memory.limit() {
            // What waits for slow clients must never be what takes the memory from everybody.
            shedding.queue_bytes = shedding.queue_bytes.min((limit / 4.0) as usize);
        }
        tokio::spawn(Arc::clone(&node).keep_afloat(shedding, move || memory.in_use()));
        tokio::spawn(upkeep(recorder));
        tokio::spawn(fanwire_net::keep_fresh(watched.clone()));
        if source.is_some() {
            tokio::spawn(refresh_on_hangup(signal(SignalKind::hangup())?, watched));
        }
        let give_up_after = config.broker.redis.give_up_after;
        if let Some(health) = health.filter(|_| !give_up_after.is_zero()) {
            tokio::spawn(give_up(Arc::clone(&node), health, give_up_after));
        }
        for (listener, site, until) in listeners.into_sites() {
            let leaving = Arc::clone(&node);
            let stop = async move { leaving.reaches(until).await };
            let served = fanwire_net::serve(listener, Arc::clone(&node), site, stop);
            tokio::spawn(served.map(|served| {
                if let Err(error) = served {
                    tracing::error!(%error, "a listener failed");
                }
            }));
        }
        if let (Some(source), Some(hangups)) = (source, hangups) {
            let reloader =
                Reloader { source, running: config.clone(), keys, node: Arc::clone(&node), api, verifier, hooks };
            tokio::spawn(reloader.run(hangups, wishes));
        }
        warn_of_consequences(config, mode);
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // A closed standard output is no reason not to serve.
        let _ = std::io::stdout().write_all(announcement.as_bytes()).and_then(|()| std::io::stdout().flush());

        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = node.reaches(Phase::Leaving) => {}
        }
        tokio::select! {
            () = node.drain(&config.drain) => {}
            _ = terminate.recv() => tracing::warn!("a second signal: the rest is ended at once"),
            _ = interrupt.recv() => tracing::warn!("a second signal: the rest is ended at once"),
        }
        tracing::info!("shutting down");
        node.shut_down().await;
        // Joining threads blocks, but nothing else is left to run.
        tokio::task::block_in_place(|| {
            workers.stop();
            traces.iter().for_each(Traces::shut_down);
        });
        Ok(())
    })
}

/// The threads that the control plane and the ops endpoints share.
const MAX_SHARED_THREADS: usize = 4;

/// The largest request to the control plane, in bytes.
const MAX_CONTROL_BODY: usize = 4 * 1024 * 1024;

/// What carries publications and knows who is where; and its health, if it can be ill.
type Carrier = (Box<dyn Broker>, Box<dyn Presence>, Option<fanwire_redis::Health>);

fn carrier(config: &Config, dispatcher: &Arc<Dispatcher>) -> Result<Carrier, Error> {
    let dispatcher = Arc::clone(dispatcher);
    match config.broker.kind {
        BrokerKind::Memory => {
            let presence = MemoryPresence::new(Arc::clone(&dispatcher));
            Ok((Box::new(MemoryBroker::new(dispatcher)), Box::new(presence), None))
        }
        BrokerKind::Redis => {
            let redis = fanwire_redis::start(&config.broker.redis, dispatcher)?;
            Ok((Box::new(redis.broker), Box::new(redis.presence), Some(redis.health)))
        }
    }
}

/// One line for each client protocol.
fn public_site(site: Site) -> Site {
    site.protocol("/connection/websocket", Arc::new(Native::new())).protocol("/plain", Arc::new(Plain))
}

fn control_site(site: Site, api: Arc<Api>, traces: Option<&Traces>) -> Site {
    let calls = Arc::clone(&api);
    let mut http: Handler = Arc::new(move |mut request| {
        name_certificate(&mut request);
        let api = Arc::clone(&api);
        async move { api.handle(request).await }.boxed()
    });
    let mut rpc: RpcHandler = Arc::new(move |mut request| {
        name_certificate(&mut request);
        let called = Arc::clone(&calls).handle_rpc(request);
        async move { called.await.map(|body| body.map_err(Into::into).boxed_unsync()) }.boxed()
    });
    if let Some(traces) = traces {
        (http, rpc) = (traces.http(http), traces.rpc(rpc));
    }
    site.http("/api", MAX_CONTROL_BODY, http).rpc(rpc)
}

/// Tells the control plane what the listener knows of who calls.
fn name_certificate<B>(request: &mut Request<B>) {
    if let Some(ClientName(name)) = request.extensions_mut().remove::<ClientName>() {
        request.extensions_mut().insert(CertificateName(name));
    }
}

fn ops_site(site: Site, recorder: metrics_exporter_prometheus::PrometheusHandle, readiness: Readiness) -> Site {
    site.http("/metrics", 0, ops::metrics(recorder)).http("/health/live", 0, ops::live()).http(
        "/health/ready",
        0,
        readiness.handler(),
    )
}

/// Names channels and users, so it is nowhere where clients or backends are.
fn dashboard_site(site: Site, status: Handler) -> Site {
    site.http("/status.json", 0, status).http("/", 0, pages::dashboard())
}

/// Says what a configuration means that nobody may have meant.
fn warn_of_consequences(config: &Config, mode: Mode) {
    if mode == Mode::Dev {
        return;
    }
    if config.client.insecure {
        tracing::warn!("client.insecure is on: everything is allowed to everyone");
    }
    let no_token = config.token == fanwire_auth::Config::default();
    if no_token && !config.client.anonymous && !config.client.insecure && config.client.connect_hook.is_empty() {
        tracing::warn!("no key in [token], no client.connect_hook, and client.anonymous is off: no client can connect");
    }
    if config.namespace.is_empty() {
        tracing::warn!("no [[namespace]]: there are no channels");
    }
    if config.api_key.is_empty() {
        tracing::warn!("no [[api_key]]: everyone on this machine may use the control plane");
    }
}

/// Hands the clients over whenever nothing has come through Redis for so long, until it does again.
async fn give_up(node: Arc<Node>, health: fanwire_redis::Health, after: Duration) {
    let until = async |wanted: fn(Option<Duration>, Duration) -> bool| {
        while !wanted(health.cut_off(), after) {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    loop {
        until(|cut_off, after| cut_off.is_some_and(|time| time >= after)).await;
        tracing::warn!("nothing comes through Redis: clients are handed over to other nodes");
        tokio::select! {
            () = node.hand_over() => {}
            () = until(|cut_off, _| cut_off.is_none()) => {}
        }
        tracing::info!("new connections are welcome again");
    }
}

/// Reads the certificates again whenever the process is told to.
async fn refresh_on_hangup(mut hangup: Signal, certificates: Vec<Arc<fanwire_net::Tls>>) {
    while hangup.recv().await.is_some() {
        let certificates = certificates.clone();
        // Fails only if it panics; then the next time is as good.
        let refresh = move || certificates.iter().for_each(|tls| fanwire_net::refresh_and_tell(tls));
        let _ = tokio::task::spawn_blocking(refresh).await;
    }
}

/// Moves histogram samples into their buckets now and then, so that they do not gather between scrapes.
async fn upkeep(recorder: metrics_exporter_prometheus::PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        recorder.run_upkeep();
    }
}
