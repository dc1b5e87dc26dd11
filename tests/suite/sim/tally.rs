//! What came of a run: by phase, by tenant, by size.

use std::time::Duration;

use super::traffic::Wish;

/// Prompts above this are the longest tenth of the default lengths, those below `SHORT` the
/// shorter half.
pub const LONG: u32 = 1800;
pub const SHORT: u32 = 500;

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub ttft: Duration,
    pub in_time: bool,
    /// Both objectives were met.
    pub good: bool,
    pub tokens: u32,
    /// What the objective allowed to the first token.
    pub allowed: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub offered: u64,
    pub admitted: u64,
    pub refused: u64,
    /// Admitted, and not begun in time.
    pub late: u64,
    pub served: u64,
    pub good: u64,
    pub good_tokens: u64,
    pub lost: u64,
    /// Offered and good of the long and of the short prompts.
    pub long: (u64, u64),
    pub short: (u64, u64),
    pub ttft_ms: Vec<f32>,
    /// The same as a part of what was allowed.
    pub ttft_parts: Vec<f32>,
}

pub struct Tally {
    pub attempts: u64,
    pub phases: Vec<Counts>,
    /// Of the last phase alone.
    pub tenants: Vec<Counts>,
}

impl Tally {
    pub fn new(phases: usize, tenants: usize) -> Self {
        Self {
            attempts: 0,
            phases: vec![Counts::default(); phases],
            tenants: vec![Counts::default(); tenants],
        }
    }

    fn each(&mut self, wish: &Wish, note: impl Fn(&mut Counts)) {
        note(&mut self.phases[wish.phase]);
        if wish.phase + 1 == self.phases.len() {
            note(&mut self.tenants[wish.tenant as usize]);
        }
    }

    /// Requests so far.
    pub fn offered_requests(&self) -> u64 {
        self.phases.iter().map(|phase| phase.offered).sum()
    }

    pub fn offered(&mut self, wish: &Wish) {
        self.each(wish, |counts| {
            counts.offered += 1;
            counts.long.0 += u64::from(wish.prompt_tokens > LONG);
            counts.short.0 += u64::from(wish.prompt_tokens < SHORT);
        });
    }

    pub fn admitted(&mut self, wish: &Wish) {
        self.each(wish, |counts| counts.admitted += 1);
    }

    pub fn refused(&mut self, wish: &Wish) {
        self.each(wish, |counts| counts.refused += 1);
    }

    pub fn late(&mut self, wish: &Wish) {
        self.each(wish, |counts| counts.late += 1);
    }

    pub fn lost(&mut self, wish: &Wish) {
        self.each(wish, |counts| counts.lost += 1);
    }

    pub fn served(&mut self, wish: &Wish, ending: Ending) {
        self.each(wish, |counts| {
            counts.served += 1;
            counts.late += u64::from(!ending.in_time);
            counts.ttft_ms.push(ending.ttft.as_secs_f32() * 1e3);
            counts.ttft_parts.push(ending.ttft.div_duration_f32(ending.allowed));
            if ending.good {
                counts.good += 1;
                counts.good_tokens += u64::from(ending.tokens);
                counts.long.1 += u64::from(wish.prompt_tokens > LONG);
                counts.short.1 += u64::from(wish.prompt_tokens < SHORT);
            }
        });
    }
}

impl Counts {
    /// All of these together.
    pub fn sum(parts: &[Counts]) -> Counts {
        let mut sum = Counts::default();
        for part in parts {
            sum.offered += part.offered;
            sum.admitted += part.admitted;
            sum.refused += part.refused;
            sum.late += part.late;
            sum.served += part.served;
            sum.good += part.good;
            sum.good_tokens += part.good_tokens;
            sum.lost += part.lost;
            sum.long = (sum.long.0 + part.long.0, sum.long.1 + part.long.1);
            sum.short = (sum.short.0 + part.short.0, sum.short.1 + part.short.1);
            sum.ttft_ms.extend(&part.ttft_ms);
            sum.ttft_parts.extend(&part.ttft_parts);
        }
        sum
    }

    /// A quantile of the time to first token of what was served, in milliseconds.
    pub fn ttft_ms(&self, at: f64) -> f32 {
        quantile(&self.ttft_ms, at)
    }

    /// The same as a part of what was allowed.
    pub fn ttft_part(&self, at: f64) -> f32 {
        quantile(&self.ttft_parts, at)
    }

    /// Requests that were answered within both objectives.
    pub fn good_share(&self) -> f64 {
        self.good as f64 / self.offered.max(1) as f64
    }

    pub fn late_share(&self) -> f64 {
        self.late as f64 / self.admitted.max(1) as f64
    }

    /// Success of long prompts over success of short ones.
    pub fn size_ratio(&self) -> f64 {
        let share = |(offered, good): (u64, u64)| good as f64 / offered.max(1) as f64;
        share(self.long) / share(self.short).max(1e-9)
    }
}

fn quantile(values: &[f32], at: f64) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let place = (at * sorted.len() as f64) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
