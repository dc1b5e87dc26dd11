//! Who pays for the device's time: each sequence in a step for its rows, and all of them equally
//! for what the step costs in any case. The charges of a step add up to its predicted time.

use super::cost::{CostModel, StepShape};
use super::queue::Flow;
use super::scheduler::Scheduler;
use super::step::Part;

/// The prices of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charges {
    /// See [`CostModel::factor`].
    factor: f64,
    /// A sequence's part of what the step costs in any case.
    fixed_s: f64,
    sequence_s: f64,
    context_token_s: f64,
}

impl Charges {
    /// Of a step of this shape with this many spans.
    pub fn new(cost: &CostModel, shape: &StepShape, spans: usize) -> Self {
        let (prices, factor) = (cost.prices(), cost.factor(shape.rows()));
        let fixed_s = factor * prices.fixed_s / spans.max(1) as f64;
        let sequence_s = fixed_s + factor * prices.sequence_s;
        Self { factor, fixed_s, sequence_s, context_token_s: factor * prices.context_token_s }
    }

    /// Device seconds of a decode whose row attends to `context_tokens` positions.
    pub fn decode_s(&self, context_tokens: u32) -> f64 {
        self.sequence_s + self.context_token_s * f64::from(context_tokens)
    }
}

impl Scheduler {
    /// Charges a starting request for all the prefill that is left of its `known` tokens, so that
    /// its tenant's next request waits its turn although nothing was computed yet.
    pub(super) fn pledge(&mut self, index: u32, known: u32, cached: u32) {
        let request = &mut self.requests[index];
        let from = cached.max(request.charged_to);
        if known > from {
            let seconds = self.cost.prices().prefill_s(known - from, from);
            request.pledged_s += seconds;
            self.queue.charge(request.flow, seconds);
        }
    }

    /// Gives back what a request was charged for prefill that is not computed, or not any more.
    pub(super) fn settle_pledge(&mut self, index: u32) {
        let request = &mut self.requests[index];
        let pledged_s = std::mem::take(&mut request.pledged_s);
        self.queue.refund(request.flow, pledged_s);
    }

    /// Charges the rows of a part that were not charged before. Its sequence stands where the
    /// part began.
    pub(super) fn charge_part(&mut self, part: &Part) {
        let seq = &self.seqs[part.seq.index];
        let (index, reaches_end) = (seq.request, part.end >= seq.known);
        let request = &mut self.requests[index];
        let from = seq.computed.max(request.charged_to);
        if part.end > from {
            request.charged_to = part.end;
            let rows_s = self.cost.prices().prefill_s(part.end - from, from);
            let seconds = self.charges.fixed_s + self.charges.factor * rows_s;
            let pledged_s = request.pledged_s.min(seconds);
            request.pledged_s -= pledged_s;
            self.queue.charge(request.flow, seconds - pledged_s);
        }
        if reaches_end {
            self.settle_pledge(index);
        }
    }

    /// KV blocks that a flow's tenant holds, by its weight.
    pub(super) fn blocks_by_weight(&self, flow: Flow) -> f64 {
        let tenant = &self.queue.tenants[flow.tenant()];
        tenant.by_weight(f64::from(tenant.blocks))
    }
}
