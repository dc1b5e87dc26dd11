//! Which tokens may be drawn, and the draw: the tokens in descending order of logit (equal ones in
//! ascending order of token), of which `top_k`, `top_p` and `min_p` each keep the first so many.
//!
//! A vocabulary is not sorted for that. The bits of a token's distance from the largest logit are
//! a key; a place in the order is found digit by digit (radix selection), by the count and the
//! mass of the tokens of each digit. Sums are made in one order: of tokens, then of digits.

use super::kernels::{KernelSet, Weigh};

/// Bits of a digit, from the key's highest: a sign that is always 0, then exponent and mantissa.
const DIGITS: [u32; 3] = [11, 11, 10];

/// Values of a digit.
const RADIX: usize = 1 << 11;

/// Tokens that are sorted rather than divided further.
const SORTED_MAX: usize = 512;

/// The first digit of an infinite distance: tokens that cannot be drawn.
const INFINITE: usize = (f32::INFINITY.to_bits() >> 21) as usize;

/// Working memory for a vocabulary.
#[derive(Debug)]
pub(super) struct Ranking {
    /// Of each token: its distance from the largest logit, over the temperature.
    distances: Vec<f32>,
    /// Of each token: `exp(-distance)`.
    weights: Vec<f32>,
    /// Of the first digit, over all tokens.
    first: Vec<Group>,
    /// Of a later digit, over the tokens that share the digits before.
    later: Vec<Group>,
    sorted: Vec<(u32, u32)>,
}

/// What a row's tokens are cut down to, in the order of the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts {
    /// As [`crate::device::SamplingParams::top_k`].
    pub top_k: u32,
    /// As [`crate::device::SamplingParams::top_p`].
    pub top_p: f32,
    /// As [`crate::device::SamplingParams::min_p`].
    pub min_p: f32,
}

/// How many tokens, and the sum of their weights.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    count: usize,
    mass: f64,
}

/// The first tokens of the order, and the last of them.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    group: Group,
    last: u32,
}

impl Group {
    fn and(self, other: Group) -> Group {
        Group { count: self.count + other.count, mass: self.mass + other.mass }
    }
}

impl Ranking {
    /// Memory for `vocab` tokens.
    pub fn new(vocab: usize) -> Self {
        Self {
            distances: Vec::with_capacity(vocab),
            weights: Vec::with_capacity(vocab),
            first: vec![Group::default(); RADIX],
            later: vec![Group::default(); RADIX],
            sorted: Vec::with_capacity(SORTED_MAX),
        }
    }

    /// Draws a token by the inverse of the cumulative distribution at `u` in `[0, 1)`. `largest`
    /// is the largest of `logits` and finite; `temperature` is above 0.
    pub fn draw(
        &mut self,
        kernels: KernelSet,
        (logits, largest): (&[f32], f32),
        temperature: f32,
        cuts: Cuts,
        u: f64,
    ) -> u32 {
        self.fill(kernels, logits, largest, temperature);
        let mut kept = self.first.iter().fold(Group::default(), |sum, group| sum.and(*group));
        if cuts.top_k > 0 && (cuts.top_k as usize) < kept.count {
            kept = self.find(|g| g.count >= cuts.top_k as usize).group;
        }
        if cuts.top_p < 1.0 {
            let target = f64::from(cuts.top_p) * kept.mass;
            kept = self.find(|g| g.mass >= target || g.count >= kept.count).group;
        }
        if cuts.min_p > 0.0 {
            // The largest has weight 1, before and after any cut.
            let limit = -cuts.min_p.ln();
            let likely = self.distances.iter().filter(|&&d| d <= limit).count();
            let count = likely.clamp(1, kept.count);
            kept = self.find(|g| g.count >= count).group;
        }
        let target = u * kept.mass;
        self.find(|g| g.mass > target || g.count >= kept.count).last
    }

    fn fill(&mut self, kernels: KernelSet, logits: &[f32], largest: f32, temperature: f32) {
        self.distances.resize(logits.len(), 0.0);
        self.weights.resize(logits.len(), 0.0);
        kernels.run(Weigh {
            logits,
            largest,
            temperature,
            distances: &mut self.distances,
            weights: &mut self.weights,
        });
        count(&self.distances, &self.weights, (0, 0), &mut self.first);
        self.first[INFINITE] = Group::default();
    }

    /// The shortest prefix of the order that is enough; all of it where none is. `enough` holds
    /// for a longer prefix where it holds for a shorter one.
    fn find(&mut self, enough: impl Fn(Group) -> bool) -> Prefix {
        let mut before = Group::default();
        let mut prefix = 0;
        for (level, bits) in DIGITS.into_iter().enumerate() {
            if level > 0 {
                count(&self.distances, &self.weights, (level, prefix), &mut self.later);
            }
            let groups = if level == 0 { &self.first } else { &self.later };
            let (digit, group) = step(groups, &mut before, &enough);
            prefix = prefix << bits | digit;
            if group.count <= SORTED_MAX || level + 1 == DIGITS.len() {
                return self.walk((level + 1, prefix), before, enough);
            }
        }
        unreachable!("the last digit is walked")
    }

    /// Goes through the tokens whose first digits are `prefix`, one by one.
    fn walk(
        &mut self,
        prefix: (usize, u32),
        mut before: Group,
        enough: impl Fn(Group) -> bool,
    ) -> Prefix {
        self.sorted.clear();
        let shift = shift_of(prefix.0);
        for (distance, token) in self.distances.iter().zip(0..) {
            if distance.to_bits() >> shift == prefix.1 {
                self.sorted.push((distance.to_bits(), token));
            }
        }
        // Tokens of one key are in order already.
        self.sorted.sort_by_key(|(key, _)| *key);
        let mut last = 0;
        for &(_, token) in &self.sorted {
            let mass = f64::from(self.weights[token as usize]);
            before = before.and(Group { count: 1, mass });
            last = token;
            if enough(before) {
                break;
            }
        }
        // Rounding may keep the sum in this order below that of the group: its last token then.
        Prefix { group: before, last }
    }
}

/// Bits after the first `digits` digits.
fn shift_of(digits: usize) -> u32 {
    DIGITS[digits..].iter().sum()
}

/// Counts the tokens whose first `level` digits are `prefix` by their next digit.
fn count(distances: &[f32], weights: &[f32], (level, prefix): (usize, u32), to: &mut [Group]) {
    to.fill(Group::default());
    let shift = shift_of(level + 1);
    let mask = (1 << DIGITS[level]) - 1;
    for (distance, weight) in distances.iter().zip(weights) {
        let key = distance.to_bits() >> shift;
        // The first digit has nothing before it; a shift by its 11 bits gives 0.
        if key >> DIGITS[level] == prefix {
            let group = &mut to[(key & mask) as usize];
            *group = group.and(Group { count: 1, mass: f64::from(*weight) });
        }
    }
}

/// The first digit at which what is before and the digits up to it are enough, or the last that
/// any token has; adds what is before it to `before`.
fn step(groups: &[Group], before: &mut Group, enough: impl Fn(Group) -> bool) -> (u32, Group) {
    let mut found = (0, Group::default());
    let mut passed = *before;
    for (digit, group) in (0..).zip(groups).filter(|(_, g)| g.count > 0) {
        *before = passed;
        found = (digit, *group);
        passed = passed.and(*group);
        if enough(passed) {
            break;
        }
    }
    found
}
