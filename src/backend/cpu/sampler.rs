//! The slots' sampling state, and the results that wait to be read.
#![allow(unsafe_code, reason = "threads write disjoint rows of one buffer")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::BatchShape;
use super::kernels::KernelSet;
use super::pool::Pool;
use super::ranking::Ranking;
use super::rows::Rows;
use super::sample::{Choice, choose, score};
use crate::device::{
    RowScore, SampleKind, SampleRow, SampledToken, SamplingParams, SlotInit, StepOutput,
    TokenLogprob,
};
use crate::ids::{SlotId, TokenId};

/// All slots, and each thread's working memory.
#[derive(Debug)]
pub struct Sampler {
    slots: Vec<Slot>,
    /// One for each sample of an op, so that threads fill them side by side.
    outcomes: Vec<Mutex<Outcome>>,
    workspaces: Vec<Mutex<Workspace>>,
    sampled: Vec<SampledToken>,
    scores: Vec<RowScore>,
}

/// What a sample gave.
#[derive(Debug, Default)]
enum Outcome {
    #[default]
    None,
    Next(Choice),
    Score(TokenLogprob),
}

/// One sequence's sampling state.
#[derive(Debug)]
pub(super) struct Slot {
    pub params: Arc<SamplingParams>,
    /// What the sequence holds, for penalties; empty unless its parameters need it.
    pub history: HashMap<TokenId, Seen>,
    last: TokenId,
}

/// How often a token occurs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Times in the output; a token of the prompt alone has 0.
    pub in_output: u32,
}

/// A thread's working memory for one row.
#[derive(Debug)]
pub(super) struct Workspace {
    pub ranking: Ranking,
    /// The row's logits before they were modified.
    pub unmodified: Vec<f32>,
}

impl Sampler {
    pub(super) fn new(shape: &BatchShape, threads: usize) -> Self {
        let vocab = shape.vocab_size as usize;
        let params = Arc::new(SamplingParams::greedy());
        let slot =
            || Slot { params: Arc::clone(&params), history: HashMap::new(), last: TokenId(0) };
        let workspace = || {
            let unmodified = Vec::with_capacity(vocab);
            Mutex::new(Workspace { ranking: Ranking::new(vocab), unmodified })
        };
        Self {
            slots: (0..shape.slots).map(|_| slot()).collect(),
            outcomes: Vec::new(),
            workspaces: (0..threads).map(|_| workspace()).collect(),
            sampled: Vec::with_capacity(shape.slots as usize),
            scores: Vec::new(),
        }
    }

    /// See [`super::super::Backend::init_slot`].
    pub(super) fn init_slot(&mut self, init: &SlotInit) {
        let slot = &mut self.slots[init.slot.index()];
        slot.params = Arc::clone(&init.params);
        slot.last = init.generated.last().copied().unwrap_or_default();
        slot.history.clear();
        if init.params.needs_history() {
            for &token in init.prompt.iter() {
                slot.history.entry(token).or_default();
            }
            for &token in &init.generated {
                slot.count(token);
            }
        }
    }

    /// What a slot sampled last.
    pub(super) fn last_sampled(&self, slot: SlotId) -> u32 {
        self.slots[slot.index()].last.0
    }

    /// See [`super::super::Backend::sample`].
    pub(super) fn sample(
        &mut self,
        (kernels, pool): (KernelSet, &Pool),
        samples: &[SampleRow],
        logits: &mut Rows,
    ) {
        assert_eq!(samples.len(), logits.count(), "one row of logits for each sample");
        if self.outcomes.len() < samples.len() {
            self.outcomes.resize_with(samples.len(), Mutex::default);
        }
        let Self { slots, outcomes, workspaces, sampled, scores } = self;
        let rows = logits.share();
        pool.run(samples.len(), &|thread, i| {
            // SAFETY: each task has its own row.
            let (row, sample) = (unsafe { rows.row(i) }, &samples[i]);
            *lock(&outcomes[i]) = match sample.kind {
                SampleKind::Next { output_index } => {
                    let slot = &slots[sample.slot.index()];
                    let workspace = &mut lock(&workspaces[thread]);
                    Outcome::Next(choose(kernels, slot, output_index, row, workspace))
                }
                SampleKind::Score { token, top } => Outcome::Score(score(kernels, token, top, row)),
            };
        });
        for (sample, outcome) in samples.iter().zip(outcomes) {
            match std::mem::take(&mut *lock(outcome)) {
                Outcome::Next(choice) => {
                    slots[sample.slot.index()].take(choice.token);
                    let Choice { token, finite, logprob } = choice;
                    sampled.push(SampledToken { slot: sample.slot, token, finite, logprob });
                }
                Outcome::Score(logprob) => scores.push(RowScore { slot: sample.slot, logprob }),
                Outcome::None => unreachable!("every sample has an outcome"),
            }
        }
    }

    /// See [`super::super::Backend::read`].
    pub(super) fn read(&mut self, output: &mut StepOutput) {
        output.sampled.append(&mut self.sampled);
        output.scores.append(&mut self.scores);
    }
}

impl Slot {
    fn take(&mut self, token: TokenId) {
        self.last = token;
        if self.params.needs_history() {
            self.count(token);
        }
    }

    fn count(&mut self, token: TokenId) {
        self.history.entry(token).or_default().in_output += 1;
    }
}

/// What a panic left behind is overwritten before it is read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
