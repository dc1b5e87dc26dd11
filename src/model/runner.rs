//! The model as a [`Device`]: steps in, tokens out.

use std::sync::Arc;
use std::time::Duration;

use super::decoder::Decoder;
use super::scratch::Scratch;
use crate::backend::{Backend, BackendError};
use crate::clock::Clock;
use crate::device::{Device, DeviceError, DeviceLimits, StepOutput, StepPlan};

/// Runs a decoder on a backend, one step at a time.
pub struct Runner<B: Backend> {
    backend: B,
    clock: Arc<dyn Clock>,
    decoder: Decoder<B>,
    scratch: Scratch<B>,
    state: State<B>,
    limits: DeviceLimits,
    pending: Option<Pending>,
}

/// What outlives a step on the backend.
pub(super) struct State<B: Backend> {
    pub(super) batch: B::Batch,
    pub(super) sampler: B::Sampler,
    pub(super) kv: B::Kv,
}

/// A submitted step that was not waited for.
#[derive(Clone, Copy, Debug)]
struct Pending {
    step: u64,
    /// Time inside `submit`.
    spent: Duration,
}

impl<B: Backend> std::fmt::Debug for Runner<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { limits, pending, .. } = self;
        f.debug_struct("Runner")
            .field("backend", &self.backend.describe())
            .field("limits", limits)
            .field("pending", pending)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Runner<B> {
    pub(super) fn new(
        backend: B,
        clock: Arc<dyn Clock>,
        decoder: Decoder<B>,
        scratch: Scratch<B>,
        state: State<B>,
        limits: DeviceLimits,
    ) -> Self {
        Self { backend, clock, decoder, scratch, state, limits, pending: None }
    }

    /// Runs a step and returns the logits `[samples, vocab]` of the plan's sample rows instead of
    /// sampling; for tests and diagnosis.
    ///
    /// # Errors
    /// [`DeviceError`] when the step failed.
    pub fn logits(&mut self, plan: &StepPlan) -> Result<Vec<f32>, DeviceError> {
        self.forward(plan);
        let mut logits = Vec::new();
        for (first, count) in chunks(plan.samples.len(), self.scratch.logits_rows) {
            let Self { backend, decoder, state, scratch, .. } = self;
            decoder.logits(backend, &state.batch, first, count, scratch);
            let rows = backend.read_rows(&scratch.logits);
            logits.extend(rows.map_err(|error| device_error(plan.step, error))?);
        }
        Ok(logits)
    }

    /// Everything up to the last layer.
    fn forward(&mut self, plan: &StepPlan) {
        self.check(plan);
        let Self { backend, decoder, scratch, state, .. } = self;
        for init in &plan.slot_inits {
            backend.init_slot(&mut state.sampler, init);
        }
        backend.copy_blocks(plan, &mut state.kv);
        backend.upload(plan, &state.sampler, &mut state.batch);
        if !plan.is_empty() {
            decoder.forward(backend, &state.batch, &mut state.kv, scratch);
        }
    }

    /// Asserts that the plan stays inside the limits. A plan that does not is a bug of the
    /// scheduler and would touch memory of other sequences.
    fn check(&self, plan: &StepPlan) {
        let limits = &self.limits;
        assert!(plan.rows() <= limits.step_rows_max as usize, "a step has at most its rows");
        assert!(plan.spans.len() <= limits.slots_total as usize, "a span for each slot at most");
        if cfg!(debug_assertions) {
            plan.check(limits.block_size_tokens, limits.blocks_total);
        }
    }
}

impl<B: Backend> Device for Runner<B> {
    fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError> {
        assert!(self.pending.is_none(), "the previous step was waited for");
        let start = self.clock.now();
        self.forward(plan);
        for (first, count) in chunks(plan.samples.len(), self.scratch.logits_rows) {
            let Self { backend, decoder, scratch, state, .. } = self;
            decoder.logits(backend, &state.batch, first, count, scratch);
            backend.sample(&state.batch, first, count, &mut scratch.logits, &mut state.sampler);
        }
        let spent = self.clock.now().since(start);
        self.pending = Some(Pending { step: plan.step, spent });
        Ok(())
    }

    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError> {
        let Pending { step, spent } = self.pending.take().expect("a step was submitted");
        let start = self.clock.now();
        output.step = step;
        output.sampled.clear();
        output.scores.clear();
        let read = self.backend.read(&mut self.state.sampler, output);
        // The host may have planned between the two calls; that time is not the device's.
        output.elapsed = spent + self.clock.now().since(start);
        read.map_err(|error| device_error(step, error))
    }
}

/// `(first, count)` of each chunk of at most `size` out of `samples`.
fn chunks(samples: usize, size: u32) -> impl Iterator<Item = (u32, u32)> {
    let samples = u32::try_from(samples).expect("a step's samples are counted in 32 bits");
    (0..samples).step_by(size as usize).map(move |first| (first, size.min(samples - first)))
}

fn device_error(step: u64, error: BackendError) -> DeviceError {
    match error {
        BackendError::Lost(reason) => DeviceError::Lost { reason },
        other => DeviceError::Step { step, reason: other.to_string() },
    }
}
