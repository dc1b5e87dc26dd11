//! A step in flight: the plan the device got, and what its results mean to the scheduler.

use super::sequence::SeqKey;
use crate::device::StepPlan;

/// Reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub plan: StepPlan,
    pub parts: Vec<Part>,
    /// The sequence of each `SampleKind::Next`, in the plan's order.
    pub nexts: Vec<SeqKey>,
    pub prefill_rows: u32,
    pub decode_rows: u32,
    /// Whether it runs the suspects of a failed step alone.
    pub trial: bool,
}

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub seq: SeqKey,
    /// The sequence's epoch when the step was planned.
    pub epoch: u32,
    /// Positions computed when the step has completed.
    pub end: u32,
    /// Prompt rows scored, and the position of the first.
    pub scores: u32,
    pub scores_start: u32,
    /// Whether the step copies the common prompt's last block for the sequence.
    pub forks: bool,
}

impl Step {
    /// Empties it for the step of this number.
    pub fn clear(&mut self, number: u64) {
        self.plan.clear(number);
        self.parts.clear();
        self.nexts.clear();
        self.prefill_rows = 0;
        self.decode_rows = 0;
        self.trial = false;
    }

    /// Rows in the plan.
    pub fn rows(&self) -> u32 {
        self.plan.rows() as u32
    }
}
