//! Latencies: cumulative distributions as charts, and the table of all.

use std::fmt::Write as _;

use super::axis::Axis;
use super::chart::{Chart, Mark, Series};
use crate::report::figures::{self, count, ms, ms_or_dash};
use crate::summary::{Distribution, Group, Summary};

/// The lower end of the values that a chart shows: a few gaps of nearly nothing (two chunks in
/// one packet) would else take half of a logarithmic axis.
const FRACTION_LEAST: f64 = 0.005;

/// The four charts.
pub fn charts(summary: &Summary) -> String {
    let (total, objectives) = (&summary.total, &summary.objectives);
    let mut out = String::from("<div class=\"charts\">\n");
    out.push_str(&cdf(
        "TTFT, part of the requests at or below",
        &[("from scheduled", "s1", &total.ttft), ("from sent", "s2", &total.ttft_from_sent)],
        objectives.ttft_ms,
    ));
    out.push_str(&cdf(
        "TPOT, part of the requests at or below",
        &[("per request", "s1", &total.tpot)],
        objectives.tpot_ms,
    ));
    out.push_str(&cdf(
        "ITL, part of the gaps at or below",
        &[("all gaps", "s1", &total.itl)],
        None,
    ));
    out.push_str(&cdf(
        "End to end, part of the requests at or below",
        &[("from scheduled", "s1", &total.e2el), ("from sent", "s2", &total.e2el_from_sent)],
        objectives.e2el_ms,
    ));
    out.push_str("</div>\n");
    out
}

/// All latencies with all percentiles that were computed.
pub fn table(total: &Group) -> String {
    let mut percentiles: Vec<f64> = total.ttft.percentiles.iter().map(|(at, _)| *at).collect();
    if percentiles.is_empty() {
        percentiles = total.send_delay.percentiles.iter().map(|(at, _)| *at).collect();
    }
    let mut out = String::from(
        "<div class=\"wide\"><table><thead><tr><th>Milliseconds</th><th>count</th><th>mean</th>\
         <th>std</th><th>min</th>",
    );
    for percentile in &percentiles {
        let _ = write!(out, "<th>{}</th>", figures::percentile_name(*percentile));
    }
    out.push_str("<th>max</th></tr></thead><tbody>\n");
    for (name, values) in all(total) {
        let known = |value: f64| ms_or_dash((values.count > 0).then_some(value));
        let _ = write!(
            out,
            "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            count(values.count),
            known(values.mean_ms),
            known(values.std_ms),
            known(values.min_ms),
        );
        for percentile in &percentiles {
            let value = values.percentile(*percentile).filter(|_| values.count > 0);
            let _ = write!(out, "<td>{}</td>", ms_or_dash(value));
        }
        let _ = writeln!(out, "<td>{}</td></tr>", known(values.max_ms));
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn all(total: &Group) -> [(&'static str, &Distribution); 8] {
    [
        ("TTFT", &total.ttft),
        ("TTFT from sent", &total.ttft_from_sent),
        ("TPOT", &total.tpot),
        ("ITL", &total.itl),
        ("End to end", &total.e2el),
        ("End to end from sent", &total.e2el_from_sent),
        ("Queue", &total.queue),
        ("Send delay", &total.send_delay),
    ]
}

fn cdf(
    title: &str,
    lines: &[(&'static str, &'static str, &Distribution)],
    objective_ms: Option<f64>,
) -> String {
    let measured = || lines.iter().filter(|(.., values)| !values.cdf.is_empty());
    let low = measured()
        .filter_map(|(.., values)| values.cdf.iter().find(|(_, part)| *part >= FRACTION_LEAST))
        .map(|(value, _)| *value)
        .fold(f64::INFINITY, f64::min);
    let high = measured()
        .filter_map(|(.., values)| values.cdf.last())
        .map(|(value, _)| *value)
        .fold(0.0, f64::max);
    let near = objective_ms.filter(|limit| *limit < high * 100.0 && *limit > low / 100.0);
    let low = near.map_or(low, |limit| low.min(limit));
    let high = near.map_or(high, |limit| high.max(limit));
    let x = Axis::log_ms(if low.is_finite() { low } else { 1.0 }, high, "time, logarithmic");
    let series = measured().map(|(name, class, values)| Series {
        name,
        class,
        points: steps(values),
        dots: false,
    });
    Chart {
        title,
        series: series.collect(),
        y: Axis::fractions(""),
        marks: near
            .map(|limit| Mark::AtX(limit, format!("objective {} ms", ms(limit))))
            .into_iter()
            .collect(),
        shades: Vec::new(),
        x,
    }
    .figure()
}

/// A distribution as a staircase from 0 to 1, level to both edges of the chart.
fn steps(values: &Distribution) -> Vec<Option<(f64, f64)>> {
    let mut points = vec![Some((0.0, 0.0))];
    let mut before = 0.0;
    for (value, part) in &values.cdf {
        points.push(Some((*value, before)));
        points.push(Some((*value, *part)));
        before = *part;
    }
    points.push(Some((f64::MAX, before)));
    points
}
