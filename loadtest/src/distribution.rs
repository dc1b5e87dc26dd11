//! From values to a [`Distribution`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use crate::summary::Distribution;

/// Always computed.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];
/// Digits that the histogram keeps.
const DIGITS: u8 = 3;
/// Points of the curve: evenly over the body, closer in the tail.
const CURVE_BODY: u32 = 180;
const CURVE_TAIL: [f64; 6] = [0.9925, 0.995, 0.9975, 0.999, 0.9995, 0.9999];

/// Gathers values in nanoseconds.
#[derive(Debug)]
pub struct Gathering {
    histogram: Histogram<u64>,
    // Kept exactly: the histogram's own would be of rounded values.
    sum: f64,
    sum_of_squares: f64,
    min: u64,
    max: u64,
}

impl Gathering {
    /// Without values.
    pub fn new() -> Self {
        Self {
            histogram: Histogram::new(DIGITS).expect("3 digits are within the histogram's bounds"),
            sum: 0.0,
            sum_of_squares: 0.0,
            min: u64::MAX,
            max: 0,
        }
    }

    /// One more value.
    pub fn add(&mut self, value_ns: u64) {
        self.histogram.record(value_ns).expect("the histogram grows to any u64");
        self.sum += value_ns as f64;
        self.sum_of_squares += (value_ns as f64).powi(2);
        self.min = self.min.min(value_ns);
        self.max = self.max.max(value_ns);
    }

    /// Figures in milliseconds, with these percentiles besides the usual.
    pub fn distribution(&self, percentiles: &[f64]) -> Distribution {
        let count = self.histogram.len();
        if count == 0 {
            return Distribution::default();
        }
        let mean = self.sum / count as f64;
        let variance = (self.sum_of_squares / count as f64 - mean * mean).max(0.0);
        let mut wanted: Vec<f64> = PERCENTILES.iter().chain(percentiles).copied().collect();
        wanted.sort_by(f64::total_cmp);
        wanted.dedup();
        Distribution {
            count,
            mean_ms: mean / 1e6,
            std_ms: variance.sqrt() / 1e6,
            min_ms: ms(self.min),
            max_ms: ms(self.max),
            percentiles: wanted.into_iter().map(|at| (at, self.quantile_ms(at / 100.0))).collect(),
            cdf: self.curve(),
            hdr: self.encoded(),
        }
    }

    /// The least value that so large a part of all values does not exceed.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        ms(self.histogram.value_at_quantile(quantile).clamp(self.min, self.max))
    }

    fn curve(&self) -> Vec<(f64, f64)> {
        let body = (0..=CURVE_BODY).map(|step| f64::from(step) / f64::from(CURVE_BODY));
        let mut at: Vec<f64> = body.chain(CURVE_TAIL).collect();
        at.sort_by(f64::total_cmp);
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(at.len());
        for quantile in at {
            let value = self.quantile_ms(quantile);
            match points.last_mut() {
                // Steps of the curve: the highest fraction at a value counts.
                Some(last) if last.0 == value => last.1 = quantile,
                _ => points.push((value, quantile)),
            }
        }
        points
    }

    fn encoded(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.histogram, &mut bytes)
            .expect("a histogram of u64 counts fits in memory");
        STANDARD.encode(bytes)
    }
}

impl Default for Gathering {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<u64> for Gathering {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut gathering = Self::new();
        values.into_iter().for_each(|value| gathering.add(value));
        gathering
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_within_the_histograms_digits_of_the_truth() {
        // 1 ms to 10 s in steps of 1 ms, shuffled by a multiplication that visits each once.
        let values = (0..10_000u64).map(|n| (n * 7919 % 10_000 + 1) * 1_000_000);
        let figures = values.collect::<Gathering>().distribution(&[75.0]);
        assert_eq!(figures.count, 10_000);
        assert_eq!((figures.min_ms, figures.max_ms), (1.0, 10_000.0));
        assert!((figures.mean_ms - 5000.5).abs() < 1e-6);
        assert!((figures.std_ms - 2886.75).abs() < 0.01);
        for (at, value) in &figures.percentiles {
            let truth = at / 100.0 * 10_000.0;
            assert!((value / truth - 1.0).abs() < 0.001, "{at} {value}");
        }
        assert!(figures.percentile(75.0).is_some());
        assert!(figures.cdf.len() <= 200 && figures.cdf.is_sorted());
        assert_eq!(figures.cdf.last().unwrap().1, 1.0);
    }

    #[test]
    fn the_written_histogram_can_be_read_and_merged() {
        let gathering: Gathering = [5_000_000, 9_000_000].into_iter().collect();
        let bytes = STANDARD.decode(gathering.distribution(&[]).hdr).unwrap();
        let read: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(read.len(), 2);
        assert!(read.equivalent(read.max(), 9_000_000));
    }

    #[test]
    fn without_values_there_are_no_figures() {
        assert_eq!(Gathering::new().distribution(&[50.0]), Distribution::default());
    }
}
