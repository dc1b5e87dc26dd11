//! How figures are written, the same in every report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::plan::Pacing;
use crate::summary::{Group, Objectives, RunFacts};

/// What stands where there is no figure.
pub const NONE: &str = "-";

/// Milliseconds without the unit, four digits or so: `4.32`, `123.4`, `5012`.
pub fn ms(value: f64) -> String {
    match value.abs() {
        v if v < 99.995 => format!("{value:.2}"),
        v if v < 999.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// [`ms`], or a dash when there was nothing to measure.
pub fn ms_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), ms)
}

/// A time for people: `850 µs`, `4.32 ms`, `1.25 s`, `3 min 20 s`.
pub fn time_ms(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{:.0} µs", v * 1e3),
        v if v < 999.95 => format!("{} ms", ms(v)),
        v if v < 120_000.0 => format!("{:.2} s", v / 1e3),
        v => format!("{:.0} min {:.0} s", (v / 60_000.0).floor(), (v / 1e3) % 60.0),
    }
}

/// A rate: two decimals below 100, one below 1,000, else none and thousands apart.
pub fn rate(value: f64) -> String {
    match value.abs() {
        v if v < 99.995 => format!("{value:.2}"),
        v if v < 999.95 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

/// A count with its thousands apart: `12,345`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A fraction in percent for a sentence: [`percent_column`] without zeros at the end.
pub fn percent(fraction: f64) -> String {
    let text = percent_column(fraction);
    let number = text.trim_end_matches(" %");
    format!("{} %", number.trim_end_matches('0').trim_end_matches('.'))
}

/// A fraction in percent with two decimals. What is not all is never written as `100.00 %`, nor
/// what is some as `0.00 %`.
pub fn percent_column(fraction: f64) -> String {
    let text = format!("{:.2} %", fraction * 100.0);
    match text.as_str() {
        "100.00 %" if fraction < 1.0 => "99.99 %".to_owned(),
        "0.00 %" if fraction > 0.0 => "0.01 %".to_owned(),
        _ => text,
    }
}

/// Bytes in binary units: `512 B`, `3.4 MiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    format!("{scaled:.1} {unit}")
}

/// A percentile's name: `p50`, `p99.9`.
pub fn percentile_name(percentile: f64) -> String {
    format!("p{percentile}")
}

/// Objectives in words: `TTFT <= 200 ms, TPOT <= 20 ms`; `None` when none is given.
pub fn objectives(objectives: &Objectives) -> Option<String> {
    let all =
        [("TTFT", objectives.ttft_ms), ("TPOT", objectives.tpot_ms), ("E2E", objectives.e2el_ms)];
    let words: Vec<String> = all
        .iter()
        .filter_map(|(name, limit)| limit.map(|limit| format!("{name} <= {limit} ms")))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The pacing in words: `open loop at 10.00 requests/s`.
pub fn pacing(run: &RunFacts) -> String {
    match (run.pacing, run.request_rate) {
        (Pacing::Open, Some(request_rate)) => {
            format!("open loop at {} requests/s", rate(request_rate))
        }
        (Pacing::Open, None) => "open loop, all at once".to_owned(),
        (Pacing::Closed { concurrency }, _) => {
            format!("closed loop of {concurrency} at a time")
        }
    }
}

/// Outcomes with their counts: those that completed first, then the most frequent.
pub fn outcomes(group: &Group) -> Vec<(&str, u64)> {
    by_count(&group.outcomes, |name| name == "completed")
}

/// Failures by status and code, the most frequent first.
pub fn failures(group: &Group) -> Vec<(&str, u64)> {
    by_count(&group.failures, |_| false)
}

/// A text of the server's or the user's for a terminal: control characters (an escape sequence
/// could rewrite the screen) become visible, and it is cut at `chars_max`.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (place, c) in text.chars().enumerate() {
        if place == chars_max {
            out.push('…');
            break;
        }
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            c if is_hidden(c) => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// Control characters, and those that change the direction of what follows.
pub fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn by_count(counts: &BTreeMap<String, u64>, first: impl Fn(&str) -> bool) -> Vec<(&str, u64)> {
    let mut all: Vec<(&str, u64)> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| (name.as_str(), *n)).collect();
    all.sort_by_key(|(name, n)| (!first(name), std::cmp::Reverse(*n)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_about_four_digits() {
        assert_eq!(ms(4.321), "4.32");
        assert_eq!(ms(99.999), "100.0");
        assert_eq!(ms(5012.4), "5012");
        assert_eq!(time_ms(0.85), "850 µs");
        assert_eq!(time_ms(1250.0), "1.25 s");
        assert_eq!(time_ms(200_000.0), "3 min 20 s");
        assert_eq!(rate(12_345.6), "12,346");
        assert_eq!(rate(9.876), "9.88");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3_565_158), "3.4 MiB");
        assert_eq!(percentile_name(99.0), "p99");
        assert_eq!(percentile_name(99.9), "p99.9");
    }

    #[test]
    fn a_percentage_never_rounds_to_all_or_nothing() {
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.999_999), "99.99 %");
        assert_eq!(percent(0.000_001), "0.01 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.5), "50 %");
        assert_eq!(percent(0.9667), "96.67 %");
        assert_eq!(percent_column(0.5), "50.00 %");
    }

    #[test]
    fn text_from_a_server_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc", 99), "a\\u{1b}[2Jb c");
        assert_eq!(printable("\u{202e}abc", 99), "\\u{202e}abc");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
