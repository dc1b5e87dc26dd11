//! Why a budget has no room for a request, in words.

use std::fmt;

use crate::gate::calendar::{Utc, Window};

/// A window without room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Which kind of window.
    pub window: Window,
    /// Its limit, in tokens.
    pub limit: u64,
    /// Tokens charged in it.
    pub used: u64,
    /// Tokens held in it by requests that have not ended.
    pub held: u64,
    /// What the refused request may cost at most: prompt plus `max_tokens` of every choice.
    pub asked: u64,
    /// When the next window begins, in seconds since 1970.
    pub resets_unix_s: u64,
}

impl Shortage {
    /// Whether the same request cannot succeed before the window ends, whatever running requests
    /// give back.
    pub fn is_final(&self) -> bool {
        self.used.checked_add(self.asked).is_none_or(|sum| sum > self.limit)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, used, held, asked, .. } = *self;
        let (window, resets) = (self.window.name(), Utc(self.resets_unix_s));
        write!(f, "the budget of {limit} tokens a {window} ")?;
        if asked > limit {
            write!(
                f,
                "is smaller than this request alone, which may need {asked} tokens (its prompt and \
                 max_tokens of every choice); lower max_tokens or shorten the prompt"
            )
        } else if used >= limit {
            write!(
                f,
                "is used up ({used} tokens used, {held} held by running requests); it resets at \
                 {resets}"
            )
        } else if self.is_final() {
            write!(
                f,
                "has {} tokens left ({used} used, {held} held by running requests) and this \
                 request may need {asked} (its prompt and max_tokens of every choice); lower \
                 max_tokens, or wait until it resets at {resets}",
                limit.saturating_sub(used.saturating_add(held))
            )
        } else {
            write!(
                f,
                "is held by running requests ({used} tokens used, {held} held) and this request \
                 may need {asked} (its prompt and max_tokens of every choice); retry when they \
                 have ended, or lower max_tokens"
            )
        }
    }
}
