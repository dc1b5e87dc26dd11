//! `x-ratelimit-*` headers, as OpenAI writes them.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gate::rate::RateStatus;

/// Adds the headers of the limits that there are.
pub(super) fn add_headers(
    headers: &mut HeaderMap,
    (requests, tokens): (Option<RateStatus>, Option<RateStatus>),
) {
    const REQUESTS: [&str; 3] = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ];
    const TOKENS: [&str; 3] =
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
    for (names, status) in [(REQUESTS, requests), (TOKENS, tokens)] {
        let Some(RateStatus { limit, remaining, reset }) = status else { continue };
        let reset = HeaderValue::from_str(&duration(reset)).expect("digits and letters");
        let values = [HeaderValue::from(limit), HeaderValue::from(remaining), reset];
        for (name, value) in names.into_iter().zip(values) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// `250ms`, `1s`, `7.5s`, `6m0s`: as Go writes durations, to the next whole millisecond.
fn duration(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (minutes, seconds, rest) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
    let decimals = format!(".{rest:03}");
    let decimals = if rest == 0 { "" } else { decimals.trim_end_matches('0') };
    if minutes == 0 {
        format!("{seconds}{decimals}s")
    } else {
        format!("{minutes}m{seconds}{decimals}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (us, text) in [
            (0, "0s"),
            (1, "1ms"),
            (250_000, "250ms"),
            (999_001, "1s"),
            (1_000_000, "1s"),
            (7_500_000, "7.5s"),
            (8_640_000, "8.64s"),
            (59_999_500, "1m0s"),
            (360_000_000, "6m0s"),
            (61_020_000, "1m1.02s"),
        ] {
            assert_eq!(duration(Duration::from_micros(us)), text, "{us} µs");
        }
    }
}
