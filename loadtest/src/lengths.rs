//! Lengths of prompts and answers in tokens.

use rand::Rng;
use rand_distr::{Distribution, LogNormal};
use serde::Deserialize;

use crate::error::Error;

/// How a length is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Lengths {
    /// Always this many tokens.
    Fixed(u32),
    /// Each from `min` to `max`, both included, equally often.
    Uniform {
        /// Least.
        min: u32,
        /// Greatest.
        max: u32,
    },
    /// `exp(ln(median) + sigma * z)`, cut to the bounds: the shape of real traffic.
    LogNormal {
        /// Half are shorter.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// Least.
        min: u32,
        /// Greatest.
        max: u32,
    },
}

impl Lengths {
    /// vLLM's `--random-range-ratio`: uniform in `[length * (1 - ratio), length * (1 + ratio)]`.
    pub fn around(length: u32, ratio: f64) -> Self {
        if ratio == 0.0 {
            return Self::Fixed(length);
        }
        let low = (f64::from(length) * (1.0 - ratio)).floor().max(1.0);
        let high = (f64::from(length) * (1.0 + ratio)).ceil();
        Self::Uniform { min: low as u32, max: high as u32 }
    }

    /// Refuses what cannot be drawn from.
    ///
    /// # Errors
    /// Zero tokens, bounds in the wrong order, or a log-normal that is none.
    pub fn check(&self, what: &str) -> Result<(), Error> {
        let (sane, expected) = match *self {
            Self::Fixed(tokens) => (tokens >= 1, "at least 1 token"),
            Self::Uniform { min, max } => (min >= 1 && min <= max, "1 <= min <= max"),
            Self::LogNormal { median, sigma, min, max } => (
                median > 0.0 && median.is_finite() && sigma >= 0.0 && min >= 1 && min <= max,
                "median above 0, sigma not negative, 1 <= min <= max",
            ),
        };
        if sane { Ok(()) } else { Err(Error::Usage(format!("{what}: expected {expected}"))) }
    }

    /// The next length.
    pub fn draw(&self, rng: &mut impl Rng) -> u32 {
        match *self {
            Self::Fixed(tokens) => tokens,
            Self::Uniform { min, max } => rng.random_range(min..=max),
            Self::LogNormal { median, sigma, min, max } => {
                let shape = LogNormal::new(median.ln(), sigma)
                    .expect("a checked profile has a sigma that is not negative");
                (shape.sample(rng).round() as u32).clamp(min, max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness::{Purpose, stream};

    #[test]
    fn drawn_lengths_have_the_asked_median_and_keep_their_bounds() {
        let mut rng = stream(7, Purpose::Lengths, 0);
        let shape = Lengths::LogNormal { median: 200.0, sigma: 0.8, min: 10, max: 1000 };
        let mut drawn: Vec<u32> = (0..20_000).map(|_| shape.draw(&mut rng)).collect();
        drawn.sort_unstable();
        let median = drawn[drawn.len() / 2];
        assert!((196..=204).contains(&median), "{median}");
        // A normal variable is within one sigma in 68.27 % of the cases.
        let inside =
            drawn.iter().filter(|&&n| n > 89 && f64::from(n) < 445.1).count() as f64 / 20_000.0;
        assert!((inside - 0.6827).abs() < 0.01, "{inside}");
        assert!(drawn[0] >= 10 && drawn[drawn.len() - 1] <= 1000);
    }

    #[test]
    fn the_range_ratio_is_vllms() {
        assert_eq!(Lengths::around(100, 0.0), Lengths::Fixed(100));
        assert_eq!(Lengths::around(100, 0.3), Lengths::Uniform { min: 70, max: 130 });
        let mut rng = stream(7, Purpose::Lengths, 0);
        let shape = Lengths::around(100, 0.3);
        let mean = (0..20_000).map(|_| f64::from(shape.draw(&mut rng))).sum::<f64>() / 20_000.0;
        assert!((mean - 100.0).abs() < 0.6, "{mean}");
        assert!(Lengths::Uniform { min: 5, max: 4 }.check("x").is_err());
    }
}
