//! What the engine is doing: a snapshot that the gate, readiness and `/load` read.

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
    /// KV blocks owned by sequences.
    pub blocks_used: u32,
    /// KV blocks that only the prefix cache holds.
    pub blocks_cached: u32,
    /// All KV blocks.
    pub blocks_total: u32,
    /// Steps completed since start.
    pub steps: u64,
    /// When the device began the step that it computes; `None` while it has none.
    pub step_began: Option<Time>,
    /// Moving average of a step's duration, in seconds.
    pub step_s: f64,
    /// Moving average of generated tokens a second while busy.
    pub tokens_per_s: f64,
    /// Moving average of prompt tokens computed a second while prefilling.
    pub prefill_tokens_per_s: f64,
    /// Moving average of requests that ended each second while busy.
    pub requests_per_s: f64,
    /// Whether the engine's thread turns.
    pub alive: bool,
    /// Restarts of the engine's thread since start.
    pub restarts: u32,
}
