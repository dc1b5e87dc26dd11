//! When requests arrive in an open loop.

use rand::Rng;
use rand_distr::{Distribution, Gamma};
use serde::Deserialize;

use crate::error::Error;

/// The shape of arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// Gaps are exponential: many independent users.
    #[default]
    Poisson,
    /// Gaps are all equal.
    Constant,
    /// Gaps are gamma distributed with this shape (vLLM's `--burstiness`): below 1 in bursts,
    /// 1 is Poisson, above 1 more even.
    Gamma(f64),
    /// A Poisson process whose rate goes from `start_rps` to `end_rps` over the run.
    Ramp {
        /// How it goes there.
        strategy: RampStrategy,
        /// Requests a second at the start.
        start_rps: f64,
        /// Requests a second at the end.
        end_rps: f64,
    },
}

/// How a ramp goes from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RampStrategy {
    /// By the same number of requests a second each second.
    Linear,
    /// By the same factor each second.
    Exponential,
}

/// The arrival times of one sender, in nanoseconds, without end.
#[derive(Debug)]
pub struct ArrivalTimes<R> {
    arrivals: Arrivals,
    rate: f64,
    /// The part of a ramp's rate that is this sender's.
    part: f64,
    span_s: f64,
    at_s: f64,
    rng: R,
}

impl Arrivals {
    /// Refuses what cannot be drawn from.
    ///
    /// # Errors
    /// A shape or rate that is not above 0; a ramp with a rate, or without one.
    pub fn check(&self, rate: Option<f64>) -> Result<(), Error> {
        let above = |value: f64| value > 0.0 && value.is_finite();
        match *self {
            Self::Gamma(shape) if !above(shape) => {
                Err(Error::Usage("--burstiness must be above 0".to_owned()))
            }
            Self::Ramp { start_rps, end_rps, .. } if !above(start_rps) || !above(end_rps) => {
                Err(Error::Usage(
                    "--ramp-up-start-rps and --ramp-up-end-rps must be above 0".to_owned(),
                ))
            }
            Self::Ramp { .. } if rate.is_some() => Err(Error::Usage(
                "--ramp-up-strategy has its own rates: leave --request-rate away".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Mean requests a second; `None` when nothing paces them.
    pub fn mean_rate(&self, rate: Option<f64>) -> Option<f64> {
        match *self {
            Self::Ramp { strategy: RampStrategy::Linear, start_rps, end_rps } => {
                Some((start_rps + end_rps) / 2.0)
            }
            Self::Ramp { strategy: RampStrategy::Exponential, start_rps, end_rps } => {
                let growth = (end_rps / start_rps).ln();
                let mean =
                    if growth.abs() < 1e-9 { start_rps } else { (end_rps - start_rps) / growth };
                Some(mean)
            }
            _ => rate,
        }
    }

    /// The times of a sender that has `part` of the whole. `span_s` is over which a ramp goes.
    pub fn times<R: Rng>(
        self,
        rate: Option<f64>,
        part: f64,
        span_s: f64,
        rng: R,
    ) -> ArrivalTimes<R> {
        let rate = rate.unwrap_or(f64::INFINITY) * part;
        ArrivalTimes { arrivals: self, rate, part, span_s, at_s: 0.0, rng }
    }
}

impl<R: Rng> Iterator for ArrivalTimes<R> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let gap_s = match self.arrivals {
            Arrivals::Ramp { .. } => return Some(self.next_of_ramp()),
            _ if self.rate.is_infinite() => 0.0,
            Arrivals::Constant => 1.0 / self.rate,
            Arrivals::Poisson => exponential(&mut self.rng) / self.rate,
            Arrivals::Gamma(shape) => Gamma::new(shape, 1.0 / (self.rate * shape))
                .expect("a checked profile has a burstiness above 0")
                .sample(&mut self.rng),
        };
        self.at_s += gap_s;
        Some((self.at_s * 1e9) as u64)
    }
}

impl<R: Rng> ArrivalTimes<R> {
    /// By thinning (Lewis and Shedler 1979): candidates at the highest rate, each kept with the
    /// probability that the rate at its time has of the highest.
    fn next_of_ramp(&mut self) -> u64 {
        let Arrivals::Ramp { strategy, start_rps, end_rps } = self.arrivals else {
            unreachable!("called for ramps only")
        };
        let highest = start_rps.max(end_rps);
        loop {
            self.at_s += exponential(&mut self.rng) / (highest * self.part);
            let progress = (self.at_s / self.span_s).clamp(0.0, 1.0);
            let rate = match strategy {
                RampStrategy::Linear => start_rps + (end_rps - start_rps) * progress,
                RampStrategy::Exponential => start_rps * (end_rps / start_rps).powf(progress),
            };
            if self.rng.random::<f64>() * highest < rate {
                return (self.at_s * 1e9) as u64;
            }
        }
    }
}

fn exponential(rng: &mut impl Rng) -> f64 {
    -(1.0 - rng.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness::{Purpose, stream};

    const COUNT: usize = 40_000;

    fn gaps_s(arrivals: Arrivals, rate: f64) -> Vec<f64> {
        let rng = stream(11, Purpose::Arrivals, 0);
        let times: Vec<u64> = arrivals.times(Some(rate), 1.0, 60.0, rng).take(COUNT).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9).collect()
    }

    /// Mean, and standard deviation over mean.
    fn mean_and_variation(gaps: &[f64]) -> (f64, f64) {
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn gaps_have_the_mean_and_the_variation_of_their_process() {
        for (arrivals, variation_true) in [
            (Arrivals::Poisson, 1.0),
            (Arrivals::Constant, 0.0),
            (Arrivals::Gamma(1.0), 1.0),
            (Arrivals::Gamma(0.25), 2.0),
            (Arrivals::Gamma(4.0), 0.5),
        ] {
            let (mean, variation) = mean_and_variation(&gaps_s(arrivals, 50.0));
            assert!((mean - 0.02).abs() < 0.02 * 0.03, "{arrivals:?}: {mean}");
            assert!((variation - variation_true).abs() < 0.05, "{arrivals:?}: {variation}");
        }
    }

    #[test]
    fn a_ramp_has_its_rate_at_each_time() {
        for (strategy, in_first_half) in [
            // The integral of 10 + 90 t over [0, 1/2], and of 10 * 10^t, in parts of the whole.
            (RampStrategy::Linear, 16.25 / 55.0),
            (RampStrategy::Exponential, (10f64.sqrt() - 1.0) / 9.0),
        ] {
            let ramp = Arrivals::Ramp { strategy, start_rps: 10.0, end_rps: 100.0 };
            let rng = stream(3, Purpose::Arrivals, 0);
            let times: Vec<u64> =
                ramp.times(None, 1.0, 100.0, rng).take_while(|at| *at < 100_000_000_000).collect();
            let whole = ramp.mean_rate(None).unwrap() * 100.0;
            assert!((times.len() as f64 / whole - 1.0).abs() < 0.04, "{} {whole}", times.len());
            let first = times.iter().filter(|at| **at < 50_000_000_000).count() as f64;
            assert!((first / times.len() as f64 - in_first_half).abs() < 0.02, "{strategy:?}");
        }
    }

    #[test]
    fn without_a_rate_all_arrive_at_once() {
        let rng = stream(3, Purpose::Arrivals, 0);
        assert!(Arrivals::Poisson.times(None, 1.0, 1.0, rng).take(5).all(|at| at == 0));
    }
}
