//! What a step's result means: sequences advance, tokens go to their callers, choices end.

use super::plan::token_at;
use super::policy;
use super::reply::{Event, FinishReason};
use super::scheduler::Scheduler;
use super::sequence::{Phase, SeqKey};
use super::step::{Part, Step};
use crate::device::{RowScore, SampledToken, StepOutput};
use crate::ids::TokenId;

/// What a caller reads when R35 ended its request.
const NOT_FINITE: &str = "the model computed a value that is not a number";

impl Scheduler {
    /// Takes in the result of a step. Leaves `output` without results.
    pub fn complete(&mut self, step: &Step, output: &mut StepOutput) {
        self.pool.completed(step.plan.step);
        let mut scores = output.scores.drain(..);
        for part in &step.parts {
            let scores = scores.by_ref().take(part.scores as usize);
            if self.take_scores(part, scores) && self.part_is_current(part) {
                self.complete_part(part);
            }
        }
        drop(scores);
        for (key, sampled) in step.nexts.iter().zip(output.sampled.drain(..)) {
            let alive = self.seqs.get(key.index).is_some_and(|seq| seq.id == key.id && !seq.ended);
            if alive {
                self.complete_next(*key, sampled);
            } else {
                self.report.discarded_tokens += 1;
            }
        }
    }

    /// Whether a part's sequence still is where it was when the part was planned.
    pub(super) fn part_is_current(&self, part: &Part) -> bool {
        let seq = self.seqs.get(part.seq.index);
        seq.is_some_and(|seq| seq.id == part.seq.id && seq.epoch == part.epoch)
    }

    fn complete_part(&mut self, part: &Part) {
        let index = part.seq.index;
        let seq = &mut self.seqs[index];
        seq.computed = part.end;
        if part.forks
            && let Some(source) = seq.fork_source.take()
        {
            self.pool.release(source, self.step);
        }
        let seq = &self.seqs[index];
        let (request_index, only_scores) = (seq.request, seq.tokens_max == 0);
        let all_computed = seq.computed == seq.known;
        let request = &self.requests[request_index];
        let prompt_done = part.end >= request.prompt_tokens();
        if only_scores && all_computed {
            self.publish(index);
            self.end_all_choices(request_index, FinishReason::Length);
        } else if prompt_done && request.lead == Some(index) {
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
            self.report.rows_not_finite += 1;
            self.fail(index, NOT_FINITE);
            return false;
        }
        let request = &mut self.requests[index];
        if request.scores_sent == part.scores_start {
            request.scores_sent += part.scores;
            request.reply.send(Event::PromptScores(scores));
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
            let mut blocks = std::mem::take(&mut self.seqs[index].blocks);
            let lead_blocks = &self.seqs[lead].blocks;
            blocks.extend_from_slice(&lead_blocks[..shared]);
            let fork_source = partial.then(|| lead_blocks[shared]);
            for block in blocks.iter().chain(&fork_source) {
                self.pool.share(*block);
            }
            let seq = &mut self.seqs[index];
            seq.blocks = blocks;
            seq.fork_source = fork_source;
            seq.scheduled = prompt_tokens;
            seq.computed = prompt_tokens;
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

    fn complete_next(&mut self, key: SeqKey, sampled: SampledToken) {
        let seq = &mut self.seqs[key.index];
        seq.sampling = seq.sampling.saturating_sub(1);
        let request_index = seq.request;
        if !sampled.finite || sampled.token.0 >= self.limits.vocab_size {
            self.report.rows_not_finite += 1;
            self.fail(request_index, NOT_FINITE);
            return;
        }
        let token = sampled.token;
        seq.push(token);
        let (choice, generated) = (seq.choice, seq.generated.len() as u32);
        if (seq.published + 1) * self.limits.block_size_tokens <= seq.computed {
            self.publish(key.index);
        }
        let request = &mut self.requests[request_index];
        request.usage.generated_tokens += 1;
        let (tenant, max_tokens) = (request.tenant, request.max_tokens);
        let ends = request.stops.ends(token, generated);
        self.queue.charge(tenant, policy::GENERATED_TOKEN_CHARGE);
        self.report.generated_tokens += 1;
        if !request.reply.send(Event::Token { choice, sampled }) {
            self.report.cancelled += 1;
            self.end_request(request_index, None);
        } else if ends {
            self.end_choice(key.index, FinishReason::Stop(token));
        } else if generated >= max_tokens {
            self.end_choice(key.index, FinishReason::Length);
        }
    }

    /// Offers a sequence's full blocks to the prefix cache. Called when a row at or after them
    /// was finite: a NaN in a block would have reached that row (R34).
    fn publish(&mut self, index: u32) {
        let block_size = self.limits.block_size_tokens;
        let seq = &mut self.seqs[index];
        if seq.phase == Phase::Waiting || seq.phase == Phase::Unborn {
            return;
        }
        let prompt = &self.requests[seq.request].prompt;
        let mut tokens = [TokenId(0); 256];
        let tokens = &mut tokens[..block_size as usize];
        while (seq.published + 1) * block_size <= seq.computed {
            let start = seq.published * block_size;
            for (offset, token) in tokens.iter_mut().enumerate() {
                *token = token_at(prompt, seq, start + offset as u32);
            }
            let block = seq.blocks[seq.published as usize];
            seq.published_end = self.pool.publish(seq.published_end, tokens, block);
            seq.published += 1;
        }
    }
}
