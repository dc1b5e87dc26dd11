//! Two servers under the same plan, measured in turn, as text.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::figures::{NONE, percent, printable};
use crate::summary::Group;

/// Agreement of all rounds that is more likely than this by chance alone is called so.
const CHANCE_MAX: f64 = 0.05;

/// Two servers given the same plans in turn: A, B, A, B ...
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The profile's name, or `custom`.
    pub name: String,
    /// What A is, for example its base URL.
    pub a: String,
    /// What B is.
    pub b: String,
    /// What was compared.
    pub metrics: Vec<ComparedMetric>,
    /// Why the figures should not be used, when they should not.
    pub warnings: Vec<String>,
}

/// A figure of each round of both servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedMetric {
    /// For example `TTFT p99`.
    pub name: String,
    /// For example `ms`; may be empty.
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    /// Of A, one each round.
    pub a: Vec<f64>,
    /// Of B, in the same order.
    pub b: Vec<f64>,
}

/// Which direction of a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times.
    Lower,
}

/// B as a multiple of A: each round's own, so that what both saw together cancels out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median over the rounds.
    pub median: f64,
    /// Least.
    pub least: f64,
    /// Greatest.
    pub greatest: f64,
    /// Of how many rounds.
    pub rounds: usize,
}

impl ComparedMetric {
    /// B over A; `None` without a round in which both have a value and A's is not 0.
    pub fn ratio(&self) -> Option<Ratio> {
        let rounds = self.a.iter().zip(&self.b);
        let mut ratios: Vec<f64> =
            rounds.map(|(a, b)| b / a).filter(|ratio| ratio.is_finite()).collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio {
            median: median(&ratios)?,
            least: *ratios.first()?,
            greatest: *ratios.last()?,
            rounds: ratios.len(),
        })
    }

    /// Who is better, when all rounds agree on it. Few rounds agree by chance: two equal servers
    /// do so in 2 of 2^n cases (the sign test), which is said until it is below 5 %.
    pub fn verdict(&self) -> String {
        let Some(ratio) = self.ratio() else { return NONE.to_owned() };
        let b_is_higher = match (ratio.least, ratio.greatest) {
            _ if ratio.rounds < 2 => return "one round only".to_owned(),
            (least, _) if least > 1.0 => true,
            (_, greatest) if greatest < 1.0 => false,
            _ => return "same within spread".to_owned(),
        };
        let better = match b_is_higher == (self.better == Better::Higher) {
            true => "B better",
            false => "A better",
        };
        let chance = 2.0 * 0.5f64.powi(ratio.rounds.min(100) as i32);
        match chance < CHANCE_MAX {
            true => better.to_owned(),
            false => format!("{better}, or chance ({})", percent(chance)),
        }
    }
}

impl Comparison {
    /// Collects the usual metrics of the rounds of both servers.
    pub fn metrics_of(a: &[&Group], b: &[&Group]) -> Vec<ComparedMetric> {
        type Figure = fn(&Group) -> f64;
        let p = |name: &str, unit: &str, better, figure: Figure| ComparedMetric {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            a: a.iter().map(|group| figure(group)).collect(),
            b: b.iter().map(|group| figure(group)).collect(),
        };
        // A percentile without values is no number, and its round is then left out of the ratio.
        vec![
            p("requests", "1/s", Better::Higher, |g| g.requests_per_s),
            p("output tokens", "1/s", Better::Higher, |g| g.output_tokens_per_s),
            p("goodput", "1/s", Better::Higher, |g| g.goodput_per_s),
            p("TTFT p50", "ms", Better::Lower, |g| g.ttft.percentile(50.0).unwrap_or(f64::NAN)),
            p("TTFT p99", "ms", Better::Lower, |g| g.ttft.percentile(99.0).unwrap_or(f64::NAN)),
            p("TPOT p50", "ms", Better::Lower, |g| g.tpot.percentile(50.0).unwrap_or(f64::NAN)),
            p("TPOT p99", "ms", Better::Lower, |g| g.tpot.percentile(99.0).unwrap_or(f64::NAN)),
            p("ITL p99", "ms", Better::Lower, |g| g.itl.percentile(99.0).unwrap_or(f64::NAN)),
            p("E2E p50", "ms", Better::Lower, |g| g.e2el.percentile(50.0).unwrap_or(f64::NAN)),
            p("E2E p99", "ms", Better::Lower, |g| g.e2el.percentile(99.0).unwrap_or(f64::NAN)),
        ]
    }
}

/// Middle value of a sorted list, mean of the middle two; values that are no number are left out.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => sorted.get(middle).copied(),
        _ => Some((sorted.get(middle - 1)? + sorted.get(middle)?) / 2.0),
    }
}

/// The comparison for a terminal.
pub fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let rounds = comparison.metrics.iter().map(|metric| metric.a.len()).max().unwrap_or(0);
    for warning in &comparison.warnings {
        let _ = writeln!(out, "NOT VALID: {}", printable(warning, 300));
    }
    let _ = writeln!(
        out,
        "compare {}, {rounds} round{} of each in turn",
        printable(&comparison.name, 60),
        if rounds == 1 { "" } else { "s" },
    );
    let _ = writeln!(out, "  A: {}", printable(&comparison.a, 90));
    let _ = writeln!(out, "  B: {}\n", printable(&comparison.b, 90));
    let _ = writeln!(
        out,
        "{:<20} {:>11} {:>11} {:>7}  {:<15}",
        "medians", "A", "B", "B / A", "least..greatest"
    );
    for metric in &comparison.metrics {
        let name = match metric.unit.as_str() {
            "" => metric.name.clone(),
            unit => format!("{}, {unit}", metric.name),
        };
        let value = |values: &[f64]| median(values).map_or(NONE.to_owned(), |v| format!("{v:.2}"));
        let (ratio, spread) = match metric.ratio() {
            Some(r) => (format!("{:.3}", r.median), format!("{:.3}..{:.3}", r.least, r.greatest)),
            None => (NONE.to_owned(), NONE.to_owned()),
        };
        let _ = writeln!(
            out,
            "{:<20} {:>11} {:>11} {ratio:>7}  {spread:<15}  {}",
            printable(&name, 20),
            value(&metric.a),
            value(&metric.b),
            metric.verdict(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, better: Better, a: &[f64], b: &[f64]) -> ComparedMetric {
        ComparedMetric {
            name: name.into(),
            unit: "ms".into(),
            better,
            a: a.to_vec(),
            b: b.to_vec(),
        }
    }

    #[test]
    fn a_comparison_shows_medians_ratio_and_spread() {
        let comparison = Comparison {
            name: "steady".into(),
            a: "http://127.0.0.1:8000".into(),
            b: "http://127.0.0.1:8001".into(),
            metrics: vec![
                metric("TTFT p99", Better::Lower, &[40.0, 50.0, 60.0], &[20.0, 30.0, 30.0]),
                metric("TPOT p99", Better::Lower, &[10.0, 10.0, 10.0], &[9.0, 10.0, 11.0]),
                metric("rate", Better::Higher, &[10.0, 20.0], &[5.0, 10.0]),
                metric("E2E p99", Better::Lower, &[f64::NAN], &[9.0]),
                metric("E2E p50", Better::Lower, &[f64::NAN, 5.0], &[9.0, 4.0]),
                metric("ITL p99", Better::Lower, &[2.0; 6], &[1.0; 6]),
            ],
            warnings: vec!["round 2 of A: p99 send delay 9.1 ms".into()],
        };
        let expected = "\
NOT VALID: round 2 of A: p99 send delay 9.1 ms
compare steady, 6 rounds of each in turn
  A: http://127.0.0.1:8000
  B: http://127.0.0.1:8001

medians                        A           B   B / A  least..greatest
TTFT p99, ms               50.00       30.00   0.500  0.500..0.600     B better, or chance (25 %)
TPOT p99, ms               10.00       10.00   1.000  0.900..1.100     same within spread
rate, ms                   15.00        7.50   0.500  0.500..0.500     A better, or chance (50 %)
E2E p99, ms                    -        9.00       -  -                -
E2E p50, ms                 5.00        6.50   0.800  0.800..0.800     one round only
ITL p99, ms                 2.00        1.00   0.500  0.500..0.500     B better
";
        assert_eq!(text(&comparison), expected);
    }
}
