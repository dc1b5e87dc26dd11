//! When to try again, exactly as the official OpenAI SDKs do (openai-python 3.52,
//! `_base_client.py`: `_should_retry`, `_parse_retry_after_header`,
//! `_calculate_retry_timeout`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use rand::Rng;

const DELAY_FIRST_S: f64 = 0.5;
const DELAY_MAX_S: f64 = 8.0;
/// A server that asks for a longer wait is not tried again.
const RETRY_AFTER_MAX_S: f64 = 120.0;

/// Why an attempt failed.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'a> {
    /// No connection, a broken one, or a time-out before an answer.
    Connection,
    /// An answer that is an error.
    Answer {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: &'a HeaderMap,
    },
}

/// How long to wait before attempt `retries_done + 2`, or `None` to give up. `now` is for dates in
/// `retry-after`.
pub fn wait(
    failure: Failure<'_>,
    retries_done: u32,
    now: DateTime<Utc>,
    rng: &mut impl Rng,
) -> Option<Duration> {
    let asked_s = match failure {
        Failure::Connection => None,
        Failure::Answer { headers, .. } => retry_after_s(headers, now),
    };
    if asked_s.is_some_and(|seconds| seconds > RETRY_AFTER_MAX_S) || !is_retried(failure) {
        return None;
    }
    let seconds = match asked_s {
        Some(seconds) if seconds > 0.0 => seconds,
        _ => {
            let doubled = DELAY_FIRST_S * 2f64.powi(retries_done.min(1000) as i32);
            doubled.min(DELAY_MAX_S) * (1.0 - 0.25 * rng.random::<f64>())
        }
    };
    Some(Duration::from_secs_f64(seconds))
}

fn is_retried(failure: Failure<'_>) -> bool {
    let Failure::Answer { status, headers } = failure else { return true };
    match headers.get("x-should-retry").map(|value| value.as_bytes()) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => matches!(status.as_u16(), 408 | 409 | 429) || status.as_u16() >= 500,
    }
}

/// The wait that the server asked for, in seconds; finite.
fn retry_after_s(headers: &HeaderMap, now: DateTime<Utc>) -> Option<f64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    for (name, divisor) in [("retry-after-ms", 1000.0), ("retry-after", 1.0)] {
        let Some(value) = text(name).map(str::trim) else { continue };
        let Ok(number) = value.parse::<f64>() else { continue };
        if number == f64::INFINITY && value.contains(|c: char| c.is_ascii_digit()) {
            // A number too large for a float is a long wait; the word `inf` is none.
            return Some(RETRY_AFTER_MAX_S + 1.0);
        }
        return Some(number / divisor).filter(|seconds| seconds.is_finite());
    }
    let date = DateTime::parse_from_rfc2822(text("retry-after")?.trim()).ok()?;
    Some((date.with_timezone(&Utc) - now).num_milliseconds() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness::{Purpose, stream};

    /// Seconds to wait; the jitter makes a range.
    fn waited(status: u16, headers: &[(&'static str, &str)], retries_done: u32) -> Option<f64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let now = DateTime::parse_from_rfc3339("2026-11-20T10:00:00Z").unwrap();
        let mut rng = stream(1, Purpose::Retries, 0);
        let failure = Failure::Answer { status, headers: &map };
        wait(failure, retries_done, now.into(), &mut rng).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn the_table_of_the_sdks() {
        type Row<'a> = (u16, &'a [(&'static str, &'a str)], Option<f64>);
        let table: &[Row<'_>] = &[
            (429, &[("retry-after-ms", "1500")], Some(1.5)),
            (429, &[("retry-after-ms", "250"), ("retry-after", "9")], Some(0.25)),
            (429, &[("retry-after-ms", "soon"), ("retry-after", "9")], Some(9.0)),
            (503, &[("retry-after", "0.75")], Some(0.75)),
            (503, &[("retry-after", "120")], Some(120.0)),
            (503, &[("retry-after", "121")], None),
            (503, &[("retry-after", "Fri, 20 Nov 2026 10:00:07 GMT")], Some(7.0)),
            (503, &[("retry-after", "Fri, 20 Nov 2026 11:00:00 GMT")], None),
            (503, &[("retry-after", "1e999")], None),
            (429, &[("x-should-retry", "false")], None),
            (400, &[("x-should-retry", "true"), ("retry-after", "2")], Some(2.0)),
            (400, &[], None),
            (401, &[], None),
            (404, &[("retry-after", "1")], None),
        ];
        for (status, headers, expected) in table {
            assert_eq!(waited(*status, headers, 0), *expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn without_a_usable_header_waits_double_up_to_eight_seconds() {
        for (status, headers) in [
            (408, vec![]),
            (409, vec![]),
            (429, vec![("retry-after", "0")]),
            (500, vec![("retry-after", "-3")]),
            (503, vec![("retry-after", "Thu, 19 Nov 2026 10:00:00 GMT")]),
            (599, vec![("retry-after", "later")]),
            (599, vec![("retry-after", "inf")]),
        ] {
            for (retries_done, longest) in [(0, 0.5), (1, 1.0), (3, 4.0), (4, 8.0), (2000, 8.0)] {
                let waited = waited(status, &headers, retries_done).unwrap();
                assert!(waited <= longest && waited > longest * 0.75, "{status} {waited}");
            }
        }
        let mut rng = stream(1, Purpose::Retries, 0);
        assert!(wait(Failure::Connection, 0, DateTime::UNIX_EPOCH, &mut rng).is_some());
    }
}
