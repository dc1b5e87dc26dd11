//! What a step costs, learned from the steps that ran: device seconds as a linear function of what
//! is in a step, by recursive least squares with forgetting.
//!
//! The relative error is what is minimised: each sample is divided by its measured time, so that a
//! decode of 5 ms counts as much as a prefill of 500 ms, and a step that was held up counts less.
//! Coefficients are seconds and never negative. A sample far from its prediction is not believed
//! at first; when many are, the device has changed and the model follows.

mod errors;

use std::time::Duration;

use self::errors::ErrorWindow;

/// What is in a step, as far as its duration depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Rows of chunks of several rows. A chunk of one row is computed as a decode is.
    pub prefill_rows: u32,
    /// Of these rows, all pairs of a row and a position that it attends to.
    pub prefill_pairs: u64,
    /// Sequences that go on by one row.
    pub decode_sequences: u32,
    /// Positions that those rows attend to.
    pub decode_context_tokens: u64,
}

/// What each part of a step costs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPrices {
    /// Each step.
    pub fixed_s: f64,
    /// See [`StepShape::prefill_rows`].
    pub prefill_row_s: f64,
    /// See [`StepShape::prefill_pairs`].
    pub prefill_pair_s: f64,
    /// See [`StepShape::decode_sequences`].
    pub sequence_s: f64,
    /// See [`StepShape::decode_context_tokens`].
    pub context_token_s: f64,
}

/// The learned model at one moment. Before it is warm it prices tokens as VTC does (OSDI'24), a
/// generated one twice a prompt's, in nominal units of 20 us: good for shares, not for forecasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostModel {
    prices: StepPrices,
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
/// Samples before the model is warm, and samples that each kind of row must be in.
const WARM_SAMPLES: u32 = 32;
const WARM_SAMPLES_OF_KIND: u32 = 4;
impl StepShape {
    /// Adds a chunk of `rows` rows behind `context_tokens` computed positions.
    pub fn add_prefill(&mut self, rows: u32, context_tokens: u32) {
        if rows == 1 {
            self.add_decode(context_tokens + 1);
            return;
        }
        self.prefill_rows += rows;
        self.prefill_pairs += pairs(rows, context_tokens);
    }

    /// Adds a row that attends to `context_tokens` positions, its own among them.
    pub fn add_decode(&mut self, context_tokens: u32) {
        self.decode_sequences += 1;
        self.decode_context_tokens += u64::from(context_tokens);
    }

    fn features(&self) -> [f64; FEATURES] {
        let raw = [
            1.0,
            f64::from(self.prefill_rows),
            self.prefill_pairs as f64,
            f64::from(self.decode_sequences),
            self.decode_context_tokens as f64,
        ];
        std::array::from_fn(|i| raw[i] / SCALES[i])
    }
}

impl StepPrices {
    /// Those of VTC's token counts, in units of 20 us.
    pub const NOMINAL: StepPrices = StepPrices {
        fixed_s: 0.0,
        prefill_row_s: 20e-6,
        prefill_pair_s: 0.0,
        sequence_s: 40e-6,
        context_token_s: 0.0,
    };

    /// Seconds of a step.
    pub fn step_s(&self, shape: &StepShape) -> f64 {
        self.fixed_s
            + self.prefill_row_s * f64::from(shape.prefill_rows)
            + self.prefill_pair_s * shape.prefill_pairs as f64
            + self.sequence_s * f64::from(shape.decode_sequences)
            + self.context_token_s * shape.decode_context_tokens as f64
    }

    /// Seconds that a chunk adds to a step.
    pub fn prefill_s(&self, rows: u32, context_tokens: u32) -> f64 {
        let mut shape = StepShape::default();
        shape.add_prefill(rows, context_tokens);
        self.step_s(&shape) - self.fixed_s
    }

    /// Seconds that a decode adds to a step.
    pub fn decode_s(&self, context_tokens: u32) -> f64 {
        self.sequence_s + self.context_token_s * f64::from(context_tokens)
    }
}

impl Default for CostModel {
    /// Not warm.
    fn default() -> Self {
        Self {
            prices: StepPrices::NOMINAL,
            error_p50: errors::P50_UNKNOWN,
            error_p95: errors::P95_UNKNOWN,
            warm: false,
        }
    }
}

impl CostModel {
    /// A warm model of a device whose prices are known.
    pub fn known(prices: StepPrices, error_p95: f64) -> Self {
        Self { prices, error_p50: error_p95 / 2.0, error_p95, warm: true }
    }

    /// Whether enough was learned to forecast with.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// The prices.
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
        Duration::from_secs_f64(self.prices.step_s(shape))
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
        let room_s = budget.as_secs_f64() / (1.0 + self.error_p95) - self.prices.step_s(base);
        if room_s <= 0.0 {
            return Some(0);
        }
        // linear * rows + square * rows^2 = room
        let pair_s = self.prices.prefill_pair_s;
        let linear = self.prices.prefill_row_s + pair_s * (f64::from(context_tokens) + 0.5);
        let square = pair_s / 2.0;
        let root = (linear * linear + 4.0 * square * room_s).sqrt();
        // The form without cancellation; saturates when rows cost nothing.
        Some((2.0 * room_s / (linear + root)) as u32)
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
        let features = shape.features();
        let predicted_s = dot(&self.theta, &features).max(measured_s * 1e-3);
        let error = 1.0 - predicted_s / measured_s;
        let was_warm = self.model.warm;
        if was_warm {
            self.errors.add(error.abs());
        }
        let ratio = measured_s / predicted_s;
        if self.believes(ratio, shape.prefill_rows > 0) {
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
        self.variance_max *= (factor * factor).max(1.0);
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
            error_p50,
            error_p95,
            warm: true,
        };
    }
}

/// Pairs of a row of a chunk and a position at or before it.
fn pairs(rows: u32, context_tokens: u32) -> u64 {
    let rows = u64::from(rows);
    rows * u64::from(context_tokens) + rows * (rows + 1) / 2
}

fn dot(a: &[f64; FEATURES], b: &[f64; FEATURES]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
