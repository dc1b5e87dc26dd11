//! What runs in the next step: decodes first, then prompts that are under way, then new requests,
//! up to the step's rows.

use std::ops::Range;
use std::sync::Arc;

use super::policy::{self, Candidate};
use super::request::Request;
use super::scheduler::Scheduler;
use super::sequence::{Phase, SeqKey, Sequence};
use super::step::{Next, Part, Step};
use crate::clock::Time;
use crate::device::{BlockCopy, Input, SampleKind, SampleRow, SlotInit, Span, StepPlan};
use crate::ids::{BlockId, TokenId};

impl Scheduler {
    /// Fills `step` with the next step; it stays empty when there is nothing to run.
    pub fn plan(&mut self, step: &mut Step, now: Time) {
        step.clear(self.step + 1);
        if self.trial.is_some() && self.plan_trial(step) {
            step.trial = true;
            return;
        }
        self.make_room();
        let prefill_waits =
            !self.prefilling.is_empty() || (self.queue.len() > 0 && !self.slots_free.is_empty());
        let without = self.steps_without_prefill;
        let decodes = self.decoding.len();
        let decode_rows_max = policy::decode_rows_max(self.rows_max, prefill_waits, without);
        let looked_at = self.plan_decodes(step, 0..decodes, decode_rows_max);
        step.prefill_rows_max = self.prefill_rows_max(step);
        self.plan_prefills(step);
        self.admit(step, now);
        // Rows that were kept for prefill and not used. New sequences stand behind these.
        let looked_at = self.plan_decodes(step, looked_at..decodes, self.rows_max);
        self.decode_start =
            if decodes == 0 { 0 } else { (self.decode_start + looked_at) % decodes };
        let short = step.prefill_rows < policy::prefill_rows_min(self.rows_max);
        let starved = prefill_waits && short && step.prefill_room(self.rows_max) == 0;
        self.steps_without_prefill = if starved { without + 1 } else { 0 };
    }

    /// Adds the next tokens of a range of the decoding sequences; where it stopped.
    fn plan_decodes(&mut self, step: &mut Step, range: Range<usize>, rows_max: u32) -> usize {
        let count = range.end;
        // When not all fit into a step, the next one begins where this one ended.
        let start = if count == 0 { 0 } else { self.decode_start % count };
        let mut looked_at = range.start;
        while looked_at < count && step.rows() < rows_max {
            let at = start + looked_at;
            let index = self.decoding[if at < count { at } else { at - count }];
            self.plan_decode(step, index);
            looked_at += 1;
        }
        looked_at
    }

    /// Adds a sequence's next token to the step. Adds nothing when its last token is being
    /// sampled already, or when it has no block for it.
    pub(super) fn plan_decode(&mut self, step: &mut Step, index: u32) {
        let seq = &self.seqs[index];
        if seq.generated_soon() >= seq.tokens_max {
            return;
        }
        debug_assert!(seq.scheduled < seq.known || seq.sampling > 0, "a token to go on from");
        let block_size = self.limits.block_size_tokens;
        let forks = seq.forks && self.fork_is_due(seq);
        let room = seq.blocks.len() * block_size;
        if seq.scheduled >= room && !self.grow(index, 1) {
            return;
        }
        if forks {
            self.plan_fork(step, index);
        }
        self.init_slot(step, index);
        let seq = &mut self.seqs[index];
        let key = SeqKey { index, id: seq.id };
        let row = step.rows();
        let plan = &mut step.plan;
        let known = seq.scheduled < seq.known;
        plan.inputs.push(if known { Input::Token(seq.last_token) } else { Input::LastSampled });
        plan.positions.push(seq.scheduled);
        plan.kv_slots.push(seq.blocks.kv_slot(seq.scheduled, block_size));
        push_span(plan, self.table_stride, seq, row, 1);
        let kind = SampleKind::Next { output_index: seq.generated_soon() };
        plan.samples.push(SampleRow { row, slot: seq.slot, kind });
        seq.scheduled += 1;
        seq.sampling += 1;
        if seq.scheduled == room {
            self.full.push(key);
        }
        let (epoch, end) = (seq.epoch, seq.scheduled);
        let decoded_to = if forks { 0 } else { end };
        step.nexts.push(Next { seq: key, epoch, decoded_to });
        if forks {
            step.parts.push(Part { seq: key, epoch, end, scores: 0, scores_start: 0, forks });
        }
        step.decode_rows += 1;
        step.shape.add_decode(end);
    }

    fn plan_prefills(&mut self, step: &mut Step) {
        let mut at = 0;
        while at < self.prefilling.len() && step.prefill_room(self.rows_max) > 0 {
            let index = self.prefilling[at];
            self.plan_chunk(step, index);
            // A sequence whose last chunk this was has left the list.
            at += usize::from(self.prefilling.get(at) == Some(&index));
        }
    }

    /// Adds the next chunk of a sequence's known tokens to the step, as long as rows and blocks
    /// allow, and samples where the chunk reaches the end of them.
    pub(super) fn plan_chunk(&mut self, step: &mut Step, index: u32) {
        let block_size = self.limits.block_size_tokens;
        let seq = &self.seqs[index];
        let wanted = seq.unscheduled().min(step.prefill_room(self.rows_max));
        if wanted == 0 {
            return;
        }
        let forks = seq.forks && self.fork_is_due(seq);
        let lacking = self.pool.blocks_for(seq.scheduled + wanted);
        let lacking = lacking.saturating_sub(seq.blocks.len());
        self.grow(index, lacking);
        let seq = &self.seqs[index];
        let covered = seq.blocks.len() * block_size;
        let rows = wanted.min(covered.saturating_sub(seq.scheduled));
        if rows == 0 {
            return;
        }
        if forks {
            self.plan_fork(step, index);
        }
        let first_row = step.rows();
        self.init_slot(step, index);
        self.push_chunk_rows(step, index, rows);
        let scores = self.push_chunk_samples(step, index, first_row, rows);
        let scores_start = self.requests[self.seqs[index].request].scores_sent;
        let seq = &mut self.seqs[index];
        let scores_start = scores_start.max(seq.scheduled);
        seq.scheduled += rows;
        let key = SeqKey { index, id: seq.id };
        let (epoch, end) = (seq.epoch, seq.scheduled);
        step.parts.push(Part { seq: key, epoch, end, scores, scores_start, forks });
        step.prefill_rows += rows;
        step.shape.add_prefill(rows, end - rows);
        let (done, request) = (seq.scheduled == seq.known && !seq.ended, seq.request);
        let may_decode = seq.tokens_max > 0;
        if done && may_decode {
            self.set_phase(index, Phase::Decode);
        }
        let request = &mut self.requests[request];
        let settled = rows.min(request.backlog_tokens);
        request.backlog_tokens -= settled;
        self.backlog_tokens -= u64::from(settled);
    }

    fn push_chunk_rows(&mut self, step: &mut Step, index: u32, rows: u32) {
        let block_size = self.limits.block_size_tokens;
        let seq = &mut self.seqs[index];
        let prompt = &self.requests[seq.request].prompt;
        let row = step.rows();
        let plan = &mut step.plan;
        for position in seq.scheduled..seq.scheduled + rows {
            plan.inputs.push(Input::Token(token_at(prompt, seq, position)));
            plan.positions.push(position);
            plan.kv_slots.push(seq.blocks.kv_slot(position, block_size));
        }
        push_span(plan, self.table_stride, seq, row, rows);
    }

    /// Asks for the results of a chunk's rows, in order: scores of prompt rows, the first tokens
    /// of the choices that share the prompt, the next token. Returns the number of scores.
    fn push_chunk_samples(&mut self, step: &mut Step, index: u32, first: u32, rows: u32) -> u32 {
        let seq = &self.seqs[index];
        let (start, end) = (seq.scheduled, seq.scheduled + rows);
        let reaches_end = end == seq.known && !seq.ended;
        let request = &self.requests[seq.request];
        let prompt_end = request.prompt_tokens();
        let is_lead = request.lead == Some(index);
        let mut scores = 0;
        if let Some(top) = request.score_prompt
            && is_lead
        {
            for position in start.max(request.scores_sent)..end.min(prompt_end - 1) {
                let token = request.prompt[position as usize + 1];
                let row = first + position - start;
                let kind = SampleKind::Score { token, top };
                step.plan.samples.push(SampleRow { row, slot: seq.slot, kind });
                scores += 1;
            }
        }
        if is_lead && start < prompt_end && end >= prompt_end {
            self.push_first_tokens(step, index, first + prompt_end - 1 - start);
        }
        if reaches_end {
            self.push_next(step, index, first + rows - 1);
        }
        scores
    }

    /// Samples the first tokens of the choices that wait for their lead, from the prompt's last
    /// row.
    fn push_first_tokens(&mut self, step: &mut Step, lead: u32, row: u32) {
        let request = self.seqs[lead].request;
        for choice in 0..self.requests[request].choices.len() {
            let Some(other) = self.requests[request].choices[choice] else { continue };
            let seq = &self.seqs[other];
            if seq.phase == Phase::Unborn && seq.generated.is_empty() {
                self.push_next(step, other, row);
            }
        }
    }

    /// Samples a sequence's next token from a row, unless it may generate none.
    fn push_next(&mut self, step: &mut Step, index: u32, row: u32) {
        let seq = &self.seqs[index];
        if seq.generated_soon() >= seq.tokens_max {
            return;
        }
        self.init_slot(step, index);
        let seq = &mut self.seqs[index];
        let kind = SampleKind::Next { output_index: seq.generated_soon() };
        step.plan.samples.push(SampleRow { row, slot: seq.slot, kind });
        let key = SeqKey { index, id: seq.id };
        step.nexts.push(Next { seq: key, epoch: seq.epoch, decoded_to: 0 });
        seq.sampling += 1;
    }

    /// Tells the device whose slot it is, unless it knows.
    fn init_slot(&mut self, step: &mut Step, index: u32) {
        let seq = &mut self.seqs[index];
        if !seq.slot_ready {
            let request = &self.requests[seq.request];
            step.plan.slot_inits.push(slot_init(seq, &request.prompt, &request.params));
        }
    }

    /// Whether the next position is the first one after the common prompt.
    fn fork_is_due(&self, seq: &Sequence) -> bool {
        seq.scheduled == self.requests[seq.request].prompt_tokens()
    }

    /// Copies the common prompt's last block into the sequence's own, which `grow` has just added.
    fn plan_fork(&mut self, step: &mut Step, index: u32) {
        let seq = &self.seqs[index];
        let from = seq.fork_source.expect("the caller has looked");
        let to = seq.blocks.as_slice()[(seq.scheduled / self.limits.block_size_tokens) as usize];
        step.plan.copies.push(BlockCopy { from, to });
    }

    /// Adds blocks to a sequence: all of them, or as many as there are and false.
    pub(super) fn grow(&mut self, index: u32, blocks: u32) -> bool {
        for _ in 0..blocks {
            let seq = &mut self.seqs[index];
            let reserved = self.blocks_reserved > 0
                && take_reserved(&mut self.requests[seq.request], &mut self.blocks_reserved);
            if !reserved && self.pool.available() <= self.blocks_reserved {
                return false;
            }
            let Some(block) = self.pool.allocate() else { return false };
            seq.blocks.extend(&[block]);
            self.queue.tenants[seq.flow.tenant()].blocks += 1;
            note_blocks(&mut self.tables, self.table_stride, seq);
        }
        true
    }

    /// Gives the sequences whose blocks the last step filled their next one already. Sequences
    /// that started together need it together, and the next step would wait for all of them. Not
    /// when blocks are few: who needs one first is then decided by the plan.
    pub(super) fn grow_full(&mut self) {
        let kept = self.blocks_reserved + self.pool.total() / 16;
        let mut full = std::mem::take(&mut self.full);
        for key in full.drain(..) {
            let seq = self.seqs.get_mut(key.index).filter(|seq| seq.id == key.id);
            let Some(seq) = seq else { continue };
            // Nor are its newest tokens moved to the heap in a step that waits for it.
            seq.generated.settle();
            let goes_on = seq.phase == Phase::Decode && seq.generated_soon() < seq.tokens_max;
            let is_full = seq.scheduled == seq.blocks.len() * self.limits.block_size_tokens;
            if goes_on && is_full && self.pool.available() > kept {
                self.grow(key.index, 1);
            }
        }
        self.full = full;
    }

    /// Preempts requests until the running ones have the blocks of their next step, or will have
    /// them when the steps in flight have completed.
    fn make_room(&mut self) {
        let spare = self.pool.available() - self.blocks_reserved;
        if spare as usize >= self.decoding.len() && self.prefilling.is_empty() {
            return;
        }
        loop {
            let spare = self.pool.available() - self.blocks_reserved + self.pool.resting();
            if self.blocks_needed() <= spare {
                return;
            }
            let candidates = self.candidates();
            let Some(victim) = policy::victim(&candidates) else { return };
            self.requests[victim.request].usage.preemptions += 1;
            self.report.preemptions += 1;
            self.preempt(victim.request);
        }
    }

    /// Blocks that running sequences without a reserve need for their next step.
    fn blocks_needed(&self) -> u32 {
        let mut needed = 0;
        for index in self.decoding.iter().chain(&self.prefilling) {
            let seq = &self.seqs[*index];
            let goes_on = match seq.phase {
                Phase::Decode => seq.generated_soon() < seq.tokens_max,
                _ => seq.unscheduled() > 0,
            };
            if goes_on && self.requests[seq.request].blocks_reserved == 0 {
                let rows = seq.unscheduled().clamp(1, self.rows_max);
                let blocks = self.pool.blocks_for(seq.scheduled + rows);
                needed += blocks.saturating_sub(seq.blocks.len());
            }
        }
        needed
    }

    fn candidates(&self) -> Vec<Candidate> {
        let running = self.requests.iter().filter(|(_, request)| !request.waiting);
        running
            .map(|(index, request)| Candidate {
                request: index,
                class: request.flow.class(),
                blocks: self.blocks_by_weight(request.flow),
                priority: request.priority,
                order: request.arrival,
                preemptions: request.usage.preemptions,
            })
            .collect()
    }
}

/// A sequence's token at a position.
pub(super) fn token_at(prompt: &[TokenId], seq: &Sequence, position: u32) -> TokenId {
    let position = position as usize;
    match prompt.get(position) {
        Some(token) => *token,
        None => seq.generated.get(position - prompt.len()).expect("a known token"),
    }
}

/// Adds a sequence's rows to the plan.
fn push_span(plan: &mut StepPlan, table_stride: u32, seq: &Sequence, row: u32, rows: u32) {
    plan.spans.push(Span {
        seq: seq.id,
        slot: seq.slot,
        row_start: row,
        row_count: rows,
        context_tokens: seq.scheduled + rows,
        table_start: seq.slot.0 * table_stride,
        table_len: seq.blocks.len(),
    });
}

/// Writes a sequence's new blocks into its slot's row of the block tables.
fn note_blocks(tables: &mut [BlockId], table_stride: u32, seq: &mut Sequence) {
    let blocks = seq.blocks.len();
    if seq.tabled < blocks {
        let start = (seq.slot.0 * table_stride) as usize;
        let own = &mut tables[start..][..table_stride as usize];
        let new = seq.tabled as usize..blocks as usize;
        own[new.clone()].copy_from_slice(&seq.blocks.as_slice()[new]);
        seq.tabled = blocks;
    }
}

/// Takes a block of those that are kept for a request, if there is one.
fn take_reserved(request: &mut Request, reserved: &mut u32) -> bool {
    let has = request.blocks_reserved > 0;
    request.blocks_reserved -= u32::from(has);
    *reserved -= u32::from(has);
    has
}

fn slot_init(
    seq: &mut Sequence,
    prompt: &Arc<[TokenId]>,
    params: &[Arc<crate::device::SamplingParams>],
) -> SlotInit {
    seq.slot_ready = true;
    let params = Arc::clone(&params[seq.choice as usize]);
    let history = params.needs_history();
    SlotInit {
        slot: seq.slot,
        seq: seq.id,
        prompt: if history { Arc::clone(prompt) } else { Arc::from([]) },
        generated: if history { seq.generated.iter().collect() } else { Vec::new() },
        params,
    }
}
