//! The engine's limits, each with the name that its metric and its flag have.

use std::time::Duration;

/// Fixed for the engine's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Rows in one step at most (`--max-num-batched-tokens`); the device's own limit also holds.
    pub step_rows_max: u32,
    /// Sequences that run at once (`--max-num-seqs`); the device's slots also limit them.
    pub running_max: u32,
    /// Requests that wait inside the engine; more stay in the mailbox until it is full.
    pub waiting_max: u32,
    /// Submissions between the handle and the engine; more are refused.
    pub mailbox_max: usize,
    /// Submissions taken from the mailbox in one turn, so that a burst does not delay a step.
    pub mail_per_turn_max: usize,
    /// Whether prompts share KV blocks (`--enable-prefix-caching`).
    pub prefix_caching: bool,
    /// Keys the prefix cache (R32); random in each process.
    pub cache_secret: [u8; 32],
    /// Tenants without requests that are remembered, with what they were served.
    pub tenants_max: u32,
    /// Requests that may overtake one that does not fit, before room is kept for it (R39).
    pub overtakes_max: u32,
    /// How long others may overtake it.
    pub overtaking_max: Duration,
    /// Engine-thread panics survived within `restart_window`; one more ends the engine (R8).
    pub restarts_max: u32,
    /// See `restarts_max`.
    pub restart_window: Duration,
    /// An idle engine asks the device for a token this often; `None`: never (R23).
    pub canary_after: Option<Duration>,
    /// A step that takes this long, and 20 times as long as predicted, is overdue (R25).
    pub step_patience: Duration,
    /// A step that takes this long, and 20 times as long as predicted, will not end: the engine is
    /// lost (R24).
    pub step_deadline: Duration,
    /// Steps between two recomputations of all counters (R41); 0 is never.
    pub check_every_steps: u64,
}

impl EngineConfig {
    /// The defaults, with a secret from the operating system's randomness.
    pub fn new(cache_secret: [u8; 32]) -> Self {
        Self {
            step_rows_max: 2048,
            running_max: 256,
            waiting_max: 16_384,
            mailbox_max: 1024,
            mail_per_turn_max: 256,
            prefix_caching: true,
            cache_secret,
            tenants_max: 16_384,
            overtakes_max: 8,
            overtaking_max: Duration::from_secs(2),
            restarts_max: 3,
            restart_window: Duration::from_secs(60),
            canary_after: Some(Duration::from_secs(30)),
            step_patience: Duration::from_secs(10),
            step_deadline: Duration::from_secs(120),
            check_every_steps: 256,
        }
    }
}
