//! How the next token is chosen from a row of logits.

use crate::ids::TokenId;

/// Everything that decides a sequence's tokens besides the logits. Checked where it is made; below
/// the engine nothing re-checks it.
///
/// The order of effects is: `bias`, `banned` (while fewer than `min_tokens` tokens are generated),
/// repetition, frequency and presence penalties, temperature, `top_k`, `top_p`, `min_p`, draw.
/// The draw for output position `i` uses random bits of (`seed`, `i`) alone, so that a sequence's
/// tokens do not depend on its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy (the first of equal maxima wins); otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep the `top_k` most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens with at least `min_p` times the highest probability; 0 keeps all.
    pub min_p: f32,
    /// Subtracted from the logit of each token that the output already holds.
    pub presence_penalty: f32,
    /// Subtracted once for each time that the output holds the token.
    pub frequency_penalty: f32,
    /// Divides positive logits (multiplies negative ones) of tokens in prompt or output; 1 is none.
    pub repetition_penalty: f32,
    /// Added to the named tokens' logits; sorted by token, at most one entry for each.
    pub bias: Vec<(TokenId, f32)>,
    /// Tokens that may not be sampled before `min_tokens` tokens are generated (the stop tokens).
    pub banned: Vec<TokenId>,
    /// See `banned`.
    pub min_tokens: u32,
    /// Source of all randomness of the sequence.
    pub seed: u64,
    /// `Some(k)`: report the sampled token's log-probability and the `k` highest, taken from the
    /// unmodified logits.
    pub logprobs: Option<u32>,
}

impl SamplingParams {
    /// Greedy decoding without penalties: what a default test wants.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            bias: Vec::new(),
            banned: Vec::new(),
            min_tokens: 0,
            seed: 0,
            logprobs: None,
        }
    }

    /// Whether the choice depends on the tokens seen so far, so that the device must count them.
    pub fn needs_history(&self) -> bool {
        self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.repetition_penalty != 1.0
    }
}
