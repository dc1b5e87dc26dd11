//! What a simulated run is made of.

use std::time::Duration;

use weir::config::{LedgerLimits, QueueLimits, TenantSettings};
use weir::device::DeviceLimits;
use weir::device::sim::SimConfig;
use weir::engine::EngineConfig;
use weir::ids::TokenId;

use super::traffic::Traffic;

pub const VOCAB: u32 = 1000;
/// Sampled tokens are below this; the ones from here on have a special effect in prompts.
pub const SAMPLED: u32 = 990;
pub const EOS: TokenId = TokenId(7);
pub const POISON: TokenId = TokenId(998);
pub const NAN: TokenId = TokenId(999);

#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub engine: EngineConfig,
    pub sim: SimConfig,
    pub queue: QueueLimits,
    pub ledger: LedgerLimits,
    pub tenants: Vec<TenantSettings>,
    pub traffic: Traffic,
    pub client: Client,
    pub mishaps: Mishaps,
    /// All requests enter as one tenant without objectives: plain first come, first served.
    pub fifo: bool,
    /// What the tally holds answers against.
    pub ttft_objective: Duration,
    pub tpot_objective: Duration,
    /// Invariants are checked after each so many turns; 0: never.
    pub check_every: u64,
}

/// How clients behave; the stock SDKs' numbers.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub retries_max: u32,
    /// A client that has no first token by then leaves, and tries again as after an error.
    pub patience: Duration,
}

/// What happens to the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mishaps {
    /// Mean time between two `kill -9`; the ledger's disk loses what was not synced.
    pub kill_every: Option<Duration>,
    /// Mean time between two reloads, which change weights and budgets.
    pub reload_every: Option<Duration>,
    /// The ledger is committed this often.
    pub commit_every: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self { retries_max: 2, patience: Duration::from_secs(10) }
    }
}

/// The device of the scheduling study.
pub fn device() -> SimConfig {
    let limits = DeviceLimits {
        block_size_tokens: 16,
        blocks_total: 25_000,
        step_rows_max: 2048,
        slots_total: 512,
        context_tokens_max: 8192,
        vocab_size: VOCAB,
        steps_in_flight_max: 1,
        computes_in_submit: false,
    };
    SimConfig { eos: Some((EOS, 1.0 / 200.0)), sampled: 0..SAMPLED, ..SimConfig::new(limits) }
}
