//! Numbers as people write them: `32k`, `4K`, `1.5G`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Visitor};

/// A whole number with an optional suffix. As in vLLM, small letters are powers of 1000 and
/// capital ones powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("{text:?} is not a number such as 4096, 32k (32,000) or 32K (32,768)");
        let (digits, factor) = match text.trim().char_indices().next_back() {
            Some((at, suffix)) if suffix.is_ascii_alphabetic() => {
                let factor: u64 = match suffix {
                    'k' => 1000,
                    'K' => 1 << 10,
                    'm' => 1_000_000,
                    'M' => 1 << 20,
                    'g' => 1_000_000_000,
                    'G' => 1 << 30,
                    't' => 1_000_000_000_000,
                    'T' => 1 << 40,
                    _ => return Err(wrong()),
                };
                (&text.trim()[..at], factor)
            }
            _ => (text.trim(), 1),
        };
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(factor).map(Count).ok_or_else(wrong);
        }
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        let value = number * factor as f64;
        if !(0.0..1.8e19).contains(&value) || factor == 1 {
            return Err(wrong());
        }
        Ok(Count(value as u64))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or a string such as \"32k\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Count, E> {
                u64::try_from(value).map(Count).map_err(|_| E::custom("must not be negative"))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Count, E> {
                value.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_mean_what_vllm_users_expect() {
        for (text, value) in
            [("7", 7), ("32k", 32_000), ("32K", 32_768), ("1.5G", 1_610_612_736), (" 2M ", 2 << 20)]
        {
            assert_eq!(text.parse(), Ok(Count(value)), "{text}");
        }
        for text in ["", "k", "-1", "1.5", "12q", "99999999T", "1e400k"] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
    }
}
