//! The report for a terminal: one screen, what matters most first.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::figures::{self, count, ms, ms_or_dash, percent, percent_column, printable, rate};
use crate::summary::{Distribution, Group, Summary};

/// Percentiles of the latency table.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// Failures that are listed by status and code; the JSON has all.
const FAILURE_LINES_MAX: usize = 12;

/// Tenants that are listed, the worst served first when there are more; the page has all.
const TENANT_LINES_MAX: usize = 20;

/// The whole report. `paths` are those of the other reports.
pub fn text(summary: &Summary, paths: &[PathBuf]) -> String {
    let mut out = String::new();
    verdict(&mut out, summary);
    run(&mut out, summary);
    outcomes(&mut out, &summary.total);
    throughput(&mut out, summary);
    latencies(&mut out, &summary.total);
    if summary.tenants.len() > 1 {
        tenants(&mut out, &summary.tenants);
    }
    if !paths.is_empty() {
        out.push_str("\nReports\n");
    }
    for path in paths {
        let _ = writeln!(out, "  {}", path.display());
    }
    out
}

fn verdict(out: &mut String, summary: &Summary) {
    let name = printable(&summary.run.name, 60);
    let word = if summary.validity.valid { "valid" } else { "NOT VALID" };
    let _ = writeln!(out, "loadtest {name}: {word}");
    for reason in &summary.validity.reasons {
        let _ = writeln!(out, "  ! {}", printable(reason, 300));
    }
}

fn run(out: &mut String, summary: &Summary) {
    let run = &summary.run;
    let _ = writeln!(
        out,
        "{}{}, model {}",
        printable(&run.base_url, 100),
        printable(&run.endpoint, 60),
        printable(&run.model, 60),
    );
    let _ = writeln!(
        out,
        "{}, seed {}, at most {} under way, started {}",
        figures::pacing(run),
        run.seed,
        count(run.peak_concurrency.into()),
        printable(&run.started_at, 40),
    );
    let _ = writeln!(
        out,
        "measured {:.1} s of {:.1} s (warm-up {:.1} s, cool-down {:.1} s left out)",
        run.measured_s, run.elapsed_s, run.warmup_s, run.cooldown_s,
    );
}

fn outcomes(out: &mut String, total: &Group) {
    let _ = writeln!(
        out,
        "\nRequests       {:>10}           {} attempts",
        count(total.requests),
        count(total.attempts),
    );
    for (outcome, n) in figures::outcomes(total) {
        let part = n as f64 / total.requests.max(1) as f64;
        let _ = writeln!(out, "  {outcome:<13}{:>10} {:>9}", count(n), percent_column(part));
    }
    let failures = figures::failures(total);
    for (code, n) in failures.iter().take(FAILURE_LINES_MAX) {
        let _ = writeln!(out, "               {:>10}           {}", count(*n), printable(code, 60));
    }
    if failures.len() > FAILURE_LINES_MAX {
        let more = failures.len() - FAILURE_LINES_MAX;
        let _ = writeln!(out, "               {:>10}           {more} more codes", "...");
    }
}

fn throughput(out: &mut String, summary: &Summary) {
    let total = &summary.total;
    let cached = total.cached_tokens as f64 / total.prompt_tokens.max(1) as f64;
    let _ = writeln!(
        out,
        "\nThroughput     {:>10} requests/s, {} prompt tokens/s ({} cached), {} output tokens/s",
        rate(total.requests_per_s),
        rate(total.prompt_tokens_per_s),
        percent(cached),
        rate(total.output_tokens_per_s),
    );
    match figures::objectives(&summary.objectives) {
        Some(objectives) => {
            let _ = writeln!(
                out,
                "Goodput        {:>10} requests/s, {} of all requests ({objectives})",
                rate(total.goodput_per_s),
                percent(total.goodput_fraction),
            );
        }
        None => {
            let _ = writeln!(out, "Goodput                 - no objectives given (--goodput)");
        }
    }
}

fn latencies(out: &mut String, total: &Group) {
    let mut head = format!("\n{:<15}{:>9}", "Latency, ms", "mean");
    for percentile in PERCENTILES {
        let _ = write!(head, "{:>9}", figures::percentile_name(percentile));
    }
    let _ = writeln!(out, "{head}{:>9}", "max");
    let rows = [
        ("TTFT", &total.ttft),
        ("TTFT from sent", &total.ttft_from_sent),
        ("TPOT", &total.tpot),
        ("ITL", &total.itl),
        ("E2E", &total.e2el),
        ("Queue", &total.queue),
        ("Send delay", &total.send_delay),
    ];
    for (name, values) in rows {
        let _ = writeln!(out, "{name:<15}{}", latency_row(values));
    }
}

fn latency_row(values: &Distribution) -> String {
    let known = |value: f64| (values.count > 0).then_some(value);
    let mut row = format!("{:>9}", ms_or_dash(known(values.mean_ms)));
    for percentile in PERCENTILES {
        let _ = write!(row, "{:>9}", ms_or_dash(values.percentile(percentile).and_then(known)));
    }
    let _ = write!(row, "{:>9}", ms_or_dash(known(values.max_ms)));
    row
}

fn tenants(out: &mut String, tenants: &[Group]) {
    let mut shown: Vec<&Group> = tenants.iter().collect();
    let title = if shown.len() > TENANT_LINES_MAX {
        // Stable: equals stay in the plan's order.
        shown.sort_by(|a, b| a.goodput_fraction.total_cmp(&b.goodput_fraction));
        shown.truncate(TENANT_LINES_MAX);
        format!("Tenants (worst {TENANT_LINES_MAX} of {})", tenants.len())
    } else {
        "Tenants".to_owned()
    };
    let _ = writeln!(
        out,
        "\n{title:<27}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}",
        "requests", "done", "good", "tok/s", "TTFT p99", "TPOT p99"
    );
    for group in shown {
        let completed = group.outcomes.get("completed").copied().unwrap_or(0);
        let part = completed as f64 / group.requests.max(1) as f64;
        let p99 = |values: &Distribution| values.percentile(99.0).map_or("-".to_owned(), ms);
        let mark = if group.abusive { "*" } else { "" };
        let name = match &group.class {
            Some(class) => format!("{}{mark} ({class})", group.name),
            None => format!("{}{mark}", group.name),
        };
        let name = printable(&name, 25);
        let _ = writeln!(
            out,
            "{name:<27}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}",
            count(group.requests),
            percent_column(part),
            percent_column(group.goodput_fraction),
            rate(group.output_tokens_per_s),
            p99(&group.ttft),
            p99(&group.tpot),
        );
    }
    if tenants.iter().any(|group| group.abusive) {
        out.push_str("* misbehaves, as planned\n");
    }
}

#[cfg(test)]
mod tests;
