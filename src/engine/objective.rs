//! How long a step may take: as long as the tightest objective among what runs allows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::policy;
use super::scheduler::Scheduler;
use super::step::Step;

/// The objectives of running requests of the time between two tokens, and how many have each.
#[derive(Debug, Default)]
pub(super) struct Objectives {
    counts: BTreeMap<Duration, u32>,
}

/// Chunks that an objective cuts short are multiples of this.
const CHUNK_ROWS: u32 = 16;

impl Objectives {
    /// Adds that of a request that starts.
    pub fn add(&mut self, tpot: Option<Duration>) {
        if let Some(tpot) = tpot {
            *self.counts.entry(tpot).or_default() += 1;
        }
    }

    /// Removes that of a request that ran.
    pub fn remove(&mut self, tpot: Option<Duration>) {
        let Some(tpot) = tpot else { return };
        let count = self.counts.get_mut(&tpot).expect("what runs was added when it started");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&tpot);
        }
    }

    /// The shortest.
    pub fn tightest(&self) -> Option<Duration> {
        self.counts.first_key_value().map(|(tpot, _)| *tpot)
    }
}

impl Scheduler {
    /// Prefill rows that a step with all its decodes may hold. Without an objective, or without
    /// decodes that would wait, as many as there is room for.
    pub(super) fn prefill_rows_max(&self, step: &Step) -> u32 {
        let Some(budget) = self.objectives.tightest().filter(|_| step.decode_rows > 0) else {
            return u32::MAX;
        };
        let least = policy::prefill_rows_min(self.rows_max);
        let first = self.prefilling.first();
        let context = first.map_or(0, |seq| self.seqs[*seq].scheduled);
        let fitting = self.cost.rows_for(budget, &step.shape, context);
        let rows = fitting.map_or(least, |rows| rows / CHUNK_ROWS * CHUNK_ROWS);
        if policy::prefill_is_due(self.steps_without_prefill) { rows.max(least) } else { rows }
    }
}
