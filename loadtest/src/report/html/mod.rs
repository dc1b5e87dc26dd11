//! The HTML pages: one file each, without scripts, that asks the network for nothing.

mod axis;
mod chart;
pub mod definitions;
mod escape;
mod latency;
mod load;
mod tables;
mod timeline;

use std::fmt::Write as _;

use escape::Escaped;

use super::comparison::Comparison;
use super::figures::{self, bytes, count, percent, rate, time_ms};
use super::sweep::Sweep;
use crate::summary::{Distribution, Summary};

const STYLE: &str = include_str!("style.css");

/// The page of a run.
pub fn run_page(summary: &Summary) -> String {
    let title = format!("Load test: {}", summary.run.name);
    let mut body = heading(&title, &subtitle(summary));
    body.push_str(&validity(summary));
    run_sections(&mut body, summary);
    page(&title, &body)
}

/// The page of a sweep, with the run at the highest good rate when there is one.
pub fn sweep_page(sweep: &Sweep, highest: Option<&Summary>) -> String {
    let title = format!("Sweep: {}", sweep.name);
    let mut body = heading(&title, &format!("{}, model {}", sweep.base_url, sweep.model));
    let class = match (sweep.highest_rate, sweep.generator_limit()) {
        (Some(_), None) => "good",
        (Some(_), Some(_)) => "note",
        (None, _) => "bad",
    };
    let _ = writeln!(body, "<div class=\"band {class}\">{}</div>", Escaped(&sweep.verdict()));
    body.push_str("<h2>Against the offered rate</h2>\n");
    body.push_str(&load::charts(sweep));
    body.push_str("<h2>All rates</h2>\n");
    body.push_str(&load::table(sweep));
    match highest {
        Some(summary) => {
            body.push_str("<h2>The run at the highest good rate</h2>\n");
            body.push_str(&validity(summary));
            run_sections(&mut body, summary);
        }
        None => body.push_str(&definitions_section()),
    }
    page(&title, &body)
}

/// The page of a comparison.
pub fn comparison_page(comparison: &Comparison) -> String {
    let title = format!("Comparison: {}", comparison.name);
    let mut body = heading(&title, &format!("A: {}, B: {}", comparison.a, comparison.b));
    if !comparison.warnings.is_empty() {
        body.push_str(&band("bad", "These figures are not valid", &comparison.warnings));
    }
    body.push_str("<h2>Figures</h2>\n");
    body.push_str(&load::comparison(comparison));
    body.push_str(
        "<p class=\"sub\">Both were given the same plan in each round, in turn. A ratio is of the \
         same round of both, so that what changed over time for both is not in it. Rounds that \
         all agree may do so by chance: for two equal servers 2 in 2<sup>n</sup> times.</p>\n",
    );
    body.push_str(&definitions_section());
    page(&title, &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        Escaped(title),
    )
}

fn heading(title: &str, subtitle: &str) -> String {
    format!("<h1>{}</h1>\n<p class=\"sub\">{}</p>\n", Escaped(title), Escaped(subtitle))
}

fn subtitle(summary: &Summary) -> String {
    let run = &summary.run;
    format!("{}{}, model {}, {}", run.base_url, run.endpoint, run.model, run.started_at)
}

fn validity(summary: &Summary) -> String {
    let reasons = &summary.validity.reasons;
    match (summary.validity.valid, reasons.is_empty()) {
        (false, _) => band("bad", "This run is not valid", reasons),
        (true, false) => band("note", "Valid, with notes", reasons),
        (true, true) => band("good", "Valid: the generator kept its schedule", &[]),
    }
}

fn band(class: &str, title: &str, reasons: &[String]) -> String {
    let mut out = format!("<div class=\"band {class}\"><strong>{title}</strong>");
    if !reasons.is_empty() {
        out.push_str("<ul>");
        for reason in reasons {
            let _ = write!(out, "<li>{}</li>", Escaped(reason));
        }
        out.push_str("</ul>");
    }
    out.push_str("</div>\n");
    out
}

fn run_sections(body: &mut String, summary: &Summary) {
    body.push_str(&tiles(summary));
    body.push_str("<h2>Run</h2>\n");
    body.push_str(&facts(summary));
    body.push_str("<h2>Latency</h2>\n");
    body.push_str(&latency::charts(summary));
    body.push_str("<h2>Over time</h2>\n");
    body.push_str(&timeline::charts(summary));
    body.push_str("<h2>Outcomes</h2>\n");
    body.push_str(&tables::outcomes(&summary.total));
    if summary.tenants.len() > 1 {
        let _ = writeln!(body, "<h2>Tenants ({})</h2>", summary.tenants.len());
        let objectives = figures::objectives(&summary.objectives);
        body.push_str(&tables::tenants(&summary.tenants, objectives.is_some()));
    }
    body.push_str("<h2>All latencies</h2>\n");
    body.push_str(&latency::table(&summary.total));
    body.push_str("<h2>Counts</h2>\n");
    body.push_str(&tables::counts(&summary.total));
    body.push_str(&definitions_section());
}

fn definitions_section() -> String {
    format!("<h2>What the figures mean</h2>\n{}", definitions::table())
}

fn tiles(summary: &Summary) -> String {
    let total = &summary.total;
    let completed = total.outcomes.get("completed").copied().unwrap_or(0);
    let good = match figures::objectives(&summary.objectives) {
        Some(_) => (percent(total.goodput_fraction), "goodput, part of all requests".to_owned()),
        None => (figures::NONE.to_owned(), "goodput: no objectives given".to_owned()),
    };
    let p99 = |values: &Distribution| {
        let value = values.percentile(99.0).filter(|_| values.count > 0);
        value.map_or_else(|| figures::NONE.to_owned(), time_ms)
    };
    let completed_part = completed as f64 / total.requests.max(1) as f64;
    let all = [
        (percent(completed_part), format!("completed, of {} requests", count(total.requests))),
        good,
        (rate(total.requests_per_s), "requests per second".to_owned()),
        (rate(total.output_tokens_per_s), "output tokens per second".to_owned()),
        (p99(&total.ttft), "TTFT p99".to_owned()),
        (p99(&total.tpot), "TPOT p99".to_owned()),
        (p99(&total.e2el), "end to end p99".to_owned()),
        (p99(&total.send_delay), "send delay p99".to_owned()),
    ];
    let mut out = String::from("<div class=\"tiles\">\n");
    for (figure, name) in all {
        let _ = writeln!(out, "<div class=\"tile\"><b>{figure}</b><span>{name}</span></div>");
    }
    out.push_str("</div>\n");
    out
}

fn facts(summary: &Summary) -> String {
    let run = &summary.run;
    let seconds = |value: f64| time_ms(value * 1e3);
    let objectives = figures::objectives(&summary.objectives).unwrap_or("none given".to_owned());
    let rows = [
        ("Load", figures::pacing(run)),
        ("Objectives", objectives),
        (
            "Measured",
            format!(
                "{} of {} (warm-up {:.1} s, cool-down {:.1} s left out)",
                seconds(run.measured_s),
                seconds(run.elapsed_s),
                run.warmup_s,
                run.cooldown_s
            ),
        ),
        ("Most under way", count(run.peak_concurrency.into())),
        ("Tenants", summary.tenants.len().to_string()),
        ("Seed", run.seed.to_string()),
        ("Generator's memory", bytes(run.peak_memory_bytes)),
    ];
    let mut out = String::from("<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Escaped(&value));
    }
    let _ = writeln!(out, "<dt>Command</dt><dd><code>{}</code></dd>", Escaped(&run.command));
    out.push_str("</dl>\n");
    out
}

#[cfg(test)]
mod tests;
