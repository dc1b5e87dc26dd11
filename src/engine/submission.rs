//! A request as the engine takes it: checked, nothing optional left that could be wrong.

use std::sync::Arc;
use std::time::Duration;

use super::reply::Reply;
use super::request::blocks_max;
use crate::clock::Time;
use crate::config::Class;
use crate::device::{DeviceLimits, SamplingParams};
use crate::ids::{RequestId, TenantId, TokenId};

/// One request. Made by the `http` room after the gate admitted it.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub id: RequestId,
    /// Whose it is; the root of its prefix-cache domain (R32).
    pub tenant: TenantId,
    /// How its tenant shares the device; the newest submission's holds for the tenant.
    pub share: Share,
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
    /// When it has to start, if that was promised.
    pub promise: Option<Promise>,
    /// It ends with `FinishReason::Deadline` when it is not finished then.
    pub deadline: Option<Time>,
    /// Its objective of the time between two tokens, which bounds the steps it is in.
    pub tpot: Option<Duration>,
    /// Where its events go.
    pub reply: Reply,
}

/// When a request has to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// From then on it goes before all requests that are not as urgent.
    pub urgent_from: Time,
    /// It ends with `FinishReason::Late` when its first step has not begun then.
    pub start_by: Time,
}

/// How a tenant shares the device with others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Higher classes go first; the request's own, which may be below the tenant's.
    pub class: Class,
    /// Share of device time among tenants of a class; at least 1.
    pub weight: u32,
    /// Share of all KV blocks that the tenant's sequences may hold together, and of them its
    /// entries of the prefix cache; above 0, at most 1.
    pub kv_share: f64,
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

impl Default for Share {
    fn default() -> Self {
        Self { class: Class::Standard, weight: 1, kv_share: 1.0 }
    }
}

impl Submission {
    /// Why it can never run on a device of these limits, with at most `running_max` sequences at
    /// once; `None` when it can.
    pub(super) fn refusal(&self, limits: &DeviceLimits, running_max: u32) -> Option<String> {
        let prompt = self.prompt.len() as u64;
        let choices = self.params.len() as u64;
        let tokens = prompt + u64::from(self.max_tokens);
        if prompt == 0 || choices == 0 {
            return Some("a request needs a prompt token and a choice".to_owned());
        }
        if self.max_tokens == 0 && self.score_prompt.is_none() {
            return Some("a request without output and scores asks for nothing".to_owned());
        }
        if tokens > u64::from(limits.context_tokens_max) {
            let max = limits.context_tokens_max;
            return Some(format!("{tokens} tokens of prompt and output; the context holds {max}"));
        }
        let slots = u64::from(running_max.min(limits.slots_total));
        if choices > slots {
            return Some(format!("{choices} choices; at most {slots} sequences run at once"));
        }
        let size = limits.block_size_tokens;
        let blocks = blocks_max(prompt as u32, self.max_tokens, choices as u32, size);
        if blocks > u64::from(limits.blocks_total) {
            let total = limits.blocks_total;
            return Some(format!("the request may need {blocks} KV blocks; there are {total}"));
        }
        let vocab = limits.vocab_size;
        let foreign = self.prompt.iter().find(|token| token.0 >= vocab)?;
        Some(format!("token {foreign} in the prompt; the vocabulary has {vocab}"))
    }
}

impl Stops {
    /// Whether `token`, as the `generated`-th output token (counted from 1), ends the choice.
    pub fn ends(&self, token: TokenId, generated: u32) -> bool {
        generated >= self.min_tokens && (self.eos.contains(&token) || self.tokens.contains(&token))
    }
}
