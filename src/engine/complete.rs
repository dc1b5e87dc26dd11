//! What a step's result means: sequences advance, tokens go to their callers, choices end.

use super::charges::Charges;
use super::plan::token_at;
use super::reply::{Event, FinishReason};
use super::scheduler::Scheduler;
use super::sequence::Phase;
use super::step::{Next, Part, Step};
use crate::device::{RowScore, SampledToken, StepOutput};
use crate::ids::TokenId;

/// What a caller reads when R35 ended its request.
const NOT_FINITE: &str = "the model computed a value that is not a number";

impl Scheduler {
    /// Takes in the result of a step. Leaves `output` without results.
    ///
    /// The device waits meanwhile, so that what need not be done now is left to
    /// [`Scheduler::tidy_up`].
    pub fn complete(&mut self, step: &Step, output: &mut StepOutput) {
        self.pool.completed(step.plan.step);
        self.charges = Charges::new(&self.cost, &step.shape, step.plan.spans.len());
        let mut scores = output.scores.drain(..);
        for part in &step.parts {
            let scores = scores.by_ref().take(part.scores as usize);
            if self.take_scores(part, scores) && self.part_is_current(part) {
                self.complete_part(part);
            }
        }
        drop(scores);
        let sampled = output.sampled.len().min(step.nexts.len()) as u32;
        let first = self.outbox.keep(&mut output.sampled);
        for (next, at) in step.nexts.iter().zip(first..first + sampled) {
            self.complete_next(next, at);
        }
    }

    /// Whether a part's sequence still is where it was when the part was planned.
    pub(super) fn part_is_current(&self, part: &Part) -> bool {
        let seq = self.seqs.get(part.seq.index);
        seq.is_some_and(|seq| seq.id == part.seq.id && seq.epoch == part.epoch)
    }

    fn complete_part(&mut self, part: &Part) {
        let index = part.seq.index;
        self.charge_part(part);
        let seq = &mut self.seqs[index];
        seq.computed = part.end;
        if part.forks
            && let Some(source) = seq.fork_source.take()
        {
            seq.forks = false;
            self.pool.release(source, self.step);
        }
        let seq = &mut self.seqs[index];
        let (request_index, only_scores) = (seq.request, seq.tokens_max == 0);
        if only_scores && seq.computed == seq.known {
            // The scores of its last rows were finite.
            seq.finite = seq.computed;
            self.end_all_choices(request_index, FinishReason::Length);
        } else if seq.bears && part.end >= self.requests[request_index].prompt_tokens() {
            seq.bears = false;
            self.bear(request_index, index);
        }
    }

    /// Sends a part's prompt scores, also when its sequence was preempted meanwhile; false when
    /// they ended the request.
    fn take_scores(&mut self, part: &Part, scores: impl Iterator<Item = RowScore>) -> bool {
        if part.scores == 0 {
            return true;
        }
        let scores: Vec<RowScore> = scores.collect();
        let seq = self.seqs.get(part.seq.index).filter(|seq| seq.id == part.seq.id);
        let Some(seq) = seq else { return true };
        let index = seq.request;
        // Minus infinity is a score that a masked token may have; a NaN is a fault.
        let count = part.scores as usize;
        if scores.len() != count || scores.iter().any(|score| score.logprob.logprob.is_nan()) {
            self.fail_not_finite(index);
            return false;
        }
        let request = &mut self.requests[index];
        if request.scores_sent == part.scores_start {
            request.scores_sent += part.scores;
            self.outbox.send(request.reply, Event::PromptScores(scores));
        }
        true
    }

    /// The prompt is computed: the other choices share its full blocks and will copy the last one
    /// when they write to it. The lead writes to it in place, behind the part that they read.
    fn bear(&mut self, request_index: u32, lead: u32) {
        let request = &self.requests[request_index];
        let prompt_tokens = request.prompt_tokens();
        let shared = (prompt_tokens / self.limits.block_size_tokens) as usize;
        let partial = !prompt_tokens.is_multiple_of(self.limits.block_size_tokens);
        for choice in 0..request.choices.len() {
            let Some(index) = self.requests[request_index].choices[choice] else { continue };
            if self.seqs[index].phase != Phase::Unborn {
                continue;
            }
            let seq = &self.seqs[lead];
            let (published, published_end) = (seq.published, seq.published_end);
            let finite = seq.finite.min(prompt_tokens);
            let mut blocks = std::mem::take(&mut self.seqs[index].blocks);
            let lead_blocks = self.seqs[lead].blocks.as_slice();
            blocks.extend(&lead_blocks[..shared]);
            let fork_source = partial.then(|| lead_blocks[shared]);
            for block in blocks.as_slice().iter().chain(&fork_source) {
                self.pool.share(*block);
            }
            let seq = &mut self.seqs[index];
            seq.blocks = blocks;
            seq.uncounted = shared as u32;
            seq.fork_source = fork_source;
            seq.forks = partial;
            seq.scheduled = prompt_tokens;
            seq.computed = prompt_tokens;
            seq.finite = finite;
            seq.published = published;
            seq.published_end = published_end;
            let several = seq.unscheduled() > 1;
            self.set_phase(index, if several { Phase::Prefill } else { Phase::Decode });
        }
        if self.seqs[lead].ended {
            self.requests[request_index].lead = None;
            self.remove_seq(lead);
        }
    }

    /// Takes in the token at a place of the outbox.
    fn complete_next(&mut self, next: &Next, at: u32) {
        let seq = self.seqs.get_mut(next.seq.index);
        let Some(seq) = seq.filter(|seq| seq.id == next.seq.id && !seq.ended) else {
            self.report.discarded_tokens += 1;
            return;
        };
        if next.decoded_to > 0 {
            self.queue.charge(seq.flow, self.charges.decode_s(next.decoded_to));
            if seq.epoch == next.epoch {
                seq.computed = next.decoded_to;
            }
        }
        seq.sampling = seq.sampling.saturating_sub(1);
        let &SampledToken { token, finite, .. } = self.outbox.kept(at);
        if !finite || token.0 >= self.limits.vocab_size {
            let request = seq.request;
            self.fail_not_finite(request);
            return;
        }
        seq.push(token);
        self.outbox.send_token(seq.reply, seq.choice, at);
        if (seq.published + 1) * self.limits.block_size_tokens <= seq.computed {
            seq.finite = seq.computed;
            self.unpublished.push(next.seq);
        }
        self.report.generated_tokens += 1;
        let generated = seq.generated.len();
        let stops = seq.stop_filter.may_stop(token)
            && self.requests[seq.request].stops.ends(token, generated);
        if stops {
            self.end_choice(next.seq.index, FinishReason::Stop(token));
        } else if generated >= seq.tokens_max {
            self.end_choice(next.seq.index, FinishReason::Length);
        }
    }

    /// Ends a request that has a row which is not finite. Its blocks are not published, beyond
    /// those that were found finite before, and used again after all others only (R35).
    fn fail_not_finite(&mut self, index: u32) {
        self.report.rows_not_finite += 1;
        let request = &self.requests[index];
        self.sick.push(self.queue.tenants[request.flow.tenant()].id);
        let lead = request.lead;
        for choice in 0..request.choices.len() {
            let seq = self.requests[index].choices[choice];
            for seq in seq.into_iter().chain(lead.filter(|_| choice == 0)) {
                self.publish(seq);
                let seq = &self.seqs[seq];
                for block in &seq.blocks.as_slice()[seq.published as usize..] {
                    self.pool.quarantine(*block);
                }
            }
        }
        self.fail(index, NOT_FINITE);
    }

    /// Publishes what completed steps left to be published.
    pub(super) fn publish_due(&mut self) {
        let mut due = std::mem::take(&mut self.unpublished);
        for key in due.drain(..) {
            if self.seqs.get(key.index).is_some_and(|seq| seq.id == key.id) {
                self.publish(key.index);
            }
        }
        self.unpublished = due;
    }

    /// Offers a sequence's full blocks to the prefix cache, as far as a row at or after them was
    /// finite: a NaN in a block would have reached that row (R34).
    pub(super) fn publish(&mut self, index: u32) {
        let block_size = self.limits.block_size_tokens;
        let seq = &mut self.seqs[index];
        if seq.phase == Phase::Waiting || seq.phase == Phase::Unborn {
            return;
        }
        let prompt = &self.requests[seq.request].prompt;
        let mut tokens = [TokenId(0); 256];
        let tokens = &mut tokens[..block_size as usize];
        while (seq.published + 1) * block_size <= seq.finite {
            let start = seq.published * block_size;
            for (offset, token) in tokens.iter_mut().enumerate() {
                *token = token_at(prompt, seq, start + offset as u32);
            }
            let block = seq.blocks.as_slice()[seq.published as usize];
            let owner = seq.flow.tenant();
            seq.published_end = self.pool.publish(owner, seq.published_end, tokens, block);
            seq.published += 1;
        }
    }
}
