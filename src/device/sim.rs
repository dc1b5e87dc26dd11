//! A device without a model: it prices steps, moves a clock and samples tokens from a hash.
//!
//! The KV cache is simulated too: each position holds a hash of all tokens up to it, read through
//! the block tables. A sequence that reads a block of somebody else, or one that was overwritten
//! too early, therefore gets other tokens than alone (or, with [`SimConfig::verify`], a panic).

mod cost;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use self::cost::SimCost;
use super::sampling::SamplingParams;
use super::{
    Device, DeviceError, DeviceLimits, Input, RowScore, SampleKind, SampledToken, Span, StepOutput,
    StepPlan, TokenLogprob,
};
use crate::clock::{Clock, ManualClock, Time};
use crate::ids::{BlockId, SeqId, SlotId, TokenId};

/// What a simulated device is.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// What it holds; `steps_in_flight_max` may be 1 or 2.
    pub limits: DeviceLimits,
    /// How long a step takes.
    pub cost: SimCost,
    /// What goes wrong.
    pub faults: SimFaults,
    /// The tokens that it samples, within the vocabulary; not empty.
    pub sampled: Range<u32>,
    /// An end-of-sequence token and the probability of sampling it at each position.
    pub eos: Option<(TokenId, f64)>,
    /// Re-derive all that each step reads and panic on the first difference. Costs time
    /// proportional to the contexts.
    pub verify: bool,
}

/// Faults to show, chosen by seed or at given places. The default has none.
#[derive(Clone, Debug, Default)]
pub struct SimFaults {
    /// Selects the steps to which the rates below apply.
    pub seed: u64,
    /// Probability that a step fails with [`DeviceError::Step`].
    pub step_error_rate: f64,
    /// A step with a row of this token always fails.
    pub poison_token: Option<TokenId>,
    /// This token makes its own and all later positions of its sequence NaN.
    pub nan_token: Option<TokenId>,
    /// Probability that a step takes `slow_factor` times as long.
    pub slow_rate: f64,
    /// See `slow_rate`.
    pub slow_factor: u32,
    /// From this step on, each takes so many times as long.
    pub slow_from_step: Option<(u64, u32)>,
    /// The device is lost at this step.
    pub lost_at_step: Option<u64>,
    /// `submit` panics at these steps.
    pub panic_at_steps: Vec<u64>,
}

/// What "takes time" means.
#[derive(Clone)]
pub enum Pace {
    /// Each step moves this clock.
    Virtual(Arc<ManualClock>),
    /// Each step sleeps until it would be done by this clock.
    Wall(Arc<dyn Clock>),
}

/// See the module.
pub struct SimDevice {
    config: SimConfig,
    pace: Pace,
    /// What each KV position holds: the hash of its token and all before it.
    kv: Vec<u64>,
    /// The token of each KV position, to verify with.
    kv_tokens: Vec<TokenId>,
    slots: Vec<SimSlot>,
    in_flight: VecDeque<InFlight>,
    spare: Vec<InFlight>,
    busy_until: Time,
    lost: bool,
}

#[derive(Clone, Default)]
struct SimSlot {
    seq: SeqId,
    params: Option<Arc<SamplingParams>>,
    last_sampled: Option<TokenId>,
    /// Tokens seen, kept when the parameters need them: their hash and count after the prompt.
    history: u64,
    generated: u32,
}

#[derive(Default)]
struct InFlight {
    output: StepOutput,
    error: Option<DeviceError>,
    ready: Time,
    /// Blocks that the step reads, with their reader; filled when verifying.
    reads: Vec<(BlockId, SeqId)>,
}

/// The hash before the first token.
const EMPTY_CHAIN: u64 = 0x2d35_8dcc_aa6c_78a5;
/// The hash of a context with a NaN in it, and of all that follow it.
const NAN_CHAIN: u64 = u64::MAX;
/// What a failed step leaves behind.
const GARBAGE: u64 = 0xdead_dead_dead_dead;

impl SimConfig {
    /// A device with these limits, the costs of a mid-sized model on one GPU, no faults, and all
    /// of the vocabulary.
    pub fn new(limits: DeviceLimits) -> Self {
        let sampled = 0..limits.vocab_size;
        Self {
            limits,
            cost: SimCost::default(),
            faults: SimFaults::default(),
            sampled,
            eos: None,
            verify: false,
        }
    }

    /// The token after `context` (prompt and output so far), as any batch must sample it;
    /// `None` when the logits are NaN.
    pub fn next_token(
        &self,
        context: &[TokenId],
        params: &SamplingParams,
        output_index: u32,
    ) -> Option<TokenId> {
        let chain = context.iter().fold(EMPTY_CHAIN, |chain, t| self.extend(chain, *t));
        (chain != NAN_CHAIN).then(|| self.choose(chain, params, output_index))
    }

    fn extend(&self, chain: u64, token: TokenId) -> u64 {
        if chain == NAN_CHAIN || self.faults.nan_token == Some(token) {
            return NAN_CHAIN;
        }
        mix(chain, u64::from(token.0))
    }

    fn choose(&self, chain: u64, params: &SamplingParams, output_index: u32) -> TokenId {
        let seed = if params.temperature > 0.0 { params.seed } else { 0 };
        let mut bits = mix(mix(chain, seed), u64::from(output_index));
        // A bounded number of draws: everything may be banned.
        for _ in 0..64 {
            let token = self.draw(bits);
            if output_index >= params.min_tokens || !params.banned.contains(&token) {
                return token;
            }
            bits = mix(bits, 1);
        }
        self.draw(bits)
    }

    fn draw(&self, bits: u64) -> TokenId {
        if let Some((eos, probability)) = self.eos
            && unit(bits) < probability
        {
            return eos;
        }
        let count = u64::from(self.sampled.end - self.sampled.start);
        TokenId(self.sampled.start + (mix(bits, 2) % count) as u32)
    }

    fn score(&self, chain: u64, token: TokenId, top: u32) -> TokenLogprob {
        if chain == NAN_CHAIN {
            return TokenLogprob { token, logprob: f32::NAN, top: Vec::new() };
        }
        let logprob = |t: u32| -(unit(mix(chain, u64::from(t))) as f32) * 10.0 - 0.01;
        let mut ranked: Vec<_> =
            (0..top.min(self.limits.vocab_size)).map(|i| (TokenId(i), logprob(i))).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        TokenLogprob { token, logprob: logprob(token.0), top: ranked }
    }
}

impl SimDevice {
    /// A device with an empty KV cache.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    pub fn new(config: SimConfig, pace: Pace) -> Self {
        let limits = &config.limits;
        assert!(config.sampled.end <= limits.vocab_size, "sampled tokens are in the vocabulary");
        assert!(!config.sampled.is_empty(), "there is a token to sample");
        assert!((1..=2).contains(&limits.steps_in_flight_max), "one or two steps in flight");
        let positions = limits.blocks_total as usize * limits.block_size_tokens as usize;
        Self {
            kv: vec![GARBAGE; positions],
            kv_tokens: vec![TokenId(0); if config.verify { positions } else { 0 }],
            slots: vec![SimSlot::default(); limits.slots_total as usize],
            in_flight: VecDeque::with_capacity(2),
            spare: Vec::with_capacity(3),
            busy_until: Time::default(),
            lost: false,
            config,
            pace,
        }
    }

    fn now(&self) -> Time {
        match &self.pace {
            Pace::Virtual(clock) => clock.now(),
            Pace::Wall(clock) => clock.now(),
        }
    }

    fn fault(&self, plan: &StepPlan) -> Option<DeviceError> {
        let faults = &self.config.faults;
        if faults.lost_at_step.is_some_and(|step| plan.step >= step) {
            return Some(DeviceError::Lost { reason: "simulated loss".to_owned() });
        }
        let poisoned =
            faults.poison_token.is_some_and(|poison| plan.inputs.contains(&Input::Token(poison)));
        let drawn = unit(mix(faults.seed, plan.step)) < faults.step_error_rate;
        (poisoned || drawn)
            .then(|| DeviceError::Step { step: plan.step, reason: "simulated fault".to_owned() })
    }

    fn duration(&self, plan: &StepPlan) -> Duration {
        let faults = &self.config.faults;
        let slow = unit(mix(mix(faults.seed, plan.step), 3)) < faults.slow_rate;
        let pace = faults.slow_from_step.map_or(
            1,
            |(from, factor)| {
                if plan.step >= from { factor } else { 1 }
            },
        );
        self.config.cost.of(plan) * pace * if slow { faults.slow_factor } else { 1 }
    }

    fn init_slots(&mut self, plan: &StepPlan) {
        for init in &plan.slot_inits {
            let slot = &mut self.slots[init.slot.index()];
            slot.seq = init.seq;
            slot.last_sampled = init.generated.last().copied();
            slot.generated = init.generated.len() as u32;
            let seen = init.prompt.iter().chain(&init.generated);
            slot.history = seen.fold(EMPTY_CHAIN, |chain, t| self.config.extend(chain, *t));
            slot.params = Some(Arc::clone(&init.params));
        }
    }

    fn copy_blocks(&mut self, plan: &StepPlan) {
        let size = self.config.limits.block_size_tokens as usize;
        for copy in &plan.copies {
            let (from, to) = (copy.from.index() * size, copy.to.index() * size);
            self.kv.copy_within(from..from + size, to);
            if self.config.verify {
                self.kv_tokens.copy_within(from..from + size, to);
            }
        }
    }

    fn write_rows(&mut self, plan: &StepPlan, span: &Span) {
        let size = self.config.limits.block_size_tokens;
        let table = plan.table(span);
        let first = plan.positions[span.row_start as usize];
        let mut chain = match first.checked_sub(1) {
            None => EMPTY_CHAIN,
            Some(before) => {
                let block = table[(before / size) as usize];
                self.kv[(block.0 * size + before % size) as usize]
            }
        };
        if self.config.verify {
            self.verify_context(table, first, span.seq);
        }
        for row in span.row_start..span.row_start + span.row_count {
            let token = match plan.inputs[row as usize] {
                Input::Token(token) => token,
                Input::LastSampled => {
                    let slot = &self.slots[span.slot.index()];
                    assert_eq!(slot.seq, span.seq, "a sequence reads its own slot");
                    slot.last_sampled.expect("the slot has sampled before")
                }
            };
            chain = self.config.extend(chain, token);
            let place = plan.kv_slots[row as usize] as usize;
            self.kv[place] = chain;
            if self.config.verify {
                self.kv_tokens[place] = token;
            }
        }
    }

    /// Re-derives every hash of a context from its tokens.
    fn verify_context(&self, table: &[BlockId], tokens: u32, seq: SeqId) {
        let size = self.config.limits.block_size_tokens;
        let mut chain = EMPTY_CHAIN;
        for position in 0..tokens {
            let block = table[(position / size) as usize];
            let place = (block.0 * size + position % size) as usize;
            chain = self.config.extend(chain, self.kv_tokens[place]);
            assert_eq!(chain, self.kv[place], "seq {seq}: position {position} is foreign");
        }
    }

    /// Asserts that no block that a step in flight reads is written by another sequence (R36).
    fn verify_fence(&self, plan: &StepPlan) {
        let size = self.config.limits.block_size_tokens;
        for (block, reader) in self.in_flight.iter().flat_map(|step| &step.reads) {
            for span in &plan.spans {
                let rows = span.row_start as usize..(span.row_start + span.row_count) as usize;
                let writes = plan.kv_slots[rows].iter().any(|slot| slot / size == block.0);
                assert!(!writes || span.seq == *reader, "{block} is written while it is read");
            }
            let copied = plan.copies.iter().any(|copy| copy.to == *block);
            assert!(!copied, "{block} is copied to while it is read");
        }
    }

    fn sample_rows(&mut self, plan: &StepPlan, output: &mut StepOutput) {
        for sample in &plan.samples {
            let chain = self.kv[plan.kv_slots[sample.row as usize] as usize];
            match sample.kind {
                SampleKind::Score { token, top } => {
                    let logprob = self.config.score(chain, token, top);
                    output.scores.push(RowScore { slot: sample.slot, logprob });
                }
                SampleKind::Next { output_index } => {
                    let sampled = self.sample_next(sample.slot, chain, output_index);
                    output.sampled.push(sampled);
                }
            }
        }
    }

    fn sample_next(&mut self, slot_id: SlotId, chain: u64, output_index: u32) -> SampledToken {
        let slot = &mut self.slots[slot_id.index()];
        let params = slot.params.as_ref().expect("a sampling slot was initialised");
        let finite = chain != NAN_CHAIN;
        let token = self.config.choose(chain, params, output_index);
        if params.needs_history() {
            assert_eq!(slot.history, chain, "the slot has seen the tokens of its context");
            assert_eq!(slot.generated, output_index, "the slot has counted its output");
            slot.history = self.config.extend(slot.history, token);
            slot.generated += 1;
        }
        slot.last_sampled = Some(token);
        let logprob = params.logprobs.map(|top| Box::new(self.config.score(chain, token, top)));
        SampledToken { slot: slot_id, token, finite, logprob }
    }

    /// What a step leaves when it failed, or when the one before it did.
    fn garble(&mut self, plan: &StepPlan, output: &mut StepOutput) {
        for slot in &plan.kv_slots {
            self.kv[*slot as usize] = GARBAGE;
        }
        let size = self.config.limits.block_size_tokens as usize;
        for copy in &plan.copies {
            self.kv[copy.to.index() * size..][..size].fill(GARBAGE);
        }
        for sample in &plan.samples {
            let slot = &mut self.slots[sample.slot.index()];
            slot.last_sampled = Some(TokenId(self.config.sampled.start));
            slot.history = GARBAGE;
            let token = TokenId(self.config.sampled.start);
            match sample.kind {
                SampleKind::Next { .. } => output.sampled.push(SampledToken {
                    slot: sample.slot,
                    token,
                    finite: true,
                    logprob: None,
                }),
                SampleKind::Score { token, .. } => output.scores.push(RowScore {
                    slot: sample.slot,
                    logprob: TokenLogprob { token, logprob: 0.0, top: Vec::new() },
                }),
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the wall pace is a simulation of a busy device")]
    fn pass_time(&self, until: Time) {
        match &self.pace {
            Pace::Virtual(clock) => clock.advance(until.since(clock.now())),
            Pace::Wall(clock) => std::thread::sleep(until.since(clock.now())),
        }
    }
}

impl Device for SimDevice {
    fn limits(&self) -> &DeviceLimits {
        &self.config.limits
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError> {
        let limits = &self.config.limits;
        if self.lost {
            return Err(DeviceError::Lost { reason: "simulated loss".to_owned() });
        }
        assert!(!self.config.faults.panic_at_steps.contains(&plan.step), "simulated panic");
        assert!(
            self.in_flight.len() < limits.steps_in_flight_max as usize,
            "a step too many in flight"
        );
        assert!(plan.rows() <= limits.step_rows_max as usize, "rows within the limit");
        if self.config.verify {
            plan.check(limits.block_size_tokens, limits.blocks_total);
            self.verify_fence(plan);
        }
        let fault = self.fault(plan);
        let after_fault = self.in_flight.iter().any(|step| step.error.is_some());
        // Half of the faults show when the step is submitted, the others when it is waited for.
        if let Some(error) = &fault
            && (matches!(error, DeviceError::Lost { .. }) || mix(plan.step, 5).is_multiple_of(2))
        {
            self.lost = matches!(error, DeviceError::Lost { .. });
            self.garble(plan, &mut StepOutput::default());
            return Err(error.clone());
        }
        let mut step = self.spare.pop().unwrap_or_default();
        step.output.step = plan.step;
        step.output.sampled.clear();
        step.output.scores.clear();
        step.reads.clear();
        self.init_slots(plan);
        if fault.is_some() || after_fault {
            self.garble(plan, &mut step.output);
        } else {
            self.copy_blocks(plan);
            for span in &plan.spans {
                self.write_rows(plan, span);
                if self.config.verify {
                    step.reads.extend(plan.table(span).iter().map(|b| (*b, span.seq)));
                }
            }
            self.sample_rows(plan, &mut step.output);
        }
        step.error = fault;
        step.output.elapsed = self.duration(plan);
        step.ready = self.busy_until.max(self.now()).plus(step.output.elapsed);
        self.busy_until = step.ready;
        self.in_flight.push_back(step);
        Ok(())
    }

    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError> {
        let Some(mut step) = self.in_flight.pop_front() else {
            return Err(DeviceError::Lost { reason: "waited without a step".to_owned() });
        };
        self.pass_time(step.ready);
        std::mem::swap(output, &mut step.output);
        let error = step.error.take();
        self.spare.push(step);
        error.map_or(Ok(()), Err)
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a ^ 0x9e37_79b9_7f4a_7c15)
        * u128::from(b.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0xff51_afd7_ed55_8ccd);
    let folded = wide as u64 ^ (wide >> 64) as u64;
    (folded ^ folded >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// A number in `0..1` from 53 of the bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
