//! Who goes first and who gives way, as comparisons of plain numbers. Holds no state.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

/// Virtual time of a prompt token that was computed (tokens from the prefix cache are free).
pub(super) const PROMPT_TOKEN_CHARGE: u64 = 1;
/// Virtual time of a generated token: twice a prompt token's, as in the VTC paper (OSDI'24).
pub(super) const GENERATED_TOKEN_CHARGE: u64 = 2;
/// Preemptions after which a request is never a victim again (R40).
pub(super) const PREEMPTIONS_MAX: u32 = 2;
/// Steps in a row that may leave no room for prefill, before a part of one is kept for it.
const STEPS_WITHOUT_PREFILL_MAX: u32 = 3;
/// Rows kept for prefill then, if the step has four times as many.
const PREFILL_ROWS_MIN: u32 = 128;

/// What decides whether a running request gives its blocks to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Index of the request.
    pub request: u32,
    /// Lower runs first.
    pub priority: i32,
    /// Virtual time that its tenant was served.
    pub served: u64,
    /// Order of arrival.
    pub order: u64,
    /// Times that it was a victim before.
    pub preemptions: u32,
}

/// The request that loses its blocks: of the lowest priority, then of the tenant that was served
/// most, then the newest. Never the oldest of all and never one that was preempted twice (R40).
pub(super) fn victim(candidates: &[Candidate]) -> Option<Candidate> {
    let oldest = candidates.iter().map(|c| c.order).min()?;
    candidates
        .iter()
        .filter(|c| c.order != oldest && c.preemptions < PREEMPTIONS_MAX)
        .max_by_key(|c| (c.priority, c.served, c.order))
        .copied()
}

/// Order of the waiting requests of one tenant: priority, then arrival.
pub(super) fn queue_order(a: (i32, u64), b: (i32, u64)) -> Ordering {
    // Reversed, because a binary heap gives the greatest first.
    Reverse(a).cmp(&Reverse(b))
}

/// Rows of a step of `rows_max` rows that decodes may fill.
pub(super) fn decode_rows_max(rows_max: u32, prefill_waits: bool, steps_without: u32) -> u32 {
    if prefill_waits && steps_without >= STEPS_WITHOUT_PREFILL_MAX {
        rows_max - PREFILL_ROWS_MIN.min(rows_max / 4).max(1)
    } else {
        rows_max
    }
}

/// Blocks that a new request must leave free while others run, so that their next tokens do not
/// preempt it at once: 3 % of all.
pub(super) fn blocks_kept_free(blocks_total: u32) -> u32 {
    blocks_total / 32
}

/// Whether room is kept for a request that does not fit, and nobody overtakes it any more (R39).
pub(super) fn keeps_room(
    overtaken: u32,
    blocked_for: Duration,
    overtakes_max: u32,
    overtaking_max: Duration,
) -> bool {
    overtaken >= overtakes_max || blocked_for >= overtaking_max
}
