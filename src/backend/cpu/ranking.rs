//! Which tokens may be drawn, and the draw: the tokens in descending order of logit (equal ones in
//! ascending order of token), of which `top_k`, `top_p` and `min_p` each keep the first so many.
//!
//! A vocabulary is not sorted for that. Tokens fall into buckets by their distance from the
//! largest logit; a cut is found by the buckets' counts and masses, and only the bucket that holds
//! it is sorted. Sums are made in one order: that of tokens within a bucket, then of buckets.

use std::ops::Range;

/// Buckets of a unit of logit. Most of a distribution's mass lies within some units of its
/// maximum, so that a bucket holds some hundreds of a vocabulary's tokens.
const BUCKETS_PER_UNIT: f32 = 32.0;

/// Buckets: tokens 32 units and more below the largest, with less than 1e-13 of its probability,
/// share the last one.
const BUCKETS: usize = 1024;

/// Working memory for a vocabulary.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// Of each token: its distance from the largest logit, over the temperature; infinite for a
    /// token that cannot be drawn.
    distances: Vec<f32>,
    counts: Vec<u32>,
    masses: Vec<f64>,
    /// The bucket that was sorted last, and its tokens in order.
    sorted: Vec<(f32, u32)>,
    sorted_bucket: Option<usize>,
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

/// The first tokens of the order: how many, and the sum of `exp(-distance)` over them.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    count: usize,
    mass: f64,
}

impl Ranking {
    /// Memory for `vocab` tokens.
    pub fn new(vocab: usize) -> Self {
        Self {
            distances: Vec::with_capacity(vocab),
            counts: vec![0; BUCKETS],
            masses: vec![0.0; BUCKETS],
            sorted: Vec::with_capacity(vocab),
            sorted_bucket: None,
        }
    }

    /// Draws a token by the inverse of the cumulative distribution at `u` in `[0, 1)`. `largest`
    /// is the largest of `logits` and finite; `temperature` is above 0.
    pub fn draw(
        &mut self,
        logits: &[f32],
        largest: f32,
        temperature: f32,
        cuts: Cuts,
        u: f64,
    ) -> u32 {
        self.fill(logits, largest, temperature);
        let mut kept = self.all();
        if cuts.top_k > 0 && (cuts.top_k as usize) < kept.count {
            kept = self.first(cuts.top_k as usize);
        }
        if cuts.top_p < 1.0 {
            let target = f64::from(cuts.top_p) * kept.mass;
            let reached = self.until(kept, |mass| mass >= target);
            kept = self.first(reached + 1);
        }
        if cuts.min_p > 0.0 {
            // The largest has probability exp(0) in these units, before and after any cut.
            let limit = -cuts.min_p.ln();
            let count = self.distances.iter().filter(|&&d| d <= limit).count();
            kept = self.first(count.clamp(1, kept.count));
        }
        let target = u * kept.mass;
        let place = self.until(kept, |mass| mass > target);
        let (bucket, start) = self.bucket_of(place);
        self.sort(bucket);
        self.sorted[place - start].1
    }

    fn fill(&mut self, logits: &[f32], largest: f32, temperature: f32) {
        self.sorted_bucket = None;
        self.counts.fill(0);
        self.masses.fill(0.0);
        self.distances.clear();
        self.distances.extend(logits.iter().map(|l| (largest - l) / temperature));
        for &distance in &self.distances {
            if distance.is_finite() {
                let bucket = bucket(distance);
                self.counts[bucket] += 1;
                self.masses[bucket] += weight(distance);
            }
        }
    }

    fn all(&self) -> Prefix {
        let count = self.counts.iter().map(|&c| c as usize).sum();
        Prefix { count, mass: self.masses.iter().sum() }
    }

    /// The first `count` tokens; there are as many.
    fn first(&mut self, count: usize) -> Prefix {
        let (bucket, start) = self.bucket_of(count - 1);
        self.sort(bucket);
        let before: f64 = self.masses[..bucket].iter().sum();
        let within = self.sorted[..count - start].iter().map(|(d, _)| weight(*d));
        Prefix { count, mass: within.fold(before, |mass, w| mass + w) }
    }

    /// The place of the first token at which the cumulative mass is enough, or the last place of
    /// `kept` where rounding keeps it from that.
    fn until(&mut self, kept: Prefix, enough: impl Fn(f64) -> bool) -> usize {
        let (mut before, mut start) = (0.0, 0);
        for bucket in 0..BUCKETS {
            let count = self.counts[bucket] as usize;
            let last = start + count >= kept.count;
            if count > 0 && (enough(before + self.masses[bucket]) || last) {
                self.sort(bucket);
                for (i, (distance, _)) in self.sorted.iter().enumerate() {
                    before += weight(*distance);
                    if enough(before) || start + i + 1 >= kept.count {
                        return start + i;
                    }
                }
                // Rounding: the sum in sorted order stayed below the bucket's mass.
                return start + count - 1;
            }
            before += self.masses[bucket];
            start += count;
        }
        kept.count - 1
    }

    /// The bucket of the token at a place of the order, and the place of the bucket's first.
    fn bucket_of(&self, place: usize) -> (usize, usize) {
        let mut start = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            if place < start + count as usize {
                return (bucket, start);
            }
            start += count as usize;
        }
        unreachable!("place {place} of {start} tokens that can be drawn")
    }

    fn sort(&mut self, wanted: usize) {
        if self.sorted_bucket == Some(wanted) {
            return;
        }
        let range = distances_of(wanted);
        self.sorted.clear();
        let tokens = self.distances.iter().zip(0..).filter(|(d, _)| range.contains(d));
        self.sorted.extend(tokens.filter(|(d, _)| d.is_finite()).map(|(&d, token)| (d, token)));
        self.sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.sorted_bucket = Some(wanted);
    }
}

fn bucket(distance: f32) -> usize {
    // Saturating: distances beyond the last bucket go there.
    ((distance * BUCKETS_PER_UNIT) as usize).min(BUCKETS - 1)
}

/// The distances that fall into a bucket; exact, since the scale is a power of two.
fn distances_of(bucket: usize) -> Range<f32> {
    let start = bucket as f32 / BUCKETS_PER_UNIT;
    let end = (bucket + 1) as f32 / BUCKETS_PER_UNIT;
    start..if bucket + 1 == BUCKETS { f32::INFINITY } else { end }
}

/// Probability relative to the most probable token.
fn weight(distance: f32) -> f64 {
    f64::from((-distance).exp())
}
