//! Who asks what, and when.

use std::time::Duration;

use super::chance::Chance;

/// A group of tenants that ask alike.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Indices of its tenants, who share its requests evenly.
    pub tenants: std::ops::Range<u32>,
    /// Requests a second, all of them together, at load 1.
    pub rate: f64,
}

/// Lengths of prompts and answers: log-normal prompts, answers that end by chance.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub prompt_median: f64,
    pub prompt_sigma: f64,
    pub prompt_max: u32,
    pub output_max: u32,
}

/// A stretch of time with a constant load.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// As a multiple of the crowds' rates.
    pub load: f64,
    pub lasts: Duration,
}

/// What some requests ask for, and what some clients do: probabilities for each request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Several choices, up to `choices_max`.
    pub choices: f64,
    pub choices_max: u32,
    pub flex: f64,
    /// A deadline, up to `horizon` away.
    pub deadline: f64,
    /// The client leaves at some time within `horizon`, and does not come back.
    pub leave: f64,
    pub horizon: Duration,
    /// The prompt begins as others of its tenant do.
    pub shared_prefix: f64,
    /// A token in the prompt makes rows NaN, or steps fail.
    pub nan: f64,
    pub poison: f64,
    pub urgent: f64,
}

/// A client's wish.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    pub tenant: u32,
    pub prompt_tokens: u32,
    pub output_max: u32,
    pub choices: u32,
    /// Seeds its prompt.
    pub name: u64,
    pub shared_tokens: u32,
    pub flex: bool,
    pub priority: i32,
    pub nan: bool,
    pub poison: bool,
    pub deadline_in: Option<Duration>,
    pub leaves_in: Option<Duration>,
    /// Which phase it belongs to.
    pub phase: usize,
}

/// Arrivals of independent clients (a Poisson process with a rate for each phase).
#[derive(Clone, Debug)]
pub struct Traffic {
    pub crowds: Vec<Crowd>,
    pub lengths: Lengths,
    pub habits: Habits,
    pub phases: Vec<Phase>,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { prompt_median: 500.0, prompt_sigma: 1.0, prompt_max: 7000, output_max: 1024 }
    }
}

impl Traffic {
    /// The next arrival after `now_s` seconds, and its time; `None` after the last phase.
    pub fn next(&self, now_s: f64, chance: &mut Chance) -> Option<(f64, Wish)> {
        let mut at = now_s;
        let mut begins = 0.0;
        for (index, phase) in self.phases.iter().enumerate() {
            let ends = begins + phase.lasts.as_secs_f64();
            if at < ends {
                at = at.max(begins) + chance.exponential(1.0 / (self.rate() * phase.load));
                if at < ends {
                    return Some((at, self.wish(index, chance)));
                }
                // The process has no memory, so that the next phase begins afresh.
                at = ends;
            }
            begins = ends;
        }
        None
    }

    fn rate(&self) -> f64 {
        self.crowds.iter().map(|crowd| crowd.rate).sum()
    }

    fn crowd(&self, chance: &mut Chance) -> &Crowd {
        let mut left = chance.unit() * self.rate();
        let chosen = self.crowds.iter().find(|crowd| {
            left -= crowd.rate;
            left < 0.0
        });
        chosen.unwrap_or(&self.crowds[0])
    }

    fn wish(&self, phase: usize, chance: &mut Chance) -> Wish {
        let tenants = &self.crowd(chance).tenants;
        let tenant = tenants.start + chance.below(u64::from(tenants.end - tenants.start)) as u32;
        let Lengths { prompt_median, prompt_sigma, prompt_max, output_max } = self.lengths;
        let prompt = chance.log_normal(prompt_median, prompt_sigma) as u32;
        let least = 16.min(prompt_max / 4).max(1);
        let habits = &self.habits;
        let horizon_ns = habits.horizon.as_nanos() as u64;
        let within = |chance: &mut Chance, probability| {
            let happens = chance.happens(probability);
            happens.then(|| Duration::from_nanos(chance.between(1, horizon_ns.max(1))))
        };
        let prompt_tokens = prompt.clamp(least, prompt_max);
        Wish {
            tenant,
            prompt_tokens,
            output_max,
            choices: if chance.happens(habits.choices) {
                chance.between(1, u64::from(habits.choices_max.max(1))) as u32
            } else {
                1
            },
            name: chance.bits(),
            shared_tokens: if chance.happens(habits.shared_prefix) {
                chance.between(0, u64::from(prompt_tokens)) as u32
            } else {
                0
            },
            flex: chance.happens(habits.flex),
            priority: -i32::from(chance.happens(habits.urgent)),
            nan: chance.happens(habits.nan),
            poison: chance.happens(habits.poison),
            deadline_in: within(chance, habits.deadline),
            leaves_in: within(chance, habits.leave),
            phase,
        }
    }
}
