//! One row of logits: the token that a slot's parameters choose, and log-probabilities.

use super::kernels::{Argmax, KernelSet, Largest, SumExp};
use super::random::uniform;
use super::ranking::Cuts;
use super::sampler::{Slot, Workspace};
use crate::device::{SamplingParams, TokenLogprob};
use crate::ids::TokenId;

/// A chosen token; see [`crate::device::SampledToken`].
#[derive(Debug)]
pub(super) struct Choice {
    pub token: TokenId,
    pub finite: bool,
    pub logprob: Option<Box<TokenLogprob>>,
}

/// Chooses the next token. Overwrites `logits`.
pub(super) fn choose(
    kernels: KernelSet,
    slot: &Slot,
    output_index: u32,
    logits: &mut [f32],
    workspace: &mut Workspace,
) -> Choice {
    let params = &*slot.params;
    let mut largest = kernels.run(Argmax(logits));
    if !is_finite(largest) {
        return Choice { token: TokenId(0), finite: false, logprob: None };
    }
    let modified = modifies(params, slot, output_index);
    if modified {
        if params.logprobs.is_some() {
            workspace.unmodified.clear();
            workspace.unmodified.extend_from_slice(logits);
        }
        modify(params, slot, output_index, logits);
    }
    let before = largest;
    if modified {
        largest = kernels.run(Argmax(logits));
        if !is_finite(largest) {
            return Choice { token: TokenId(0), finite: false, logprob: None };
        }
    }
    let token = if params.temperature > 0.0 {
        let cuts = Cuts { top_k: params.top_k, top_p: params.top_p, min_p: params.min_p };
        let u = uniform(params.seed, output_index);
        let logits = (&*logits, largest.value);
        workspace.ranking.draw(kernels, logits, params.temperature, cuts, u)
    } else {
        largest.index as u32
    };
    let token = TokenId(token);
    let logprob = params.logprobs.map(|top| {
        let unmodified = if modified { &workspace.unmodified } else { &*logits };
        Box::new(log_probability(kernels, unmodified, before, token, top))
    });
    Choice { token, finite: true, logprob }
}

/// The log-probability of a known token; NaN where the row has no distribution.
pub(super) fn score(kernels: KernelSet, token: TokenId, top: u32, logits: &[f32]) -> TokenLogprob {
    let largest = kernels.run(Argmax(logits));
    log_probability(kernels, logits, largest, token, top)
}

fn is_finite(largest: Largest) -> bool {
    !largest.has_nan && largest.value.is_finite()
}

/// Whether any parameter changes a logit before the temperature does.
fn modifies(params: &SamplingParams, slot: &Slot, output_index: u32) -> bool {
    !params.bias.is_empty()
        || (output_index < params.min_tokens && !params.banned.is_empty())
        || !slot.history.is_empty()
}

/// Bias, ban and penalties, in the order that [`SamplingParams`] gives.
fn modify(params: &SamplingParams, slot: &Slot, output_index: u32, logits: &mut [f32]) {
    for (token, bias) in &params.bias {
        if let Some(logit) = logits.get_mut(token.index()) {
            *logit += bias;
        }
    }
    if output_index < params.min_tokens {
        for token in &params.banned {
            if let Some(logit) = logits.get_mut(token.index()) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    // Each token's change is its own, so that the map's order has no effect.
    for (token, seen) in &slot.history {
        let Some(logit) = logits.get_mut(token.index()) else { continue };
        let repetition = params.repetition_penalty;
        *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        if seen.in_output > 0 {
            *logit -= params.frequency_penalty * seen.in_output as f32 + params.presence_penalty;
        }
    }
}

fn log_probability(
    kernels: KernelSet,
    logits: &[f32],
    largest: Largest,
    token: TokenId,
    top: u32,
) -> TokenLogprob {
    let shift = largest.value;
    let log_total = if is_finite(largest) {
        f64::from(shift) + kernels.run(SumExp { x: logits, shift }).ln()
    } else {
        f64::NAN
    };
    let of = |logit: f32| (f64::from(logit) - log_total) as f32;
    let logprob = logits.get(token.index()).map_or(f32::NAN, |&l| of(l));
    let top = highest(logits, top as usize).into_iter().map(|(t, l)| (t, of(l))).collect();
    TokenLogprob { token, logprob, top }
}

/// The `count` highest logits in descending order, ties in ascending order of token.
fn highest(logits: &[f32], count: usize) -> Vec<(TokenId, f32)> {
    let count = count.min(logits.len());
    let mut best: Vec<(TokenId, f32)> = Vec::with_capacity(count + 1);
    if count == 0 {
        return best;
    }
    let mut lowest = f32::NEG_INFINITY;
    for (&logit, token) in logits.iter().zip(0..) {
        if best.len() == count && logit <= lowest {
            continue;
        }
        let place = best.partition_point(|&(_, l)| l >= logit);
        best.insert(place, (TokenId(token), logit));
        best.truncate(count);
        lowest = best.last().map_or(f32::NEG_INFINITY, |&(_, l)| l);
    }
    best
}
