//! One choice of an answer: the engine's tokens in, pieces of the answer out. Streams and whole
//! answers are both made of these pieces, so that they cannot differ.

use crate::clock::Time;
use crate::device::{SampledToken, TokenLogprob};
use crate::engine::{FinishReason, Stops};
use crate::ids::TokenId;
use crate::text::Detokenizer;

/// The next piece of a choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delta {
    /// The choice's index in the answer.
    pub(super) index: u32,
    /// Text to append.
    pub(super) text: String,
    /// With `echo`: the prompt's tokens, in a choice's first piece.
    pub(super) prompt: Vec<Scored>,
    /// Generated tokens, when the answer tells of them; as many as are counted in the usage.
    pub(super) tokens: Vec<Scored>,
    /// The choice has ended.
    pub(super) finish: Option<Finish>,
}

/// A token and, where known and asked for, its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    pub(super) token: TokenId,
    pub(super) logprob: Option<TokenLogprob>,
}

/// `finish_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
}

/// A choice being generated.
pub(super) struct Choice {
    /// Its index in the answer.
    pub(super) index: u32,
    detokenizer: Detokenizer,
    /// Whether pieces carry tokens.
    with_tokens: bool,
    /// Tokens that count as output.
    pub(super) generated_tokens: u32,
    pub(super) last_token: Option<Time>,
    /// How it ended; nothing comes after that.
    pub(super) finish: Option<Finish>,
}

/// What a token did to its choice.
pub(super) struct Pushed {
    /// What to send, if anything: text may be held back.
    pub(super) delta: Option<Delta>,
    /// A stop string was met: the engine does not know yet that the choice has ended.
    pub(super) stopped: bool,
}

impl Finish {
    /// As in answers.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

impl Choice {
    pub(super) fn new(index: u32, detokenizer: Detokenizer, with_tokens: bool) -> Self {
        Self {
            index,
            detokenizer,
            with_tokens,
            generated_tokens: 0,
            last_token: None,
            finish: None,
        }
    }

    /// Adds a token. A token that ends the choice counts and is listed, but gives no text, unless
    /// `show_stop_tokens`.
    pub(super) fn push(
        &mut self,
        sampled: SampledToken,
        stops: &Stops,
        show_stop_tokens: bool,
    ) -> Pushed {
        if self.finish.is_some() {
            return Pushed { delta: None, stopped: false };
        }
        self.generated_tokens += 1;
        let mut delta = Delta { index: self.index, ..Delta::default() };
        let mut stopped = false;
        if show_stop_tokens || !stops.ends(sampled.token, self.generated_tokens) {
            let piece = self.detokenizer.push(sampled.token);
            delta.text = piece.text;
            stopped = piece.stopped.is_some();
        }
        if self.with_tokens {
            let logprob = sampled.logprob.map(|logprob| *logprob);
            delta.tokens.push(Scored { token: sampled.token, logprob });
        }
        if stopped {
            self.finish = Some(Finish::Stop);
            delta.finish = self.finish;
        }
        let is_empty = delta.text.is_empty() && delta.tokens.is_empty() && delta.finish.is_none();
        Pushed { delta: (!is_empty).then_some(delta), stopped }
    }

    /// The engine has ended it. `None` when it had ended before, by a stop string.
    pub(super) fn end(&mut self, finish: Finish) -> Option<Delta> {
        if self.finish.is_some() {
            return None;
        }
        self.finish = Some(finish);
        let text = self.detokenizer.finish();
        Some(Delta { index: self.index, text, finish: self.finish, ..Delta::default() })
    }
}

/// `finish_reason` of the engine's reason; `None` for a time that passed, which is a failure.
pub(super) fn finish_of(reason: FinishReason) -> Option<Finish> {
    match reason {
        FinishReason::Stop(_) | FinishReason::Stopped => Some(Finish::Stop),
        FinishReason::Length => Some(Finish::Length),
        FinishReason::Deadline | FinishReason::Late => None,
    }
}
