//! What a simulated step costs.

use std::time::Duration;

use super::super::StepPlan;

/// A step's duration: a sum over what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimCost {
    /// Each step.
    pub fixed: Duration,
    /// Each row of a span that has several (prefill).
    pub per_prefill_row: Duration,
    /// Each sequence.
    pub per_sequence: Duration,
    /// Each 1,024 tokens of context, over all sequences.
    pub per_1024_context_tokens: Duration,
}

impl Default for SimCost {
    /// The figures of the scheduling study: 5 ms, 16 µs a prefill row, 3 µs a sequence, 33 ns a
    /// token of context.
    fn default() -> Self {
        Self {
            fixed: Duration::from_millis(5),
            per_prefill_row: Duration::from_micros(16),
            per_sequence: Duration::from_micros(3),
            per_1024_context_tokens: Duration::from_nanos(33 * 1024),
        }
    }
}

impl SimCost {
    /// Duration of a step.
    pub fn of(&self, plan: &StepPlan) -> Duration {
        let mut prefill_rows = 0;
        let mut context_tokens = 0;
        for span in &plan.spans {
            prefill_rows += if span.row_count > 1 { u64::from(span.row_count) } else { 0 };
            context_tokens += u64::from(span.context_tokens);
        }
        let ns = self.fixed.as_nanos() as u64
            + self.per_prefill_row.as_nanos() as u64 * prefill_rows
            + self.per_sequence.as_nanos() as u64 * plan.spans.len() as u64
            + self.per_1024_context_tokens.as_nanos() as u64 * context_tokens / 1024;
        Duration::from_nanos(ns)
    }
}
