//! Who goes first and who gives way, as comparisons of plain numbers. Holds no state.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

/// Share of device time that the batch class is due while higher classes have a backlog.
pub(super) const BATCH_SHARE: f64 = 0.05;
/// Device seconds that it can be owed, or have had too much of, at most.
pub(super) const BATCH_DUE_MAX_S: f64 = 1.0;
/// Preemptions after which a request is never a victim again (R40).
pub(super) const PREEMPTIONS_MAX: u32 = 2;
/// Steps in a row that may leave little room for prefill, before a part of one is kept for it.
const STEPS_WITHOUT_PREFILL_MAX: u32 = 3;
/// Rows kept for prefill then, if the step has four times as many.
const PREFILL_ROWS_MIN: u32 = 128;

/// What decides whether a running request gives its blocks to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Index of the request.
    pub request: u32,
    /// Of its flow; higher ones give way first.
    pub class: usize,
    /// KV blocks that its tenant's sequences hold, by the tenant's weight.
    pub blocks: f64,
    /// Lower runs first.
    pub priority: i32,
    /// Order of arrival.
    pub order: u64,
    /// Times that it was a victim before.
    pub preemptions: u32,
}

/// The request that loses its blocks: of the lowest class, then of the tenant that holds most for
/// its weight, then of the lowest priority, then the newest. Never the oldest of all and never one
/// that was preempted twice (R40).
pub(super) fn victim(candidates: &[Candidate]) -> Option<Candidate> {
    let oldest = candidates.iter().map(|c| c.order).min()?;
    candidates
        .iter()
        .filter(|c| c.order != oldest && c.preemptions < PREEMPTIONS_MAX)
        .max_by(|a, b| {
            let by_blocks = a.class.cmp(&b.class).then(a.blocks.total_cmp(&b.blocks));
            by_blocks.then((a.priority, a.order).cmp(&(b.priority, b.order)))
        })
        .copied()
}

/// Order of the waiting requests of one tenant: priority, then arrival.
pub(super) fn queue_order(a: (i32, u64), b: (i32, u64)) -> Ordering {
    // Reversed, because a binary heap gives the greatest first.
    Reverse(a).cmp(&Reverse(b))
}

/// Rows of a step of `rows_max` rows that decodes may fill.
pub(super) fn decode_rows_max(rows_max: u32, prefill_waits: bool, steps_without: u32) -> u32 {
    if prefill_waits && prefill_is_due(steps_without) {
        rows_max - prefill_rows_min(rows_max)
    } else {
        rows_max
    }
}

/// Rows of prefill that at least one in four steps holds while prefill waits.
pub(super) fn prefill_rows_min(rows_max: u32) -> u32 {
    PREFILL_ROWS_MIN.min(rows_max / 4).max(1)
}

/// Whether the next step has to hold them.
pub(super) fn prefill_is_due(steps_without: u32) -> bool {
    steps_without >= STEPS_WITHOUT_PREFILL_MAX
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
