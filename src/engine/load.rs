//! What the engine is doing: a snapshot that the gate, readiness and `/load` read.

use std::time::Duration;

use super::cost::CostModel;
use crate::clock::Time;

/// Replaced after each turn; readers never touch the engine's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Sequences that have blocks.
    pub running: u32,
    /// Requests that wait for their first step or were preempted.
    pub waiting: u32,
    /// Prompt tokens not yet computed, of all requests that wait or prefill.
    pub waiting_prompt_tokens: u64,
    /// Tenants whose service is remembered, with or without requests.
    pub tenants: u32,
    /// KV blocks owned by sequences.
    pub blocks_used: u32,
    /// KV blocks that only the prefix cache holds.
    pub blocks_cached: u32,
    /// Free KV blocks in which a computation left a NaN; used again after all others only.
    pub blocks_quarantined: u32,
    /// All KV blocks.
    pub blocks_total: u32,
    /// Tokens of a KV block.
    pub block_size_tokens: u32,
    /// Blocks that a request could be given now: free ones and those that only the prefix cache
    /// holds, less what is kept for requests that may not be preempted again.
    pub blocks_available: u32,
    /// Sequences that could begin to run now, blocks apart.
    pub slots_free: u32,
    /// Sequences that generate a token a step.
    pub decoding: u32,
    /// Tokens of context of all of these.
    pub decoding_context_tokens: u64,
    /// Known tokens that running sequences have still to compute; part of
    /// `waiting_prompt_tokens`.
    pub prefilling_tokens: u64,
    /// Moving average of the blocks that ended sequences gave back, each second of device time.
    pub blocks_released_per_s: f64,
    /// As `blocks_released_per_s`, of the sequences' slots.
    pub slots_released_per_s: f64,
    /// What a step costs.
    pub cost: CostModel,
    /// Rows of a step at most.
    pub step_rows_max: u32,
    /// The tightest objective of the time between two tokens among what runs: what a step may
    /// take. `None`: no sequence has one.
    pub step_budget: Option<Duration>,
    /// Steps completed since start.
    pub steps: u64,
    /// When the device began the step that it computes; `None` while it has none.
    pub step_began: Option<Time>,
    /// How long that step was predicted to take, if the cost model was warm.
    pub step_predicted: Option<Duration>,
    /// The last request that an idle engine made itself came to nothing (R23).
    pub canary_failed: bool,
    /// Moving average of a step's duration, in seconds.
    pub step_s: f64,
    /// Moving average of generated tokens a second while busy.
    pub tokens_per_s: f64,
    /// Moving average of prompt tokens computed a second while prefilling.
    pub prefill_tokens_per_s: f64,
    /// Moving average of requests that ended each second while busy.
    pub requests_per_s: f64,
    /// Too many rows were not finite lately: the server is not ready until then (R35).
    pub unsound_until: Option<Time>,
    /// Whether the engine's thread turns.
    pub alive: bool,
    /// Restarts of the engine's thread since start.
    pub restarts: u32,
}

impl Load {
    /// How long the running step may take before something is wrong: 20 times as long as was
    /// predicted, or as steps take on average, and not less than `least`. Long prefills are
    /// innocent (R22).
    pub fn overdue_after(&self, least: Duration) -> Duration {
        let average = Duration::from_secs_f64(self.step_s);
        let usual = self.step_predicted.map_or(average, |predicted| predicted.max(average));
        least.max(usual.saturating_mul(20))
    }
}
