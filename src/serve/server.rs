//! A running server: all rooms joined, started and stopped in order.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle as Task, JoinSet};

use super::ledger;
use super::model::{self, Loaded};
use super::random;
use super::reload::{self, Reloader};
use crate::clock::Clock;
use crate::config::{Config, LoadFormat, ServerConfig};
use crate::engine::{EngineConfig, EngineError, EngineHandle, TurnReport};
use crate::gate::ledger::Committer;
use crate::gate::{Gate, KeyFile, KeyStore, Rosters};
use crate::http::{self, AppState, Control, CpuPool, Seeds, Shutdown, Surface, listener};
use crate::metrics::{Metrics, StepFacts};

/// Metric samples are moved into their buckets this often, scraped or not.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How often the engine's health and the drain's progress are looked at.
const WATCH: Duration = Duration::from_millis(20);
/// After an abort, streams have this long to send their error event.
const ABORT_GRACE: Duration = Duration::from_secs(1);
/// Prompts that may wait for a thread to render and tokenise them, for each such thread.
const TEXT_WAITING_PER_WORKER: usize = 512;

/// A server that listens. Dropping it leaves the listening to the runtime's end.
pub struct Server {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    summary: String,
    state: Arc<AppState>,
    engine_thread: Option<JoinHandle<Result<(), EngineError>>>,
    /// One for each listener that has not ended.
    listening: JoinSet<()>,
    upkeep: Task<()>,
    /// None when budgets live in memory, and once it has ended.
    committer: Option<Committer>,
    reloader: Arc<Reloader>,
    keeping: Task<()>,
    drain_asked: Arc<Notify>,
}

impl Server {
    /// Loads the model, starts the engine and listens. Has to run inside a tokio runtime.
    ///
    /// # Errors
    /// What could not be loaded or bound, and what to do about it.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let hangup = reload::hangup()?;
        let store = config.server.state_dir.clone().map(KeyStore::new);
        let stamp = store.as_ref().and_then(KeyStore::stamp);
        let keys = store.map_or(Ok(None), |store| store.read())?;
        refuse_open_address(&config.server, keys.as_ref())?;
        let loading = {
            let (config, clock) = (config.clone(), Arc::clone(&clock));
            tokio::task::spawn_blocking(move || model::load(&config, clock))
        };
        let Loaded { device, text, card, summary, cache_labels } =
            loading.await.context("loading the model ended abnormally")??;
        let metrics = Arc::new(Metrics::new(card.name(), config.server.vllm_metrics)?);
        metrics.cache_config(&cache_labels);
        let (ledger, committer) = ledger::open(&config.server, &clock, &metrics)?;
        let engine_config = engine_config(&config)?;
        let observer = observer(Arc::clone(&metrics));
        let (engine, thread) =
            EngineHandle::start(engine_config, device, Arc::clone(&clock), observer)?;
        let (control, commands) = Control::new();
        let rosters = rosters(&config.server, keys.as_ref());
        let gate = Gate::new(rosters, config.server.queue).with_ledger(ledger);
        let state = app_state(&config, gate, engine, text, card, control, metrics, clock)?;
        let mut listening = JoinSet::new();
        let mut listen = async |bind, flag, surface| {
            let connections = match surface {
                Surface::Inference { .. } => Arc::clone(&state.connections),
                Surface::Admin | Surface::Metrics => Arc::default(),
            };
            listen(&mut listening, &config, &state, bind, flag, surface, connections).await
        };
        let (host, with_metrics) = (config.server.host, config.server.metrics.is_none());
        let bind = SocketAddr::new(host, config.server.port);
        let address = listen(bind, "port", Surface::Inference { with_metrics }).await?;
        let admin = match config.server.admin {
            Some(bind) => Some(listen(bind, "admin-port", Surface::Admin).await?),
            None => None,
        };
        let metrics = match config.server.metrics {
            Some(bind) => Some(listen(bind, "metrics-port", Surface::Metrics).await?),
            None => None,
        };
        let reloader = Arc::new(Reloader::new(&config, keys, stamp, &state));
        let drain_asked = Arc::new(Notify::new());
        let keeping =
            reload::keep(Arc::clone(&reloader), hangup, commands, Arc::clone(&drain_asked));
        Ok(Self {
            address,
            admin,
            metrics,
            summary,
            upkeep: tokio::spawn(upkeep(Arc::clone(&state.metrics))),
            state,
            engine_thread: Some(thread),
            listening,
            committer,
            reloader,
            keeping: tokio::spawn(keeping),
            drain_asked,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin routes are, if they are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where metrics are, if they have a listener of their own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Tells the person who started it what it serves and how to ask. Nobody has to listen: a
    /// closed standard output is no reason not to serve.
    pub fn announce(&self) {
        let _ = std::io::stdout().lock().write_all(self.greeting().as_bytes());
    }

    fn greeting(&self) -> String {
        let (address, name) = (self.address, self.state.model.name());
        let metrics = self.metrics.unwrap_or(address);
        let admin = self.admin.map_or(String::new(), |admin| {
            format!("Admin routes are at http://{admin}/admin/v1.\n")
        });
        format!(
            "Weir {} serves {}\non http://{address}/v1 (metrics at http://{metrics}/metrics).\n\
             {admin}Try:\n\n  curl -s http://{address}/v1/chat/completions \
             -H 'content-type: application/json' -d '{{\"model\": \"{name}\", \"messages\": \
             [{{\"role\": \"user\", \"content\": \"Hello! Who are you?\"}}]}}'\n\n",
            self.state.version, self.summary
        )
    }

    /// Returns when an admin has asked for a drain.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// Returns when the engine has died and cannot be restarted.
    pub async fn engine_lost(&self) {
        while self.state.engine.failure().is_none() {
            tokio::time::sleep(WATCH).await;
        }
        if let Some(failure) = self.state.engine.failure() {
            tracing::error!(%failure, "the engine has ended");
        }
    }

    /// Ends what runs, each stream with an error event.
    pub async fn abort(&mut self) {
        self.state.gate.drain();
        self.state.shutdown.abort();
        self.listened().await;
        self.stop_engine();
    }

    /// Readiness goes red and new requests are refused at once; running answers may finish within
    /// `timeout`, then they end with an error event. Returns when all has stopped.
    pub async fn drain(&mut self, timeout: Duration) {
        self.state.gate.drain();
        let finished = async {
            while self.state.gate.open_requests() > 0 {
                tokio::time::sleep(WATCH).await;
            }
        };
        if tokio::time::timeout(timeout, finished).await.is_err() {
            let open = self.state.gate.open_requests();
            tracing::warn!(open, "the drain timeout has passed; ending what still runs");
            self.abort().await;
            return;
        }
        self.state.shutdown.drain();
        self.listened().await;
        self.abort().await;
    }

    /// Waits for the connections' end, for a moment.
    async fn listened(&mut self) {
        let all = async { while self.listening.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ABORT_GRACE, all).await;
    }

    fn stop_engine(&mut self) {
        self.upkeep.abort();
        self.keeping.abort();
        self.reloader.note_use();
        self.state.engine.stop();
        if let Some(thread) = self.engine_thread.take()
            && thread.is_finished()
            && let Ok(Err(error)) = thread.join()
        {
            tracing::error!(%error, "the engine had failed");
        }
        // After the connections: what ended with them is settled and becomes durable here.
        if let Some(committer) = self.committer.take() {
            committer.close();
        }
    }
}

/// Without keys anybody who reaches an address could use the server (R27).
fn refuse_open_address(server: &ServerConfig, keys: Option<&KeyFile>) -> Result<()> {
    if !server.api_keys.is_empty() || keys.is_some() || server.insecure_no_auth {
        return Ok(());
    }
    let admin = server.admin.map(|address| ("admin-host", address.ip()));
    let metrics = server.metrics.map(|address| ("metrics-host", address.ip()));
    let hosts = [Some(("host", server.host)), admin, metrics];
    if let Some((flag, host)) = hosts.into_iter().flatten().find(|(_, ip)| !ip.is_loopback()) {
        anyhow::bail!(
            "--{flag}: {host} is not a loopback address and there is no key: anybody who reaches \
             this machine could use it. Create one (`weir keys create --tenant NAME`) or set \
             --api-key, or say --insecure-no-auth"
        );
    }
    Ok(())
}

/// Listens on `bind`, of which `flag` names the port, and serves `surface` there.
async fn listen(
    listening: &mut JoinSet<()>,
    config: &Config,
    state: &Arc<AppState>,
    bind: SocketAddr,
    flag: &str,
    surface: Surface,
    connections: Arc<listener::Connections>,
) -> Result<SocketAddr> {
    let host = flag.replace("port", "host");
    let listener = TcpListener::bind(bind).await.with_context(|| {
        format!("cannot listen on {bind}; choose another --{flag} (0 takes a free one) or --{host}")
    })?;
    let address = listener.local_addr().context("the socket has no address")?;
    listening.spawn(listener::serve(
        listener,
        http::router(Arc::clone(state), surface),
        config.server.listener.clone(),
        state.shutdown.clone(),
        connections,
        Arc::clone(&state.metrics),
        Arc::clone(&state.clock),
    ));
    Ok(address)
}

fn rosters(server: &ServerConfig, keys: Option<&KeyFile>) -> Rosters {
    let rosters = Rosters::new(&server.tenancy, &server.api_keys, keys);
    if !rosters.current().needs_key() && !server.tenancy.tenants.is_empty() {
        tracing::warn!(
            "there are tenants but no keys: everybody is the tenant \"default\" until `weir keys \
             create` has made one"
        );
    }
    rosters
}

async fn upkeep(metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(METRICS_UPKEEP).await;
        metrics.run_upkeep();
    }
}

#[allow(clippy::too_many_arguments, reason = "the rooms meet here, and nowhere else")]
fn app_state(
    config: &Config,
    gate: Gate,
    engine: EngineHandle,
    text: Arc<crate::text::Text>,
    model: http::ModelCard,
    control: Control,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<AppState>> {
    let server = &config.server;
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    // A seed for dummy weights alone must not make every unseeded request equal to the last run's.
    let fixed = config.model.seed != 0 && config.model.load_format != LoadFormat::Dummy;
    let seed = if fixed { config.model.seed } else { u64::from_le_bytes(random()?) };
    Ok(Arc::new(AppState {
        gate: Arc::new(gate),
        text,
        engine,
        metrics,
        clock,
        limits: server.request.clone(),
        model,
        cpu: CpuPool::new(workers, workers * TEXT_WAITING_PER_WORKER),
        seeds: Seeds::new(seed),
        keep_alive_interval: server.listener.keep_alive_interval,
        connections: Arc::default(),
        shutdown: Shutdown::new(),
        control,
        version: env!("CARGO_PKG_VERSION"),
    }))
}

fn engine_config(config: &Config) -> Result<EngineConfig> {
    let settings = &config.engine;
    // The gate bounds what waits; the engine's own bound only has to be above it, so that what was
    // admitted is never refused later. A request of n prompts is n submissions.
    let waiting_max = config.server.queue.requests_max.saturating_mul(2).max(1024);
    Ok(EngineConfig {
        step_rows_max: settings.step_tokens_max,
        running_max: settings.sequences_max,
        waiting_max,
        mailbox_max: waiting_max as usize,
        prefix_caching: settings.prefix_caching,
        ..EngineConfig::new(random()?)
    })
}

/// Turns the engine's reports into metrics, on the engine's thread.
fn observer(metrics: Arc<Metrics>) -> Box<dyn FnMut(&TurnReport) + Send> {
    Box::new(move |report| {
        let Some(step) = report.step else { return };
        metrics.step(&StepFacts {
            tokens: step.rows,
            sequences: step.sequences,
            elapsed: step.elapsed,
            prediction_error: step.prediction_error,
            preemptions: report.preemptions,
            cache_query_tokens: u32::try_from(report.prefix_query_tokens).unwrap_or(u32::MAX),
            cache_hit_tokens: u32::try_from(report.prefix_hit_tokens).unwrap_or(u32::MAX),
        });
    })
}
