//! Spans of time as people write them: `90d`, `24h`, `30m`, `15s`.

use std::str::FromStr;

/// A number of seconds, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its length.
    pub seconds: u64,
}

const UNITS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];
/// A century: nothing that is meant to end lives longer.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let seconds = unit.and_then(|(unit, factor)| {
            let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(*factor).filter(|seconds| *seconds <= SECONDS_MAX)
        });
        let seconds = seconds.ok_or_else(|| {
            format!(
                "{text:?} is not a span of time such as 90d, 24h, 30m or 15s (at most a century)"
            )
        })?;
        Ok(Self { seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_number_and_a_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("24h", 86_400), ("0s", 0), ("5 m", 300)] {
            assert_eq!(text.parse(), Ok(Span { seconds }), "{text}");
        }
        for text in ["", "d", "90", "-1d", "1.5h", "1y", "99999999999999999999d", "40000d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
