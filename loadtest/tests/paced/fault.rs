//! What goes wrong, and for whom.

use std::str::FromStr;

/// A rule: which requests, which of their tries, what happens to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Requests `first`, `first + every`, ... counted from 0 by first arrival. Equal bodies are
    /// tries of one request.
    pub first: u64,
    /// See `first`.
    pub every: u64,
    /// Only the first so many tries of each; `None`: all.
    pub tries: Option<u32>,
    /// What happens.
    pub damage: Damage,
}

/// What happens to a request. Chunks are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// An error instead of an answer.
    Status {
        /// HTTP status.
        status: u16,
        /// `error.code`.
        code: String,
        /// Sent as `retry-after-ms` and, in whole seconds, as `retry-after`.
        retry_after_ms: Option<u64>,
        /// Sent as `x-should-retry`.
        should_retry: Option<bool>,
    },
    /// The connection is cut after so many chunks.
    DropAfter(u32),
    /// Nothing comes after so many chunks, and the connection stays open.
    HangAfter(u32),
    /// The response ends properly after so many chunks, without `finish_reason` and `[DONE]`.
    EndAfter(u32),
    /// Chunks go on after the last, without end.
    Endless,
    /// This chunk is no JSON.
    MalformedAt(u32),
    /// Instead of this chunk an error event comes, and the response ends.
    ErrorEventAt {
        /// Which chunk.
        chunk: u32,
        /// `error.code`.
        code: String,
    },
}

impl Fault {
    /// `damage` for every try of every request.
    pub fn always(damage: Damage) -> Self {
        Self { first: 0, every: 1, tries: None, damage }
    }

    /// Whether it happens to a request, counted from 0, at a try, counted from 0.
    pub fn hits(&self, request: u64, attempt: u32) -> bool {
        request >= self.first
            && (request - self.first).is_multiple_of(self.every.max(1))
            && self.tries.is_none_or(|tries| attempt < tries)
    }
}

impl Damage {
    /// An error status with a code, to be retried by the client's own rules.
    pub fn status(status: u16, code: &str) -> Self {
        Self::Status { status, code: code.to_owned(), retry_after_ms: None, should_retry: None }
    }

    /// The last chunk that is still sent as it should be, plus one.
    pub fn chunks_before(&self) -> Option<u32> {
        match self {
            Self::Status { .. } | Self::MalformedAt(_) | Self::Endless => None,
            Self::DropAfter(chunks) | Self::HangAfter(chunks) | Self::EndAfter(chunks) => {
                Some(*chunks)
            }
            Self::ErrorEventAt { chunk, .. } => Some(*chunk),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut first, mut every, mut tries) = (0, 1, None);
        let (mut damage, mut code) = (None, None);
        let (mut retry_after_ms, mut should_retry) = (None, None);
        for part in text.split(',') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
            match key {
                "first" => first = number(key, value)?,
                "every" => every = number(key, value)?,
                "tries" => tries = Some(number(key, value)?),
                "code" => code = Some(value.to_owned()),
                "retry-after-ms" => retry_after_ms = Some(number(key, value)?),
                "should-retry" => should_retry = Some(number(key, value)?),
                "status" => damage = Some(Damage::status(number(key, value)?, "injected")),
                "drop-after" => damage = Some(Damage::DropAfter(number(key, value)?)),
                "hang-after" => damage = Some(Damage::HangAfter(number(key, value)?)),
                "end-after" => damage = Some(Damage::EndAfter(number(key, value)?)),
                "endless" => {
                    damage = number::<bool>(key, value)?.then_some(Damage::Endless).or(damage);
                }
                "malformed-at" => damage = Some(Damage::MalformedAt(number(key, value)?)),
                "error-event-at" => {
                    let (chunk, code) = (number(key, value)?, "injected".to_owned());
                    damage = Some(Damage::ErrorEventAt { chunk, code });
                }
                _ => return Err(format!("`{key}` is no part of a fault")),
            }
        }
        let mut damage = damage.ok_or_else(|| format!("`{text}` does not say what happens"))?;
        match &mut damage {
            Damage::Status { code: c, retry_after_ms: after, should_retry: should, .. } => {
                (*after, *should) = (retry_after_ms, should_retry);
                c.clone_from(&code.unwrap_or_else(|| c.clone()));
            }
            Damage::ErrorEventAt { code: c, .. } => {
                c.clone_from(&code.unwrap_or_else(|| c.clone()));
            }
            _ => {}
        }
        Ok(Self { first, every, tries, damage })
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{value}` is no value for `{key}`"))
}
