//! What one turn did, as plain numbers: the engine knows no metric library.

use std::time::Duration;

use super::load::Load;

/// Facts of one turn. Counts are of this turn alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TurnReport {
    /// The step that completed in this turn, if one did.
    pub step: Option<StepFacts>,
    /// Requests taken from the mailbox.
    pub submitted: u32,
    /// Requests that got their first rows into a step.
    pub started: u32,
    /// Requests that lost their blocks to others.
    pub preemptions: u32,
    /// Tokens of started requests that the prefix cache was asked for.
    pub prefix_query_tokens: u64,
    /// Of these, found.
    pub prefix_hit_tokens: u64,
    /// Prompt tokens computed by the completed step.
    pub prompt_tokens: u64,
    /// Tokens that were generated and sent.
    pub generated_tokens: u64,
    /// Sampled tokens thrown away: their choice had ended when they arrived.
    pub discarded_tokens: u64,
    /// Requests that ended with `Done`.
    pub done: u32,
    /// Requests whose deadline passed.
    pub expired: u32,
    /// Requests that did not start when it was promised.
    pub late: u32,
    /// Requests whose caller left.
    pub cancelled: u32,
    /// Requests that ended with `Failed`.
    pub failed: u32,
    /// Choices that ended because a row was not finite (R35).
    pub rows_not_finite: u32,
    /// Steps that the device could not run.
    pub step_faults: u32,
    /// The state after the turn.
    pub load: Load,
}

/// Facts of a completed step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepFacts {
    /// Its number.
    pub step: u64,
    /// Rows in all.
    pub rows: u32,
    /// Rows of prompts, and of tokens computed again after a preemption.
    pub prefill_rows: u32,
    /// Rows that each continue a sequence by one token.
    pub decode_rows: u32,
    /// Sequences in it.
    pub sequences: u32,
    /// Device time.
    pub elapsed: Duration,
    /// By how much of its time it took longer than predicted (below 0: shorter); `None` while the
    /// cost model is not warm.
    pub prediction_error: Option<f64>,
}
