//! Admitted requests that have not started, in the order in which the engine will start them: by
//! class, then by the virtual time of tenants. The engine keeps that order; this mirrors it from
//! what permits report, so that a decision at the door asks nothing of the engine.

use crate::clock::Time;
use crate::config::Class;
use crate::ids::TenantId;

/// Classes, and so lines, of a tenant.
const CLASSES: usize = 3;
/// What a drain's rate remembers.
const DRAIN_MEMORY_S: f64 = 1.0;
/// Weight of the newest answer in a line's mean length.
const OUTPUT_WEIGHT: f64 = 0.1;
/// Tokens of an answer as long as a line has seen none.
const OUTPUT_UNKNOWN_TOKENS: f64 = 200.0;

/// Waiting work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Prompt tokens.
    pub tokens: f64,
    pub requests: f64,
    /// Predicted device time of prompts and answers, in microseconds.
    pub cost_us: f64,
}

/// The requests of one tenant in one class, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineId(usize);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Three for each tenant: as bounded as the roster's ids.
    lines: Vec<Line>,
    /// Lines with waiting work.
    occupied: Vec<usize>,
    /// Virtual time of each class: the least of its occupied lines when one last started.
    now_us: [f64; CLASSES],
    drain: Drain,
    /// Since when something has waited at every moment.
    occupied_since: Option<Time>,
}

#[derive(Clone, Debug)]
struct Line {
    weight: f64,
    /// Virtual time: device time that it was served, by its weight.
    served_us: f64,
    waiting: Work,
    /// Its place in [`Backlog::occupied`], while it is there.
    place: usize,
    drain: Drain,
    output_tokens: f64,
}

/// Prompt tokens that start each second while some wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drain {
    tokens_per_s: f64,
    since: Time,
}

impl LineId {
    /// The line of a tenant's requests of a class.
    pub fn new(tenant: TenantId, class: Class) -> Self {
        Self(tenant.index() * CLASSES + class as usize)
    }

    fn class(self) -> usize {
        self.0 % CLASSES
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            weight: 1.0,
            served_us: 0.0,
            waiting: Work::default(),
            place: 0,
            drain: Drain::default(),
            output_tokens: OUTPUT_UNKNOWN_TOKENS,
        }
    }
}

impl Backlog {
    /// Adds a request.
    pub fn enter(&mut self, id: LineId, weight: u32, work: Work, now: Time) {
        if self.lines.len() <= id.0 {
            self.lines.resize_with(id.0 + 1, Line::default);
        }
        if self.occupied.is_empty() {
            self.occupied_since = Some(now);
            self.drain.since = now;
        }
        let line = &mut self.lines[id.0];
        line.weight = f64::from(weight.max(1));
        if line.waiting.requests == 0.0 {
            line.place = self.occupied.len();
            self.occupied.push(id.0);
            // Who returns from idleness brings no credit along.
            line.served_us = line.served_us.max(self.now_us[id.class()]);
            line.drain.since = now;
        }
        line.waiting.tokens += work.tokens;
        line.waiting.requests += work.requests;
        line.waiting.cost_us += work.cost_us;
    }

    /// A request starts; the tokens of its prompt that are computed cost `cost_us`.
    pub fn start(&mut self, id: LineId, work: Work, cost_us: f64, now: Time) {
        let class = id.class();
        let least = self.least_served_us(class);
        self.now_us[class] = self.now_us[class].max(least.unwrap_or(0.0));
        self.drain.note(work.tokens, now);
        self.lines[id.0].drain.note(work.tokens, now);
        self.charge(id, cost_us);
        self.leave(id, work);
    }

    /// A request that waited is gone.
    pub fn leave(&mut self, id: LineId, work: Work) {
        let line = &mut self.lines[id.0];
        line.waiting.tokens -= work.tokens;
        line.waiting.requests -= work.requests;
        line.waiting.cost_us -= work.cost_us;
        if line.waiting.requests > 0.5 {
            return;
        }
        // Sums of floats that came and went do not end at zero by themselves.
        line.waiting = Work::default();
        let place = line.place;
        self.occupied.swap_remove(place);
        if let Some(moved) = self.occupied.get(place) {
            self.lines[*moved].place = place;
        }
        if self.occupied.is_empty() {
            self.occupied_since = None;
        }
    }

    /// Device time was spent on a line.
    pub fn charge(&mut self, id: LineId, cost_us: f64) {
        let line = &mut self.lines[id.0];
        line.served_us += cost_us / line.weight;
    }

    /// An answer had so many tokens.
    pub fn note_output(&mut self, id: LineId, tokens: u32) {
        let line = &mut self.lines[id.0];
        line.output_tokens += (f64::from(tokens) - line.output_tokens) * OUTPUT_WEIGHT;
    }

    /// Tokens that an answer of this line usually has.
    pub fn output_tokens(&self, id: LineId) -> f64 {
        self.lines.get(id.0).map_or(OUTPUT_UNKNOWN_TOKENS, |line| line.output_tokens)
    }

    /// What starts before a request that comes to this line now.
    pub fn ahead(&self, id: LineId) -> Work {
        let class = id.class();
        let floor = self.least_served_us(class).unwrap_or(self.now_us[class]);
        let own = self.lines.get(id.0);
        // With its own waiting requests served, its turn comes at this virtual time.
        let turn =
            own.map_or(floor, |own| own.served_us.max(floor) + own.waiting.cost_us / own.weight);
        let mut ahead = Work::default();
        for index in &self.occupied {
            let other = &self.lines[*index];
            let share = match (index % CLASSES).cmp(&class) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Greater => 0.0,
                std::cmp::Ordering::Equal => other.share_before(turn),
            };
            ahead.tokens += other.waiting.tokens * share;
            ahead.requests += other.waiting.requests * share;
            ahead.cost_us += other.waiting.cost_us * share;
        }
        ahead
    }

    /// Seconds until `tokens` have started, as they did of late.
    pub fn drain_s(&self, tokens: f64) -> f64 {
        self.drain.seconds(tokens)
    }

    /// Seconds until a line's own waiting requests have started, at the pace that others left it
    /// of late: whoever has less service than it and comes later goes before it. At least its
    /// share by weight of the class's pace is counted on, since few starts say little.
    pub fn own_drain_s(&self, id: LineId) -> f64 {
        let Some(line) = self.lines.get(id.0).filter(|line| line.waiting.requests > 0.0) else {
            return 0.0;
        };
        let same = self.occupied.iter().filter(|index| *index % CLASSES == id.class());
        let weights: f64 = same.map(|index| self.lines[*index].weight).sum();
        let due = self.drain.tokens_per_s * line.weight / weights;
        let tokens_per_s = line.drain.tokens_per_s.max(due);
        if tokens_per_s > 0.0 { line.waiting.tokens / tokens_per_s } else { 0.0 }
    }

    /// Whether a line has nothing waiting and no more service than those that do.
    pub fn is_within_share(&self, id: LineId) -> bool {
        let Some(line) = self.lines.get(id.0) else { return true };
        let floor = self.least_served_us(id.class()).unwrap_or(self.now_us[id.class()]);
        line.waiting.requests == 0.0 && line.served_us <= floor
    }

    /// Since when something has waited at every moment.
    pub fn occupied_since(&self) -> Option<Time> {
        self.occupied_since
    }

    fn least_served_us(&self, class: usize) -> Option<f64> {
        let lines = self.occupied.iter().filter(|index| *index % CLASSES == class);
        lines.map(|index| self.lines[*index].served_us).min_by(f64::total_cmp)
    }
}

impl Line {
    /// The part of its waiting work that starts before virtual time `turn`. A request is begun
    /// whole, so that the one in which `turn` falls counts.
    fn share_before(&self, turn: f64) -> f64 {
        if self.served_us > turn || self.waiting.cost_us <= 0.0 {
            return 0.0;
        }
        let mean_us = self.waiting.cost_us / self.waiting.requests;
        let before_us = (turn - self.served_us) * self.weight + mean_us;
        (before_us / self.waiting.cost_us).min(1.0)
    }
}

impl Drain {
    fn note(&mut self, tokens: f64, now: Time) {
        let elapsed_s = now.since(self.since).as_secs_f64().max(1e-3);
        let fresh = tokens / elapsed_s;
        let is_first = self.tokens_per_s == 0.0;
        let weight = if is_first { 1.0 } else { 1.0 - (-elapsed_s / DRAIN_MEMORY_S).exp() };
        self.tokens_per_s += (fresh - self.tokens_per_s) * weight;
        self.since = now;
    }

    /// 0 when nothing is known.
    fn seconds(&self, tokens: f64) -> f64 {
        if self.tokens_per_s > 0.0 { tokens / self.tokens_per_s } else { 0.0 }
    }
}
