//! What every handler shares: the rooms below, the model's card, seeds and the pool for text work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;

use super::control::Control;
use super::listener::Connections;
use super::shutdown::Shutdown;
use crate::clock::Clock;
use crate::config::RequestLimits;
use crate::engine::EngineHandle;
use crate::gate::Gate;
use crate::ids::{RequestId, TokenId};
use crate::metrics::Metrics;
use crate::text::Text;

/// Everything that a request needs. One for each server; handlers hold it in an `Arc`.
pub struct AppState {
    /// Decides about entry.
    pub gate: Arc<Gate>,
    /// The model's tokenizer and chat template.
    pub text: Arc<Text>,
    /// The way to the engine.
    pub engine: EngineHandle,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Bounds of one request.
    pub limits: RequestLimits,
    /// What is served.
    pub model: ModelCard,
    /// Threads for templates, tokenizing and large bodies.
    pub cpu: CpuPool,
    /// Randomness of seeds, ids and retry times.
    pub seeds: Seeds,
    /// A comment line goes out on a silent event stream this often, and the head of an answer is
    /// held back for at most this long while the request waits for its first step.
    pub keep_alive_interval: Duration,
    /// Open connections, counted by the listener; for `/metrics`.
    pub connections: Arc<Connections>,
    /// Ends streams that outlive the drain.
    pub shutdown: Shutdown,
    /// What an admin may ask of the process.
    pub control: Control,
    /// Version of the server, for `/version`.
    pub version: &'static str,
}

/// The served model, as clients may know it.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// Names that requests may use; the first is the one in answers. Never empty.
    pub names: Vec<String>,
    /// Prompt plus output of one choice, in tokens, at most.
    pub max_model_len: u32,
    /// Token ids are below this (rows of the model's output).
    pub vocab_size: u32,
    /// When it was loaded, in seconds since 1970.
    pub created_unix_s: u64,
    /// Tokens that end an answer.
    pub eos: Arc<[TokenId]>,
    /// Sampling settings of the model's `generation_config.json`, for requests that name none.
    pub defaults: SamplingDefaults,
    /// `system_fingerprint`: changes whenever the same seed may give other tokens (weights, dtype,
    /// backend, version).
    pub fingerprint: String,
}

/// Sampling settings of a request that names none; OpenAI's defaults unless the model has its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// `temperature`.
    pub temperature: f32,
    /// `top_p`.
    pub top_p: f32,
    /// `top_k`; 0 keeps all.
    pub top_k: u32,
    /// `min_p`.
    pub min_p: f32,
    /// `repetition_penalty`.
    pub repetition_penalty: f32,
}

/// Runs work on user input beside the sockets' threads, at most `workers` at a time; further
/// requests wait, up to a bound.
pub struct CpuPool {
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// Why the pool did not do the work.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PoolError {
    /// Too many requests wait for it already.
    #[error("too many requests wait for tokenizing; retry later")]
    Full,
    /// The work panicked: a bug, of which only this request suffers.
    #[error("preparing the prompt failed")]
    Panicked,
}

/// A seeded stream of random numbers (SplitMix64, Steele et al. 2014) and of request ids.
#[derive(Debug)]
pub struct Seeds {
    state: AtomicU64,
    requests: AtomicU64,
}

impl ModelCard {
    /// The name in answers.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl CpuPool {
    /// A pool of `workers` with at most `waiting_max` requests waiting for one.
    pub fn new(workers: usize, waiting_max: usize) -> Self {
        let workers = Arc::new(Semaphore::new(workers.max(1)));
        Self { workers, waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Runs `work` on a blocking thread. When the caller leaves before a worker is free the work
    /// is not begun; once begun it runs to its end.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let place = WaitingPlace::take(self)?;
        let permit =
            Arc::clone(&self.workers).acquire_owned().await.map_err(|_| PoolError::Full)?;
        drop(place);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| PoolError::Panicked)
    }
}

struct WaitingPlace<'a>(&'a AtomicUsize);

impl<'a> WaitingPlace<'a> {
    fn take(pool: &'a CpuPool) -> Result<Self, PoolError> {
        let place = Self(&pool.waiting);
        if pool.waiting.fetch_add(1, Ordering::AcqRel) >= pool.waiting_max {
            return Err(PoolError::Full);
        }
        Ok(place)
    }
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seeds {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed), requests: AtomicU64::new(1) }
    }

    /// The next number.
    pub fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// A request id that this server has not given before.
    pub fn next_request(&self) -> RequestId {
        RequestId(self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// `ms`, up to a quarter more or less, so that refused clients do not return together.
    pub fn jitter_ms(&self, ms: u64) -> u64 {
        let unit = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (ms as f64 * (0.75 + 0.5 * unit)) as u64
    }
}

/// The output function of SplitMix64: neighbouring inputs give unrelated outputs.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
