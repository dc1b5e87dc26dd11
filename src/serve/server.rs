//! A running server: all rooms joined, started and stopped in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle as Task;

use super::ledger;
use super::model::{self, Loaded};
use crate::clock::Clock;
use crate::config::{Config, LoadFormat, ServerConfig};
use crate::engine::{EngineConfig, EngineError, EngineHandle, TurnReport};
use crate::gate::ledger::Committer;
use crate::gate::{Gate, KeyFile, KeyStore, Rosters};
use crate::http::{self, AppState, CpuPool, Seeds, Shutdown, listener};
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
    summary: String,
    state: Arc<AppState>,
    engine_thread: Option<JoinHandle<Result<(), EngineError>>>,
    /// None once it has ended.
    listening: Option<Task<()>>,
    upkeep: Task<()>,
    /// None when budgets live in memory, and once it has ended.
    committer: Option<Committer>,
}

impl Server {
    /// Loads the model, starts the engine and listens. Has to run inside a tokio runtime.
    ///
    /// # Errors
    /// What could not be loaded or bound, and what to do about it.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let keys = match &config.server.state_dir {
            Some(folder) => KeyStore::new(folder.clone()).read()?,
            None => None,
        };
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
        let bind = SocketAddr::new(config.server.host, config.server.port);
        let listener = TcpListener::bind(bind).await.with_context(|| {
            format!("cannot listen on {bind}; choose another --port (0 takes a free one) or --host")
        })?;
        let address = listener.local_addr().context("the socket has no address")?;
        let server = &config.server;
        let rosters = Rosters::new(&server.tenancy, &server.api_keys, keys.as_ref());
        let gate = Gate::new(rosters, server.queue).with_ledger(ledger);
        let state = app_state(&config, gate, engine, text, card, Arc::clone(&metrics), clock)?;
        let listening = tokio::spawn(listener::serve(
            listener,
            http::router(Arc::clone(&state)),
            config.server.listener.clone(),
            state.shutdown.clone(),
            Arc::clone(&state.connections),
            Arc::clone(&metrics),
            Arc::clone(&state.clock),
        ));
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP).await;
                metrics.run_upkeep();
            }
        });
        Ok(Self {
            address,
            summary,
            state,
            engine_thread: Some(thread),
            listening: Some(listening),
            upkeep,
            committer,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the person who started it what it serves and how to ask.
    #[allow(clippy::print_stdout, reason = "the one greeting of the command")]
    pub fn announce(&self) {
        let (address, name) = (self.address, self.state.model.name());
        println!("Weir {} serves {}", self.state.version, self.summary);
        println!("on http://{address}/v1 (metrics at http://{address}/metrics). Try:\n");
        println!(
            "  curl -s http://{address}/v1/chat/completions -H 'content-type: application/json' \
             -d '{{\"model\": \"{name}\", \"messages\": [{{\"role\": \"user\", \"content\": \
             \"Hello! Who are you?\"}}]}}'\n"
        );
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
        if let Some(listening) = &mut self.listening
            && tokio::time::timeout(ABORT_GRACE, listening).await.is_ok()
        {
            self.listening = None;
        }
    }

    fn stop_engine(&mut self) {
        self.upkeep.abort();
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

fn app_state(
    config: &Config,
    gate: Gate,
    engine: EngineHandle,
    text: Arc<crate::text::Text>,
    model: http::ModelCard,
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

/// Random bytes of the operating system: the one place where randomness enters the process.
#[allow(clippy::disallowed_methods, reason = "seeds and secrets begin here")]
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the operating system gives no randomness")?;
    Ok(bytes)
}
