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

/// A client's wish.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub tenant: u32,
    pub prompt_tokens: u32,
    pub output_max: u32,
    /// Which phase it belongs to.
    pub phase: usize,
}

/// Arrivals of independent clients (a Poisson process with a rate for each phase).
#[derive(Clone, Debug)]
pub struct Traffic {
    pub crowds: Vec<Crowd>,
    pub lengths: Lengths,
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
        let rate: f64 = self.crowds.iter().map(|crowd| crowd.rate).sum();
        let mut at = now_s;
        let mut begins = 0.0;
        for (index, phase) in self.phases.iter().enumerate() {
            let ends = begins + phase.lasts.as_secs_f64();
            if at < ends {
                at = at.max(begins) + chance.exponential(1.0 / (rate * phase.load));
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

    fn wish(&self, phase: usize, chance: &mut Chance) -> Wish {
        let rate: f64 = self.crowds.iter().map(|crowd| crowd.rate).sum();
        let mut left = chance.unit() * rate;
        let mut chosen = &self.crowds[0];
        for crowd in &self.crowds {
            chosen = crowd;
            left -= crowd.rate;
            if left < 0.0 {
                break;
            }
        }
        let tenants = u64::from(chosen.tenants.end - chosen.tenants.start);
        let Lengths { prompt_median, prompt_sigma, prompt_max, output_max } = self.lengths;
        let prompt = chance.log_normal(prompt_median, prompt_sigma) as u32;
        Wish {
            tenant: chosen.tenants.start + chance.below(tenants) as u32,
            prompt_tokens: prompt.clamp(16, prompt_max),
            output_max,
            phase,
        }
    }
}
