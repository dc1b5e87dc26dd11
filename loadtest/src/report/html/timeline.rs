//! What happened in each second of the run, as charts.

use super::axis::{Axis, tick_number};
use super::chart::{Chart, Mark, Series};
use crate::summary::{Summary, Tick};

/// Points of a line at most: a long run's seconds are put together.
const POINTS_MAX: usize = 600;

/// Seconds put together.
struct Span {
    /// Its middle, in the axis' unit.
    at: f64,
    sent_per_s: f64,
    completed_per_s: f64,
    failed_per_s: f64,
    chunks_per_s: f64,
    in_flight_max: f64,
    ttft_p50_ms: Option<f64>,
    ttft_p99_ms: Option<f64>,
}

/// The unit of the time axis.
struct Unit {
    seconds: f64,
    title: &'static str,
}

/// The four charts: requests, chunks, requests in flight, TTFT.
pub fn charts(summary: &Summary) -> String {
    let ticks = &summary.timeline;
    let unit = Unit::of(ticks.len());
    let end = ticks.last().map_or(1.0, |tick| f64::from(tick.second) + 1.0);
    let spans: Vec<Span> =
        ticks.chunks(ticks.len().div_ceil(POINTS_MAX).max(1)).map(|t| Span::of(t, &unit)).collect();
    let x = || Axis::exact(end / unit.seconds, tick_number, unit.title);
    let shades = shades(summary, end, &unit);
    let rates = |title, series: Vec<Series<'_>>| {
        let y = Axis::linear(highest(&series), tick_number, "");
        Chart { title, x: x(), y, series, marks: Vec::new(), shades: shades.clone() }.figure()
    };
    let line = |name, class, figure: fn(&Span) -> Option<f64>| Series {
        name,
        class,
        points: spans.iter().map(|span| figure(span).map(|value| (span.at, value))).collect(),
        dots: false,
    };
    let mut out = String::from("<div class=\"charts\">\n");
    out.push_str(&rates(
        "Requests per second",
        vec![
            line("sent", "s2", |span| Some(span.sent_per_s)),
            line("completed", "s1", |span| Some(span.completed_per_s)),
            line("failed", "s4", |span| Some(span.failed_per_s)),
        ],
    ));
    out.push_str(&rates(
        "Chunks with content per second",
        vec![line("chunks", "s1", |span| Some(span.chunks_per_s))],
    ));
    out.push_str(&rates(
        "Requests under way",
        vec![line("in flight", "s1", |span| Some(span.in_flight_max))],
    ));
    let ttft = vec![
        line("p50", "s1", |span| span.ttft_p50_ms),
        line("p99", "s2", |span| span.ttft_p99_ms),
    ];
    out.push_str(&ttft_chart(summary, ttft, x(), shades));
    out.push_str("</div>\n");
    out
}

impl Unit {
    fn of(seconds: usize) -> Self {
        match seconds {
            0..=600 => Self { seconds: 1.0, title: "seconds since the start" },
            601..=36_000 => Self { seconds: 60.0, title: "minutes since the start" },
            _ => Self { seconds: 3600.0, title: "hours since the start" },
        }
    }
}

impl Span {
    /// Rates are means over the seconds, the rest is their greatest.
    fn of(ticks: &[Tick], unit: &Unit) -> Self {
        let seconds = ticks.len().max(1) as f64;
        let mean = |figure: fn(&Tick) -> u32| {
            ticks.iter().map(|tick| f64::from(figure(tick))).sum::<f64>() / seconds
        };
        let greatest = |figure: fn(&Tick) -> Option<f64>| {
            ticks.iter().filter_map(figure).max_by(f64::total_cmp)
        };
        let start = ticks.first().map_or(0.0, |tick| f64::from(tick.second));
        Self {
            at: (start + seconds / 2.0) / unit.seconds,
            sent_per_s: mean(|tick| tick.sent),
            completed_per_s: mean(|tick| tick.completed),
            failed_per_s: mean(|tick| tick.failed),
            chunks_per_s: mean(|tick| tick.chunks),
            in_flight_max: greatest(|tick| Some(f64::from(tick.in_flight))).unwrap_or(0.0),
            ttft_p50_ms: greatest(|tick| tick.ttft_p50_ms),
            ttft_p99_ms: greatest(|tick| tick.ttft_p99_ms),
        }
    }
}

fn ttft_chart(
    summary: &Summary,
    series: Vec<Series<'_>>,
    x: Axis,
    shades: Vec<(f64, f64)>,
) -> String {
    let values = || series.iter().flat_map(|line| line.points.iter().flatten()).map(|(_, y)| *y);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let near =
        summary.objectives.ttft_ms.filter(|limit| *limit < high * 100.0 && *limit > low / 100.0);
    let low = near.map_or(low, |limit| low.min(limit));
    let high = near.map_or(high, |limit| high.max(limit));
    let y = Axis::log_ms(if low.is_finite() { low } else { 1.0 }, high, "");
    let marks = near.map(|limit| Mark::AtY(limit, "objective".to_owned())).into_iter().collect();
    let title = "TTFT from scheduled, of first tokens in each second";
    Chart { title, x, y, series, marks, shades }.figure()
}

fn highest(series: &[Series<'_>]) -> f64 {
    let values = series.iter().flat_map(|line| line.points.iter().flatten());
    values.map(|(_, y)| *y).fold(0.0, f64::max)
}

/// The parts of the run that are not in the figures. The cool-down ends at the last scheduled
/// request; what comes after is only the wait for answers, and left out as well.
fn shades(summary: &Summary, end: f64, unit: &Unit) -> Vec<(f64, f64)> {
    let run = &summary.run;
    let last = summary.timeline.iter().rev().find(|tick| tick.scheduled > 0);
    let last = last.map_or(end, |tick| f64::from(tick.second) + 1.0);
    let mut shades = Vec::new();
    if run.warmup_s > 0.0 {
        shades.push((0.0, run.warmup_s / unit.seconds));
    }
    if run.cooldown_s > 0.0 && last - run.cooldown_s > run.warmup_s {
        shades.push(((last - run.cooldown_s) / unit.seconds, end / unit.seconds));
    }
    shades
}
