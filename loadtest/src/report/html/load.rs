//! Goodput and latency against the offered rate, of a sweep; and the figures of a comparison.

use std::fmt::Write as _;

use super::axis::{Axis, tick_number};
use super::chart::{Chart, Mark, Series};
use super::escape::Escaped;
use crate::report::comparison::{Comparison, median};
use crate::report::figures::{self, ms_or_dash, percent_column, rate};
use crate::report::sweep::{PointVerdict, Sweep, SweepPoint};

/// Four charts against the rate: the part of good requests, goodput, latencies, tokens.
pub fn charts(sweep: &Sweep) -> String {
    let points = sweep.by_rate();
    let valid = || points.iter().filter(|point| point.verdict != PointVerdict::Invalid);
    let rate_max = points.iter().map(|point| point.rate).fold(0.0, f64::max);
    let x = || Axis::linear(rate_max, tick_number, "requests per second, offered");
    let line = |name, class, figure: fn(&SweepPoint) -> Option<f64>| Series {
        name,
        class,
        points: valid().map(|point| figure(point).map(|value| (point.rate, value))).collect(),
        dots: true,
    };
    let highest = sweep.highest_rate.map(|at| Mark::AtX(at, format!("{} /s", rate(at))));
    let mut out = String::from("<div class=\"charts\">\n");
    let good = Chart {
        title: "Part of the requests that met all objectives",
        x: x(),
        y: Axis::fractions(""),
        series: vec![line("good", "s1", |point| Some(point.goodput_fraction))],
        marks: highest.iter().cloned().collect(),
        shades: Vec::new(),
    };
    out.push_str(&good.figure());
    let linear = |title, name, figure: fn(&SweepPoint) -> Option<f64>| {
        let series = vec![line(name, "s1", figure)];
        let y =
            Axis::linear(valid().filter_map(|p| figure(p)).fold(0.0, f64::max), tick_number, "");
        let marks = highest.iter().cloned().collect();
        Chart { title, x: x(), y, series, marks, shades: Vec::new() }.figure()
    };
    out.push_str(&linear("Goodput, requests per second", "goodput", |p| Some(p.goodput_per_s)));
    let latencies = vec![
        line("TTFT p99, from scheduled", "s1", |point| point.ttft_p99_ms),
        line("TPOT p99", "s2", |point| point.tpot_p99_ms),
    ];
    let values = || latencies.iter().flat_map(|l| l.points.iter().flatten()).map(|(_, y)| *y);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let y = Axis::log_ms(if low.is_finite() { low } else { 1.0 }, high, "");
    let latency = Chart {
        title: "Latency, 99th percentile",
        x: x(),
        y,
        series: latencies,
        marks: highest.iter().cloned().collect(),
        shades: Vec::new(),
    };
    out.push_str(&latency.figure());
    out.push_str(&linear("Output tokens per second", "output tokens", |point| {
        Some(point.output_tokens_per_s)
    }));
    out.push_str("</div>\n");
    out
}

/// All points, lowest rate first.
pub fn table(sweep: &Sweep) -> String {
    let mut out = String::from(
        "<div class=\"wide\"><table><thead><tr><th>Requests/s, offered</th><th>good</th>\
         <th>good/s</th><th>TTFT p99, ms</th><th>TPOT p99, ms</th><th>output tokens/s</th>\
         <th>objectives</th></tr></thead><tbody>\n",
    );
    for point in sweep.by_rate() {
        let _ = writeln!(
            out,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            rate(point.rate),
            percent_column(point.goodput_fraction),
            rate(point.goodput_per_s),
            ms_or_dash(point.ttft_p99_ms),
            ms_or_dash(point.tpot_p99_ms),
            rate(point.output_tokens_per_s),
            point.verdict.words(),
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// The figures of a comparison.
pub fn comparison(comparison: &Comparison) -> String {
    let mut out = String::from(
        "<div class=\"wide\"><table><thead><tr><th>Medians over the rounds</th><th>A</th><th>B</th>\
         <th>B / A</th><th>least to greatest</th><th></th></tr></thead><tbody>\n",
    );
    for metric in &comparison.metrics {
        let value = |all: &[f64]| {
            median(all).map_or(figures::NONE.to_owned(), |value| format!("{value:.2}"))
        };
        let (ratio, spread) = match metric.ratio() {
            Some(r) => (format!("{:.3}", r.median), format!("{:.3} to {:.3}", r.least, r.greatest)),
            None => (figures::NONE.to_owned(), figures::NONE.to_owned()),
        };
        let unit = if metric.unit.is_empty() { "" } else { ", " };
        let _ = writeln!(
            out,
            "<tr><th>{}{unit}{}</th><td>{}</td><td>{}</td><td>{ratio}</td><td>{spread}</td>\
             <td>{}</td></tr>",
            Escaped(&metric.name),
            Escaped(&metric.unit),
            value(&metric.a),
            value(&metric.b),
            metric.verdict(),
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}
