//! What a step costs, learned from the steps that ran: device seconds as a linear function of what
//! is in a step, by recursive least squares with forgetting.
//!
//! The relative error is what is minimised: each sample is divided by its measured time, so that a
//! decode of 5 ms counts as much as a prefill of 500 ms, and a step that was held up counts less.
//! Coefficients are seconds and never negative. A sample far from its prediction is not believed
//! at first; when many are, the device has changed and the model follows.

mod errors;
mod shape;

use std::time::Duration;

use self::errors::ErrorWindow;
pub use self::shape::{StepPrices, StepShape};

/// The learned model at one moment. Before it is warm it prices tokens as VTC does (OSDI'24), a
/// generated one twice a prompt's, in nominal units of 20 us: good for shares, not for forecasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostModel {
    prices: StepPrices,
    /// What steps of a size take of what the prices say: a device changes its kernels with the
    /// number of rows. By the power of two that is not below the rows.
    factors: [f32; SIZES],
    error_p50: f64,
    error_p95: f64,
    warm: bool,
}

/// Learns a [`CostModel`]. An update costs well under 1 us and allocates nothing.
#[derive(Clone, Debug)]
pub(super) struct CostLearner {
    model: CostModel,
    /// Seconds for each scaled feature.
    theta: [f64; FEATURES],
    /// Covariance of `theta`, as far as relative errors are noise of variance [`NOISE`].
    covariance: [[f64; FEATURES]; FEATURES],
    /// Bound of the covariance's diagonal, in square seconds.
    variance_max: f64,
    /// Of steps without and with prefill.
    surprise: [Surprise; 2],
    /// Ratios of measured to predicted time of the last samples, all not believed.
    streak: [f64; STREAK],
    streak_len: usize,
    errors: ErrorWindow,
    /// Logarithms of the factors, and samples of each.
    sizes: [(f64, u32); SIZES],
    samples: u32,
    prefills: u32,
    decodes: u32,
}

/// How far samples of a kind are from their prediction, and how many lately were too far.
#[derive(Clone, Copy, Debug)]
struct Surprise {
    /// Moving average of the logarithm of measured to predicted time, without its sign.
    usual: f64,
    /// Rises with each sample that is not believed and sinks with each that is.
    suspicion: f64,
}

const FEATURES: usize = 5;
/// Sizes of steps that have a factor of their own; the last one is of all larger steps too.
const SIZES: usize = 14;
/// Weight of the newest sample of a size in its factor.
const FACTOR_WEIGHT: f64 = 0.05;
/// What one unit of each feature is to the learner, so that all are of about the same size.
const SCALES: [f64; FEATURES] = [1.0, 256.0, 256.0 * 1024.0, 64.0, 65_536.0];
/// Weight of a sample against the next one: a memory of about 200 steps.
const FORGETTING: f64 = 0.995;
/// Variance of a relative error: 5 % are taken for noise.
const NOISE: f64 = 0.0025;
/// Before the first sample, a coefficient may be this many times the first step's duration.
const PRIOR_STEPS: f64 = 300.0;
/// A sample is not believed when it is this many times as far off as samples usually are.
const GATE: f64 = 5.0;
/// Errors below this are usual whatever came before.
const USUAL_MIN: f64 = 0.02;
/// Suspicion from which samples are believed after all.
const SUSPICION_MAX: f64 = 8.0;
/// What a believed sample takes away: when less than a fifth are too far off they stay unbelieved.
const SUSPICION_EASED: f64 = 0.25;
/// Samples in a row, too far off by the same factor, after which the device has changed its pace.
const STREAK: usize = 8;
/// What a surprise multiplies the covariance with.
const DOUBT: f64 = 4.0;
/// The same factor, up to this ratio.
const STREAK_SPREAD: f64 = 1.5;
/// No bound of a price's variance is outside of this, in square seconds.
const VARIANCE_BOUND_S2: std::ops::Range<f64> = 1e-18..1e6;
/// Samples before the model is warm, and samples that each kind of row must be in.
const WARM_SAMPLES: u32 = 32;
const WARM_SAMPLES_OF_KIND: u32 = 4;
impl Default for CostModel {
    /// Not warm.
    fn default() -> Self {
        Self {
            prices: StepPrices::NOMINAL,
            factors: [1.0; SIZES],
            error_p50: errors::P50_UNKNOWN,
            error_p95: errors::P95_UNKNOWN,
            warm: false,
        }
    }
}

impl CostModel {
    /// A warm model of a device whose prices are known.
    pub fn known(prices: StepPrices, error_p95: f64) -> Self {
        let factors = [1.0; SIZES];
        Self { prices, factors, error_p50: error_p95 / 2.0, error_p95, warm: true }
    }

    /// Whether enough was learned to forecast with.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// The prices, of a step of usual size.
    pub fn prices(&self) -> &StepPrices {
        &self.prices
    }

    /// Median of the recent relative errors, as a share of the measured time.
    pub fn error_p50(&self) -> f64 {
        self.error_p50
    }

    /// As [`CostModel::error_p50`], the 95th percentile.
    pub fn error_p95(&self) -> f64 {
        self.error_p95
    }

    /// How long the step will take.
    pub fn predict(&self, shape: &StepShape) -> Duration {
        Duration::from_secs_f64(self.prices.step_s(shape) * self.factor(shape.rows()))
    }

    /// What a step of this many rows takes of what the prices say.
    pub fn factor(&self, rows: u32) -> f64 {
        f64::from(self.factors[size_of(rows)])
    }

    /// What a chunk behind `context_tokens` computed positions adds to a step, in microseconds.
    pub fn prefill_us(&self, rows: u32, context_tokens: u32) -> f64 {
        self.prices.prefill_s(rows, context_tokens) * 1e6
    }

    /// What a decode adds to a step, in microseconds.
    pub fn decode_us(&self, context_tokens: u32) -> f64 {
        self.prices.decode_s(context_tokens) * 1e6
    }

    /// The rows of a chunk behind `context_tokens` positions with which a step that holds `base`
    /// already stays within `budget`, 95 times in 100 if errors stay as they were. `None` when
    /// the model is not warm; 0 when not even one row fits.
    pub fn rows_for(&self, budget: Duration, base: &StepShape, context_tokens: u32) -> Option<u32> {
        if !self.warm {
            return None;
        }
        let budget_s = budget.as_secs_f64() / (1.0 + self.error_p95);
        let rows_at = |factor| self.rows_in(budget_s / factor, base, context_tokens);
        // The factor depends on the rows that are looked for.
        let first = rows_at(1.0);
        let second = rows_at(self.factor(base.rows().saturating_add(first)));
        let third = rows_at(self.factor(base.rows().saturating_add(second)));
        Some(second.min(third))
    }

    /// The rows with which a step's time by its prices alone is `seconds`.
    fn rows_in(&self, seconds: f64, base: &StepShape, context_tokens: u32) -> u32 {
        let room_s = seconds - self.prices.step_s(base);
        if room_s <= 0.0 {
            return 0;
        }
        // linear * rows + square * rows^2 = room
        let pair_s = self.prices.prefill_pair_s;
        let linear = self.prices.prefill_row_s + pair_s * (f64::from(context_tokens) + 0.5);
        let square = pair_s / 2.0;
        let root = (linear * linear + 4.0 * square * room_s).sqrt();
        // The form without cancellation; saturates when rows cost nothing.
        (2.0 * room_s / (linear + root)) as u32
    }
}

impl CostLearner {
    /// Knows nothing.
    pub fn new() -> Self {
        Self {
            model: CostModel::default(),
            theta: [0.0; FEATURES],
            covariance: [[0.0; FEATURES]; FEATURES],
            variance_max: 0.0,
            surprise: [Surprise { usual: 0.2, suspicion: 0.0 }; 2],
            streak: [0.0; STREAK],
            streak_len: 0,
            errors: ErrorWindow::new(),
            sizes: [(0.0, 0); SIZES],
            samples: 0,
            prefills: 0,
            decodes: 0,
        }
    }

    /// The model as it is now.
    pub fn model(&self) -> &CostModel {
        &self.model
    }

    /// Learns from a step that took `elapsed`. The relative error of what the model had predicted
    /// for it, with its sign (above 0: it took longer), when the model was warm.
    pub fn learn(&mut self, shape: &StepShape, elapsed: Duration) -> Option<f64> {
        let measured_s = elapsed.as_secs_f64();
        if measured_s <= 0.0 {
            return None;
        }
        if self.samples == 0 {
            self.set_prior(measured_s);
        }
        let features = features_of(shape);
        let size = size_of(shape.rows());
        let by_prices_s = dot(&self.theta, &features).max(measured_s * 1e-3);
        let predicted_s = by_prices_s * self.sizes[size].0.exp();
        let error = 1.0 - predicted_s / measured_s;
        let was_warm = self.model.warm;
        if was_warm {
            self.errors.add(error.abs());
        }
        let ratio = measured_s / predicted_s;
        if self.believes(ratio, shape.prefill_rows > 0) {
            if was_warm {
                self.note_size(size, (measured_s / by_prices_s).ln());
            }
            self.update(&features, measured_s);
        } else if self.pace_changed(ratio) {
            self.rescale();
        }
        self.samples = self.samples.saturating_add(1);
        self.prefills = self.prefills.saturating_add(u32::from(shape.prefill_rows > 0));
        self.decodes = self.decodes.saturating_add(u32::from(shape.decode_sequences > 0));
        self.publish();
        was_warm.then_some(error)
    }

    /// Moves a size's factor towards a sample's, by less the more samples there were.
    fn note_size(&mut self, size: usize, factor_ln: f64) {
        let (mean, samples) = &mut self.sizes[size];
        *samples = samples.saturating_add(1);
        // The first samples are averaged with as many of factor one.
        let weight = (1.0 / f64::from(*samples + 4)).max(FACTOR_WEIGHT);
        *mean += (factor_ln.clamp(-1.0, 1.0) - *mean) * weight;
    }

    fn set_prior(&mut self, first_s: f64) {
        self.variance_max = (PRIOR_STEPS * first_s).powi(2);
        for (i, row) in self.covariance.iter_mut().enumerate() {
            row[i] = self.variance_max;
        }
    }

    /// Whether a sample is near enough, or so many are not that it has to be believed.
    fn believes(&mut self, ratio: f64, prefill: bool) -> bool {
        let mut surprise = self.surprise[usize::from(prefill)];
        let distance = ratio.ln().abs();
        let gate = GATE * surprise.usual.max(USUAL_MIN);
        if self.samples >= WARM_SAMPLES && distance > gate {
            surprise.suspicion = (surprise.suspicion + 1.0).min(SUSPICION_MAX);
            if surprise.suspicion < SUSPICION_MAX {
                self.surprise[usize::from(prefill)] = surprise;
                return false;
            }
            self.doubt(1.0);
        } else {
            surprise.suspicion = (surprise.suspicion - SUSPICION_EASED).max(0.0);
        }
        self.streak_len = 0;
        surprise.usual += (distance.min(1.0) - surprise.usual) * 0.05;
        self.surprise[usize::from(prefill)] = surprise;
        true
    }

    /// Notes a sample that was not believed; whether the last ones agree on a new pace.
    fn pace_changed(&mut self, ratio: f64) -> bool {
        self.streak[self.streak_len % STREAK] = ratio;
        self.streak_len += 1;
        if self.streak_len < STREAK - 1 {
            return false;
        }
        let seen = &mut self.streak[..self.streak_len.min(STREAK)];
        seen.sort_unstable_by(f64::total_cmp);
        // One on either side may have been held up besides.
        seen[seen.len() - 2] / seen[1] < STREAK_SPREAD
    }

    /// All got slower or faster by one factor, as a device does that changes its clock.
    fn rescale(&mut self) {
        let factor = self.streak[self.streak_len.min(STREAK) / 2];
        self.theta.iter_mut().for_each(|theta| *theta *= factor);
        // Both ways: of a device whose pace goes up and down the bound would only grow.
        let bound = self.variance_max * factor * factor;
        self.variance_max = bound.clamp(VARIANCE_BOUND_S2.start, VARIANCE_BOUND_S2.end);
        // Nor is it known how well each of them followed.
        self.doubt(factor * factor);
        self.streak_len = 0;
        for surprise in &mut self.surprise {
            surprise.suspicion = 0.0;
        }
    }

    /// Lets new samples count more, of a device whose times have also changed by a factor.
    fn doubt(&mut self, square_factor: f64) {
        for row in &mut self.covariance {
            row.iter_mut().for_each(|entry| *entry *= DOUBT * square_factor);
        }
        self.bound_covariance();
    }

    fn update(&mut self, features: &[f64; FEATURES], measured_s: f64) {
        self.forget(features);
        let x: [f64; FEATURES] = features.map(|feature| feature / measured_s);
        let px: [f64; FEATURES] = std::array::from_fn(|i| dot(&self.covariance[i], &x));
        let scale = 1.0 / (NOISE + dot(&x, &px));
        let residual = 1.0 - dot(&self.theta, &x);
        for i in 0..FEATURES {
            self.theta[i] += px[i] * scale * residual;
            for j in i..FEATURES {
                let entry = self.covariance[i][j] - px[i] * px[j] * scale;
                self.covariance[i][j] = entry;
                self.covariance[j][i] = entry;
            }
            // Rounding must not make a variance negative.
            self.covariance[i][i] = self.covariance[i][i].max(1e-12 * self.variance_max);
        }
        self.bound_covariance();
        self.clamp();
    }

    /// Lets the past count less, for what is in this step alone: what is known of prefill is not
    /// forgotten by a night of decodes.
    fn forget(&mut self, features: &[f64; FEATURES]) {
        const GROWTH: f64 = 1.0 / FORGETTING;
        let root = GROWTH.sqrt();
        let grow: [f64; FEATURES] =
            std::array::from_fn(|i| if features[i] > 0.0 { root } else { 1.0 });
        for (row, grow_row) in self.covariance.iter_mut().zip(grow) {
            for (entry, grow_column) in row.iter_mut().zip(grow) {
                *entry *= grow_row * grow_column;
            }
        }
    }

    /// Keeps the covariance from winding up while steps are all alike.
    fn bound_covariance(&mut self) {
        for i in 0..FEATURES {
            let variance = self.covariance[i][i];
            if variance > self.variance_max {
                // Scaling a row and its column keeps the matrix positive.
                let shrink = (self.variance_max / variance).sqrt();
                for j in 0..FEATURES {
                    self.covariance[i][j] *= shrink;
                    self.covariance[j][i] *= shrink;
                }
            }
        }
    }

    /// Sets negative coefficients to zero, and the others to what is then likeliest.
    fn clamp(&mut self) {
        // What is still uncertain once the coefficients set to zero are known to be zero.
        let mut left = self.covariance;
        for _ in 0..FEATURES {
            let lowest = (0..FEATURES).min_by(|a, b| self.theta[*a].total_cmp(&self.theta[*b]));
            let Some(i) = lowest.filter(|i| self.theta[*i] < 0.0) else { return };
            let (column, variance) = (left[i], left[i][i]);
            let excess = std::mem::replace(&mut self.theta[i], 0.0);
            if variance <= 0.0 {
                continue;
            }
            for j in (0..FEATURES).filter(|j| *j != i) {
                self.theta[j] -= column[j] * excess / variance;
            }
            for (j, row) in left.iter_mut().enumerate() {
                for (entry, other) in row.iter_mut().zip(column) {
                    *entry -= column[j] * other / variance;
                }
                row[i] = 0.0;
            }
            left[i] = [0.0; FEATURES];
        }
        self.theta.iter_mut().for_each(|theta| *theta = theta.max(0.0));
    }

    fn publish(&mut self) {
        let kinds = self.prefills.min(self.decodes) >= WARM_SAMPLES_OF_KIND;
        if self.samples < WARM_SAMPLES || !kinds {
            return;
        }
        assert!(self.theta.iter().all(|theta| theta.is_finite()), "prices are numbers");
        let price = |i: usize| self.theta[i] / SCALES[i];
        let (error_p50, error_p95) = self.errors.quantiles();
        self.model = CostModel {
            prices: StepPrices {
                fixed_s: price(0),
                prefill_row_s: price(1),
                prefill_pair_s: price(2),
                sequence_s: price(3),
                context_token_s: price(4),
            },
            factors: self.sizes.map(|(factor_ln, _)| factor_ln.exp() as f32),
            error_p50,
            error_p95,
            warm: true,
        };
    }
}

/// The size of a step of this many rows.
fn size_of(rows: u32) -> usize {
    let bits = u32::BITS - rows.saturating_sub(1).leading_zeros();
    (bits as usize).min(SIZES - 1)
}

/// A step's features, scaled.
fn features_of(shape: &StepShape) -> [f64; FEATURES] {
    let raw = [
        1.0,
        f64::from(shape.prefill_rows),
        shape.prefill_pairs as f64,
        f64::from(shape.decode_sequences),
        shape.decode_context_tokens as f64,
    ];
    std::array::from_fn(|i| raw[i] / SCALES[i])
}

fn dot(a: &[f64; FEATURES], b: &[f64; FEATURES]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
