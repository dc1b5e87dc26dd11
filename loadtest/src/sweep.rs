//! The highest rate at which the objectives are met: doubling until one is missed, then bisection.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::live::View;
use crate::report::{self, Destination, PointVerdict, SweepPoint};
use crate::run::{Settings, run};
use crate::setup::Ready;
use crate::summary::Summary;

/// A rate is halved so often at most when the first one is missed.
const HALVINGS_MAX: u32 = 10;
/// A rate at which the generator was late is tried so often.
const TRIES_MAX: usize = 3;
/// Runs of one sweep.
const RUNS_MAX: usize = 40;

/// How a sweep searches.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The rate of the first run.
    pub start_rate: f64,
    /// No higher rate is tried.
    pub rate_max: f64,
    /// The part of requests that must be good.
    pub goodput_wanted: f64,
    /// The search ends when the lowest missed rate is so close to the highest met one, in parts.
    pub tolerance: f64,
}

/// What a sweep left.
#[derive(Debug)]
pub struct Swept {
    /// All points.
    pub sweep: report::Sweep,
    /// The run at the highest good rate.
    pub highest: Option<Summary>,
    /// What stopped it early.
    pub stopped: Option<Error>,
}

/// The next rate to try, from the points so far; `None` when the search is over.
fn next_rate(points: &[SweepPoint], search: &Search) -> Option<f64> {
    // A point at which the generator was late is tried again; only when that does not help is the
    // rate above what this machine can measure.
    if let Some(last) = points.last().filter(|last| last.verdict == PointVerdict::Invalid) {
        let tries = points.iter().rev().take_while(|point| point.rate == last.rate).count();
        if tries < TRIES_MAX && points.len() < RUNS_MAX {
            return Some(last.rate);
        }
    }
    let valid_at = |rate: f64| {
        points.iter().any(|one| one.rate == rate && one.verdict != PointVerdict::Invalid)
    };
    let of = |meets: bool| {
        points.iter().filter(move |point| match point.verdict {
            PointVerdict::Meets => meets,
            PointVerdict::Misses => !meets,
            PointVerdict::Invalid => !meets && !valid_at(point.rate),
        })
    };
    let met = of(true).map(|point| point.rate).max_by(f64::total_cmp);
    // A rate above a missed one can be met by chance; the search stays below the lowest miss.
    let missed = of(false).map(|point| point.rate).min_by(f64::total_cmp);
    match (met, missed) {
        _ if points.len() >= RUNS_MAX => None,
        (None, None) => Some(search.start_rate),
        (Some(met), None) if met >= search.rate_max => None,
        (Some(met), None) => Some((met * 2.0).min(search.rate_max)),
        (None, Some(missed)) => {
            let lowest = search.start_rate / f64::from(2u32.pow(HALVINGS_MAX));
            (missed / 2.0 >= lowest).then_some(missed / 2.0)
        }
        (Some(met), Some(missed)) if missed / met <= 1.0 + search.tolerance => None,
        (Some(met), Some(missed)) => Some((met + missed) / 2.0),
    }
}

/// Searches.
///
/// # Errors
/// A run could not begin before there was a single point.
pub async fn sweep(
    settings: &Settings,
    ready: &Ready,
    search: &Search,
    interrupts: watch::Receiver<u32>,
    view: View,
    mut say: impl FnMut(&SweepPoint),
) -> Result<Swept, Error> {
    let mut swept = Swept {
        sweep: report::Sweep {
            name: settings.profile.name.clone(),
            base_url: settings.wishes.base_url.clone(),
            model: ready.target.model.clone(),
            objectives: settings.profile.objectives.into(),
            goodput_wanted: search.goodput_wanted,
            points: Vec::new(),
            highest_rate: None,
        },
        highest: None,
        stopped: None,
    };
    while let Some(rate) = next_rate(&swept.sweep.points, search) {
        let mut own = settings.clone();
        own.profile.load.request_rate = Some(rate);
        let number = swept.sweep.points.len() + 1;
        // Prompts that the server has seen would come from its cache.
        own.seed = settings.seed.wrapping_add(number as u64);
        own.destination = settings.destination.as_ref().map(|destination| Destination {
            directory: destination.directory.clone(),
            name: format!("{}-{number:02}-{rate:.3}rps", destination.name),
        });
        let plan = own.plan()?;
        let ran = match run(&own, Arc::new(plan), ready, interrupts.clone(), view).await {
            Ok(ran) => ran,
            Err(error) if swept.sweep.points.is_empty() => return Err(error),
            Err(error) => {
                swept.stopped = Some(error);
                break;
            }
        };
        if ran.summary.run.interrupted {
            swept.stopped = Some(Error::Interrupted);
            break;
        }
        let point = point(&ran.summary, rate, search.goodput_wanted);
        say(&point);
        if point.verdict == PointVerdict::Meets && swept.sweep.highest_rate < Some(rate) {
            swept.sweep.highest_rate = Some(rate);
            swept.highest = Some(ran.summary.clone());
        }
        swept.sweep.points.push(point);
        if let Err(error @ Error::Report { .. }) = ran.verdict() {
            swept.stopped = Some(error);
            break;
        }
    }
    Ok(swept)
}

/// A server that refuses every request misses the objectives; only a generator that was late says
/// nothing.
fn point(summary: &Summary, rate: f64, goodput_wanted: f64) -> SweepPoint {
    let mut point = SweepPoint::of(summary, rate, goodput_wanted);
    if summary.total.requests > 0 && !summary.total.outcomes.contains_key("completed") {
        point.verdict = PointVerdict::Misses;
    }
    point
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that a search tries when a server is good up to a rate.
    fn tried(good_until: f64, search: &Search) -> (Vec<f64>, Option<f64>) {
        tried_with(good_until, search, |_| false)
    }

    /// The same, when the generator is late in some of the runs.
    fn tried_with(
        good_until: f64,
        search: &Search,
        late: impl Fn(&[SweepPoint]) -> bool,
    ) -> (Vec<f64>, Option<f64>) {
        let mut points: Vec<SweepPoint> = Vec::new();
        while let Some(rate) = next_rate(&points, search) {
            let meets = rate <= good_until;
            points.push(SweepPoint {
                rate,
                goodput_fraction: f64::from(u8::from(meets)),
                goodput_per_s: rate,
                ttft_p99_ms: None,
                tpot_p99_ms: None,
                output_tokens_per_s: 0.0,
                verdict: match meets {
                    _ if late(&points) => PointVerdict::Invalid,
                    true => PointVerdict::Meets,
                    false => PointVerdict::Misses,
                },
            });
        }
        let met = points.iter().filter(|point| point.verdict == PointVerdict::Meets);
        let highest = met.map(|point| point.rate).max_by(f64::total_cmp);
        (points.iter().map(|point| point.rate).collect(), highest)
    }

    #[test]
    fn the_search_doubles_then_halves_the_gap() {
        let search =
            Search { start_rate: 1.0, rate_max: 1000.0, goodput_wanted: 0.99, tolerance: 0.05 };
        let (rates, highest) = tried(11.0, &search);
        assert_eq!(rates, [1.0, 2.0, 4.0, 8.0, 16.0, 12.0, 10.0, 11.0, 11.5]);
        assert_eq!(highest, Some(11.0));
        let (_, highest) = tried(0.07, &search);
        assert!(highest.is_some_and(|rate| rate <= 0.07 && rate > 0.07 / 1.06), "{highest:?}");
        assert_eq!(tried(0.0, &search).0.len(), 11);
        let (rates, highest) = tried(1e9, &search);
        assert_eq!((rates.len(), highest), (11, Some(1000.0)));
    }

    /// One hiccup of the generator's machine at 2 requests a second once made a sweep end there.
    #[test]
    fn a_rate_at_which_the_generator_was_late_is_tried_again() {
        let search =
            Search { start_rate: 1.0, rate_max: 8.0, goodput_wanted: 0.99, tolerance: 0.5 };
        let (rates, highest) = tried_with(100.0, &search, |points| points.len() == 1);
        assert_eq!((rates, highest), (vec![1.0, 2.0, 2.0, 4.0, 8.0], Some(8.0)));
        let (rates, highest) = tried_with(100.0, &search, |points| points.len() >= 2);
        assert_eq!(highest, Some(2.0));
        assert_eq!(rates, [1.0, 2.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0]);
    }
}
