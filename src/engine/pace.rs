//! How fast the engine goes: what steps cost, and averages of what they brought.

use super::cost::CostLearner;
use super::load::Load;
use super::report::{StepFacts, TurnReport};
use super::scheduler::Scheduler;
use super::step::Step;

/// Outlives a panic of the engine's thread: the device is the same after it.
#[derive(Debug)]
pub(super) struct Pace {
    learner: CostLearner,
    blocks: Rate,
    slots: Rate,
    /// Device time that the rates are about, forgotten as they are.
    seconds: f64,
}

/// What sequences that ended gave back since start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Released {
    pub blocks: u64,
    pub slots: u64,
}

/// An amount in the last steps, of a total that only rises.
#[derive(Debug, Default)]
struct Rate {
    total: u64,
    recent: f64,
}

/// Weight of the newest value in the moving averages: about the last 20 steps.
const AVERAGE_WEIGHT: f64 = 0.05;
/// What a step keeps of the sums before it. What ends comes in bursts, so that these look back
/// further: about 250 steps.
const KEPT: f64 = 1.0 - 1.0 / 256.0;

impl Pace {
    /// Knows nothing.
    pub fn new() -> Self {
        Self {
            learner: CostLearner::new(),
            blocks: Rate::default(),
            slots: Rate::default(),
            seconds: 0.0,
        }
    }

    /// Learns from a completed step; its facts then know how well it was predicted.
    pub fn note_step(&mut self, step: &Step, facts: &mut StepFacts, load: &mut Load) {
        facts.prediction_error = self.learner.learn(&step.shape, facts.elapsed);
        load.cost = *self.learner.model();
        load.decoding_context_tokens = step.shape.decode_context_tokens;
    }

    /// Takes a step into the averages, with what its turn has done so far.
    pub fn average(
        &mut self,
        facts: &StepFacts,
        report: &TurnReport,
        released: Released,
        load: &mut Load,
    ) {
        let seconds = facts.elapsed.as_secs_f64().max(1e-9);
        load.steps += 1;
        average(&mut load.step_s, seconds);
        average(&mut load.tokens_per_s, report.generated_tokens as f64 / seconds);
        average(&mut load.requests_per_s, f64::from(report.done) / seconds);
        if facts.prefill_rows > 0 {
            average(&mut load.prefill_tokens_per_s, f64::from(facts.prefill_rows) / seconds);
        }
        self.seconds = self.seconds * KEPT + seconds;
        load.blocks_released_per_s = self.blocks.step(released.blocks) / self.seconds;
        load.slots_released_per_s = self.slots.step(released.slots) / self.seconds;
    }
}

impl Rate {
    fn step(&mut self, total: u64) -> f64 {
        // After a panic the scheduler counts from zero again.
        let new = total.checked_sub(self.total).unwrap_or(total);
        self.total = total;
        self.recent = self.recent * KEPT + new as f64;
        self.recent
    }
}

impl Scheduler {
    /// Writes what there is now into the snapshot.
    pub fn describe(&self, load: &mut Load) {
        load.running = self.running();
        load.waiting = self.queue.len();
        load.waiting_prompt_tokens = self.backlog_tokens;
        load.tenants = self.queue.tenants.len() as u32;
        load.blocks_used = self.pool.owned() + self.pool.resting();
        load.blocks_cached = self.pool.cached();
        load.blocks_quarantined = self.pool.quarantined();
        load.blocks_total = self.pool.total();
        load.block_size_tokens = self.limits.block_size_tokens;
        load.blocks_available = self.pool.available() - self.blocks_reserved;
        load.slots_free = self.slots_free.len() as u32;
        load.decoding = self.decoding.len() as u32;
        let unscheduled = self.prefilling.iter().map(|seq| self.seqs[*seq].unscheduled());
        load.prefilling_tokens = unscheduled.map(u64::from).sum();
        load.step_rows_max = self.rows_max;
        load.step_budget = self.objectives.tightest();
    }
}

fn average(value: &mut f64, newest: f64) {
    let weight = if *value == 0.0 { 1.0 } else { AVERAGE_WEIGHT };
    *value += (newest - *value) * weight;
}
