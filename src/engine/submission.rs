//! A request as the engine takes it: checked, nothing optional left that could be wrong.

use std::sync::Arc;

use super::reply::Reply;
use crate::clock::Time;
use crate::device::SamplingParams;
use crate::ids::{RequestId, TenantId, TokenId};

/// One request. Made by the `http` room after the gate admitted it.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub id: RequestId,
    /// Whose it is; the root of its prefix-cache domain (R32).
    pub tenant: TenantId,
    /// Caller's own separation inside the tenant's cache domain; at most 64 bytes, may be empty.
    pub cache_salt: Arc<str>,
    /// Prompt tokens, at least 1; `prompt.len() + max_tokens` is within the device's context.
    pub prompt: Arc<[TokenId]>,
    /// Choices to generate, 1 or more. Choice `i` samples with `params[i]`, which differ in their
    /// seeds alone; `params.len()` is the number of choices.
    pub params: Vec<Arc<SamplingParams>>,
    /// Tokens to generate for each choice at most. 0 only together with `score_prompt` (the
    /// request ends when the prompt's scores are known).
    pub max_tokens: u32,
    /// When a choice ends.
    pub stops: Stops,
    /// `Some(k)`: report each prompt token's log-probability and the `k` highest. The prefix cache
    /// is then not read, since scores need every row's logits.
    pub score_prompt: Option<u32>,
    /// Lower runs first within the tenant; 0 unless the caller may set it.
    pub priority: i32,
    /// When it was admitted.
    pub arrived: Time,
    /// It ends with `FinishReason::Deadline` when it is not finished then.
    pub deadline: Option<Time>,
    /// Where its events go.
    pub reply: Reply,
}

/// Tokens that end a choice. The token itself is part of the output's count, but not of its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// The model's end-of-sequence tokens; empty when the request ignores them.
    pub eos: Arc<[TokenId]>,
    /// The request's own stop tokens.
    pub tokens: Arc<[TokenId]>,
    /// No stop is obeyed before this many tokens are generated (and none is sampled, see
    /// [`SamplingParams::banned`]).
    pub min_tokens: u32,
}

impl Stops {
    /// Whether `token`, as the `generated`-th output token (counted from 1), ends the choice.
    pub fn ends(&self, token: TokenId, generated: u32) -> bool {
        generated >= self.min_tokens && (self.eos.contains(&token) || self.tokens.contains(&token))
    }
}
