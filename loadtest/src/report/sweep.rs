//! What a search for the highest good rate found, as text.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::figures::{self, NONE, ms_or_dash, percent, percent_column, printable, rate};
use crate::summary::{Objectives, Summary};

/// A search for the highest rate at which the objectives are met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The profile's name, or `custom`.
    pub name: String,
    /// Server.
    pub base_url: String,
    /// `model` of the requests.
    pub model: String,
    /// What a good request had to meet.
    pub objectives: Objectives,
    /// The part of the requests that had to meet it, for example 0.99.
    pub goodput_wanted: f64,
    /// In the order in which they were measured.
    pub points: Vec<SweepPoint>,
    /// The highest rate that met the objectives, requests a second.
    pub highest_rate: Option<f64>,
}

/// One rate of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// Requests a second that were asked for.
    pub rate: f64,
    /// The part of all requests that met the objectives.
    pub goodput_fraction: f64,
    /// Requests a second that met them.
    pub goodput_per_s: f64,
    /// From the scheduled time.
    pub ttft_p99_ms: Option<f64>,
    /// See [`crate::summary::Group::tpot`].
    pub tpot_p99_ms: Option<f64>,
    /// Output tokens a second.
    pub output_tokens_per_s: f64,
    /// What it means.
    pub verdict: PointVerdict,
}

/// What a point of a sweep means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointVerdict {
    /// Enough requests met the objectives.
    Meets,
    /// Too few did.
    Misses,
    /// The generator could not keep the schedule: the point says nothing of the server.
    Invalid,
}

impl Sweep {
    /// The points, that of the lowest rate first.
    pub fn by_rate(&self) -> Vec<&SweepPoint> {
        let mut points: Vec<&SweepPoint> = self.points.iter().collect();
        points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        points
    }
}

impl SweepPoint {
    /// The point of a run at a rate.
    pub fn of(summary: &Summary, rate: f64, goodput_wanted: f64) -> Self {
        let total = &summary.total;
        let verdict = match total.goodput_fraction >= goodput_wanted {
            _ if !summary.validity.valid => PointVerdict::Invalid,
            true => PointVerdict::Meets,
            false => PointVerdict::Misses,
        };
        Self {
            rate,
            goodput_fraction: total.goodput_fraction,
            goodput_per_s: total.goodput_per_s,
            ttft_p99_ms: total.ttft.percentile(99.0),
            tpot_p99_ms: total.tpot.percentile(99.0),
            output_tokens_per_s: total.output_tokens_per_s,
            verdict,
        }
    }
}

impl PointVerdict {
    /// In a word or two.
    pub fn words(self) -> &'static str {
        match self {
            Self::Meets => "meets",
            Self::Misses => "misses",
            Self::Invalid => "not valid",
        }
    }
}

impl Sweep {
    /// The answer in a sentence.
    pub fn verdict(&self) -> String {
        let wanted = percent(self.goodput_wanted);
        let objectives = figures::objectives(&self.objectives);
        let objectives = objectives.unwrap_or_else(|| "completed answers".to_owned());
        let found = match self.highest_rate {
            Some(highest) => format!(
                "Highest rate with {wanted} of the requests good ({objectives}): {} requests/s",
                rate(highest)
            ),
            None => {
                format!("No rate of those tried had {wanted} of the requests good ({objectives})")
            }
        };
        match self.generator_limit() {
            Some(limit) => format!(
                "{found}. The server may do more: at {} requests/s the generator was late",
                rate(limit)
            ),
            None => found,
        }
    }

    /// The lowest rate at which the generator, and not the server, ended the search.
    pub fn generator_limit(&self) -> Option<f64> {
        let of = |verdict| self.points.iter().filter(move |point| point.verdict == verdict);
        // A rate may have been tried again and then been measured.
        let measured = |rate: f64| {
            self.points.iter().any(|one| one.rate == rate && one.verdict != PointVerdict::Invalid)
        };
        let late = of(PointVerdict::Invalid).map(|point| point.rate);
        let late = late.filter(|rate| !measured(*rate)).min_by(f64::total_cmp)?;
        let missed = of(PointVerdict::Misses).map(|point| point.rate).min_by(f64::total_cmp);
        let ended_by_server = missed.is_some_and(|missed| missed < late);
        (!ended_by_server).then_some(late)
    }
}

/// The sweep for a terminal, lowest rate first.
pub fn text(sweep: &Sweep) -> String {
    let mut out = String::new();
    let (name, model) = (printable(&sweep.name, 60), printable(&sweep.model, 60));
    let _ = writeln!(out, "{}", sweep.verdict());
    let _ = writeln!(out, "sweep {name}, {}, model {model}\n", printable(&sweep.base_url, 80));
    let _ = writeln!(
        out,
        "{:>10} {:>10} {:>10} {:>10} {:>10} {:>12}  objectives",
        "requests/s", "good", "good/s", "TTFT p99", "TPOT p99", "output tok/s"
    );
    for point in sweep.by_rate() {
        let mark = if sweep.highest_rate == Some(point.rate) { " <- highest" } else { "" };
        let _ = writeln!(
            out,
            "{:>10} {:>10} {:>10} {:>10} {:>10} {:>12}  {}{mark}",
            rate(point.rate),
            percent_column(point.goodput_fraction),
            rate(point.goodput_per_s),
            ms_or_dash(point.ttft_p99_ms),
            ms_or_dash(point.tpot_p99_ms),
            rate(point.output_tokens_per_s),
            point.verdict.words(),
        );
    }
    if sweep.points.is_empty() {
        let _ = writeln!(out, "{NONE:>10} nothing was measured");
    }
    let _ = writeln!(out, "\nTimes in ms; TTFT from the scheduled time.");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_says_its_answer_first_and_sorts_its_points() {
        let point = |rate: f64, fraction: f64, ttft: f64, verdict| SweepPoint {
            rate,
            goodput_fraction: fraction,
            goodput_per_s: rate * fraction,
            ttft_p99_ms: Some(ttft),
            tpot_p99_ms: (fraction > 0.5).then_some(8.25),
            output_tokens_per_s: rate * 128.0 * fraction,
            verdict,
        };
        let sweep = Sweep {
            name: "steady".into(),
            base_url: "http://127.0.0.1:8000".into(),
            model: "demo".into(),
            objectives: Objectives { ttft_ms: Some(200.0), tpot_ms: Some(20.0), e2el_ms: None },
            goodput_wanted: 0.99,
            points: vec![
                point(8.0, 1.0, 45.1, PointVerdict::Meets),
                point(32.0, 0.25, 5210.0, PointVerdict::Misses),
                point(16.0, 0.9925, 160.25, PointVerdict::Meets),
                point(64.0, 0.0, 9000.0, PointVerdict::Invalid),
            ],
            highest_rate: Some(16.0),
        };
        let expected = "\
Highest rate with 99 % of the requests good (TTFT <= 200 ms, TPOT <= 20 ms): 16.00 requests/s
sweep steady, http://127.0.0.1:8000, model demo

requests/s       good     good/s   TTFT p99   TPOT p99 output tok/s  objectives
      8.00   100.00 %       8.00      45.10       8.25        1,024  meets
     16.00    99.25 %      15.88      160.2       8.25        2,033  meets <- highest
     32.00    25.00 %       8.00       5210          -        1,024  misses
     64.00     0.00 %       0.00       9000          -         0.00  not valid

Times in ms; TTFT from the scheduled time.
";
        assert_eq!(text(&sweep), expected);
        assert_eq!(sweep.generator_limit(), None, "the server missed at a lower rate");
    }

    #[test]
    fn a_sweep_that_its_generator_ended_does_not_blame_the_server() {
        let point = |rate, verdict| SweepPoint {
            rate,
            goodput_fraction: 1.0,
            goodput_per_s: rate,
            ttft_p99_ms: None,
            tpot_p99_ms: None,
            output_tokens_per_s: 1.0,
            verdict,
        };
        let sweep = Sweep {
            name: "steady".into(),
            base_url: "http://127.0.0.1:8000".into(),
            model: "demo".into(),
            objectives: Objectives::default(),
            goodput_wanted: 0.99,
            points: vec![point(8.0, PointVerdict::Meets), point(16.0, PointVerdict::Invalid)],
            highest_rate: Some(8.0),
        };
        let verdict = sweep.verdict();
        assert!(verdict.ends_with("at 16.00 requests/s the generator was late"), "{verdict}");
    }
}
