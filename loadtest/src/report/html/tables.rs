//! Outcomes, token counts and tenants, as tables with bars.

use std::fmt::Write as _;

use super::escape::Escaped;
use crate::report::figures::{self, count, ms, percent, percent_column, rate};
use crate::summary::{Distribution, Group};

/// Outcomes with their parts of all requests, then the codes of what failed.
pub fn outcomes(total: &Group) -> String {
    let mut out = String::from(
        "<div class=\"wide narrow\"><table><thead><tr><th>Outcome</th><th>requests</th>\
         <th class=\"bar\">part of all</th></tr></thead><tbody>\n",
    );
    for (outcome, n) in figures::outcomes(total) {
        let colour = if outcome == "completed" { "" } else { " b4" };
        let part = n as f64 / total.requests.max(1) as f64;
        let _ = writeln!(
            out,
            "<tr><th>{}</th><td>{}</td>{}</tr>",
            Escaped(&outcome.replace('_', " ")),
            count(n),
            bar(&percent_column(part), part, colour),
        );
    }
    out.push_str("</tbody></table></div>\n");
    let failures = figures::failures(total);
    if failures.is_empty() {
        return out;
    }
    out.push_str(
        "<h2>Failures by code</h2>\n<div class=\"wide narrow\"><table><thead><tr><th>Status and code</th>\
         <th>requests</th><th class=\"bar\">part of failures</th></tr></thead><tbody>\n",
    );
    let all: u64 = failures.iter().map(|(_, n)| n).sum();
    for (code, n) in failures {
        let part = n as f64 / all as f64;
        let _ = writeln!(
            out,
            "<tr><th class=\"name\">{}</th><td>{}</td>{}</tr>",
            Escaped(code),
            count(n),
            bar(&percent_column(part), part, " b4"),
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// Counts and rates.
pub fn counts(total: &Group) -> String {
    let cached = total.cached_tokens as f64 / total.prompt_tokens.max(1) as f64;
    let rows = [
        ("Requests", count(total.requests)),
        ("Attempts, retries included", count(total.attempts)),
        ("Completed requests per second", rate(total.requests_per_s)),
        ("Good requests per second", rate(total.goodput_per_s)),
        ("Prompt tokens", count(total.prompt_tokens)),
        (
            "Of these from the server's cache",
            format!("{} ({})", count(total.cached_tokens), percent(cached)),
        ),
        ("Output tokens", count(total.output_tokens)),
        ("Prompt tokens per second", rate(total.prompt_tokens_per_s)),
        ("Output tokens per second", rate(total.output_tokens_per_s)),
        ("Answers without usage (their output is counted in chunks)", count(total.without_usage)),
        (
            "Answers with another number of tokens than was asked for",
            count(total.output_mismatches),
        ),
    ];
    let mut out = String::from("<div class=\"wide narrow\"><table><tbody>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><th class=\"name\">{name}</th><td>{value}</td></tr>");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// A row for each tenant: its throughput, goodput and TTFT as bars, and its counts.
pub fn tenants(tenants: &[Group], objectives_given: bool) -> String {
    let greatest = |figure: fn(&Group) -> f64| tenants.iter().map(figure).fold(0.0, f64::max);
    let tokens_max = greatest(|group| group.output_tokens_per_s);
    let ttft_max = greatest(|group| group.ttft.percentile(99.0).unwrap_or(0.0));
    let good = if objectives_given { "goodput" } else { "completed" };
    let mut out = format!(
        "<div class=\"wide\"><table><thead><tr><th>Tenant</th>\
         <th class=\"bar\">output tokens/s</th><th class=\"bar\">{good}</th>\
         <th class=\"bar\">TTFT p99, ms</th><th>TPOT p99, ms</th><th>requests</th>\
         <th>completed</th><th>refused</th></tr></thead><tbody>\n"
    );
    for group in tenants {
        let outcome = |name: &str| group.outcomes.get(name).copied().unwrap_or(0);
        let completed = outcome("completed") as f64 / group.requests.max(1) as f64;
        let part = if objectives_given { group.goodput_fraction } else { completed };
        let ttft = group.ttft.percentile(99.0);
        let tag = if group.abusive { " <span class=\"tag\">misbehaves</span>" } else { "" };
        let class = group.class.as_deref().map_or(String::new(), |class| {
            format!(" <span class=\"sub\">{}</span>", Escaped(class))
        });
        let _ = writeln!(
            out,
            "<tr><th class=\"name\">{}{class}{tag}</th>{}{}{}<td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(&group.name),
            bar(&rate(group.output_tokens_per_s), group.output_tokens_per_s / tokens_max, ""),
            bar(&percent_column(part), part, " b3"),
            bar(&figures::ms_or_dash(ttft), ttft.unwrap_or(0.0) / ttft_max, " b2"),
            p99(&group.tpot),
            count(group.requests),
            count(outcome("completed")),
            count(outcome("refused")),
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn p99(values: &Distribution) -> String {
    values.percentile(99.0).map_or_else(|| figures::NONE.to_owned(), ms)
}

/// A cell with a figure and its bar; `part` of the cell's width.
fn bar(figure: &str, part: f64, colour: &str) -> String {
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    let width = part * 4.5;
    format!(
        "<td class=\"bar{colour}\"><span>{figure}</span><i style=\"width:{width:.2}rem\"></i></td>"
    )
}
