//! A step in flight: the plan the device got, and what its results mean to the scheduler.

use super::cost::StepShape;
use super::sequence::SeqKey;
use crate::device::StepPlan;

/// Reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub plan: StepPlan,
    /// All of it but the decodes of [`Step::nexts`].
    pub parts: Vec<Part>,
    /// One for each `SampleKind::Next`, in the plan's order.
    pub nexts: Vec<Next>,
    pub prefill_rows: u32,
    pub decode_rows: u32,
    /// Prefill rows that it may hold, so that it does not take too long for its decodes.
    pub prefill_rows_max: u32,
    /// What its duration depends on.
    pub shape: StepShape,
    /// Whether it runs the suspects of a failed step alone.
    pub trial: bool,
}

/// A token that the step samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// Whose.
    pub seq: SeqKey,
    /// See [`Part::epoch`].
    pub epoch: u32,
    /// [`Part::end`] when the row is a decode, which has no entry among the parts; 0 otherwise.
    pub decoded_to: u32,
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
        self.prefill_rows_max = u32::MAX;
        self.shape = StepShape::default();
        self.trial = false;
    }

    /// The parts of all its sequences, decodes too.
    pub fn all_parts(&self) -> impl Iterator<Item = Part> {
        let decodes = self.nexts.iter().filter(|next| next.decoded_to > 0);
        let decodes = decodes.map(|next| Part {
            seq: next.seq,
            epoch: next.epoch,
            end: next.decoded_to,
            scores: 0,
            scores_start: 0,
            forks: false,
        });
        self.parts.iter().copied().chain(decodes)
    }

    /// Rows that prefill may still take, of a step of at most `rows_max`.
    pub fn prefill_room(&self, rows_max: u32) -> u32 {
        let left = self.prefill_rows_max.saturating_sub(self.prefill_rows);
        left.min(rows_max - self.rows())
    }

    /// Rows in the plan.
    pub fn rows(&self) -> u32 {
        self.plan.rows() as u32
    }
}
