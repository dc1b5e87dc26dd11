//! How an answer is written: OpenAI's objects for chat and completions, whole and in chunks. Both
//! are written from the same pieces by the same functions.

use std::sync::Arc;

use super::ask::StreamOptions;
use super::choice::{Delta, Finish, Scored};
use super::generation::{Generation, Tally};
use super::json::{write_string, write_u64};
use super::logprobs::{self, Offsets};
use super::state::{AppState, mix};
use super::terms::Tier;
use crate::ids::TokenId;
use crate::text::Text;

/// Chunks are padded to a multiple of this many bytes of text and padding together.
const PADDING_BYTES: usize = 16;

/// Which of the two endpoints' objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completion,
}

/// What a request asked of its answer's form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    pub(super) shape: Shape,
    /// `Some(k)`: log-probabilities, with `k` alternatives each.
    pub(super) logprobs: Option<u32>,
    /// `prompt_logprobs`.
    pub(super) prompt_logprobs: Option<u32>,
    pub(super) return_token_ids: bool,
    pub(super) stream: Option<StreamOptions>,
    /// The `service_tier` that the request named; the answer then does, too.
    pub(super) tier: Option<Tier>,
    /// Special tokens give no text.
    pub(super) skip_special: bool,
}

/// Writes one request's answer.
pub(super) struct Form {
    wishes: Wishes,
    text: Arc<Text>,
    /// `{"id":…,"object":…,…,"choices":[`: the same in every chunk.
    head: Vec<u8>,
    /// Where each choice's next token lies in its text.
    offsets: Vec<Offsets>,
    /// State of the padding's letters.
    padding: u64,
}

/// A choice of a whole answer: the sum of its pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    text: String,
    prompt: Vec<Scored>,
    tokens: Vec<Scored>,
    finish: Option<Finish>,
}

impl Whole {
    /// Adds the choice's next piece.
    pub(super) fn add(&mut self, delta: Delta) {
        self.text.push_str(&delta.text);
        self.prompt.extend(delta.prompt);
        self.tokens.extend(delta.tokens);
        self.finish = delta.finish.or(self.finish);
    }
}

impl Form {
    /// A form for an answer with `choices` choices; draws the answer's id.
    pub(super) fn new(state: &AppState, wishes: Wishes, choices: u32) -> Self {
        let (prefix, whole, chunk) = match wishes.shape {
            Shape::Chat => ("chatcmpl", "chat.completion", "chat.completion.chunk"),
            Shape::Completion => ("cmpl", "text_completion", "text_completion"),
        };
        let seeds = &state.seeds;
        let id = format!("{prefix}-{:016x}{:016x}", seeds.next_u64(), seeds.next_u64());
        let mut head = Vec::with_capacity(192);
        head.extend_from_slice(b"{\"id\":");
        write_string(&mut head, &id);
        head.extend_from_slice(b",\"object\":");
        write_string(&mut head, if wishes.stream.is_some() { chunk } else { whole });
        head.extend_from_slice(b",\"created\":");
        write_u64(&mut head, state.clock.unix_s());
        head.extend_from_slice(b",\"model\":");
        write_string(&mut head, state.model.name());
        head.extend_from_slice(b",\"system_fingerprint\":");
        write_string(&mut head, &state.model.fingerprint);
        if let Some(tier) = wishes.tier {
            head.extend_from_slice(b",\"service_tier\":");
            write_string(&mut head, tier.name());
        }
        head.extend_from_slice(b",\"choices\":[");
        let padding =
            if wishes.stream.is_some_and(|s| s.obfuscation) { seeds.next_u64() } else { 0 };
        let offsets = vec![Offsets::default(); choices as usize];
        Self { wishes, text: Arc::clone(&state.text), head, offsets, padding }
    }

    /// The first chunk of a chat's choice, which names the role. Completions have none, unless
    /// they tell the prompt's tokens.
    pub(super) fn opening(&self, out: &mut Vec<u8>, index: u32, generation: &Generation) {
        let wishes = &self.wishes;
        let prompt = wishes.return_token_ids.then(|| &generation.prompt(index).tokens[..]);
        match (wishes.shape, prompt) {
            (Shape::Completion, None) => return,
            (Shape::Completion, Some(prompt)) => {
                self.begin_chunk(out, index);
                out.extend_from_slice(b"\"text\":\"\",\"logprobs\":null,\"finish_reason\":null");
                write_ids(out, ",\"prompt_token_ids\":", prompt.iter().copied());
                out.extend_from_slice(b"}]");
            }
            (Shape::Chat, prompt) => {
                self.begin_chunk(out, index);
                out.extend_from_slice(b"\"delta\":{\"role\":\"assistant\",\"content\":\"\",");
                out.extend_from_slice(b"\"refusal\":null},\"logprobs\":null,");
                out.extend_from_slice(b"\"finish_reason\":null}]");
                if let Some(prompt) = prompt {
                    write_ids(out, ",\"prompt_token_ids\":", prompt.iter().copied());
                }
            }
        }
        self.end_chunk(out, index, generation);
    }

    /// The chunks of a piece: its text, and then why the choice ended, as OpenAI sends them.
    pub(super) fn chunks(&mut self, out: &mut Vec<u8>, delta: &Delta, generation: &Generation) {
        let has_content =
            !delta.text.is_empty() || !delta.tokens.is_empty() || !delta.prompt.is_empty();
        if has_content {
            self.begin_chunk(out, delta.index);
            match self.wishes.shape {
                Shape::Chat => {
                    out.extend_from_slice(b"\"delta\":{\"content\":");
                    write_string(out, &delta.text);
                    out.push(b'}');
                }
                Shape::Completion => {
                    out.extend_from_slice(b"\"text\":");
                    write_string(out, &delta.text);
                }
            }
            self.write_logprobs(out, delta.index, &delta.prompt, &delta.tokens, false);
            out.extend_from_slice(b",\"finish_reason\":null");
            self.write_token_ids(out, &delta.tokens);
            out.extend_from_slice(b"}]");
            self.write_padding(out, delta.text.len());
            self.end_chunk(out, delta.index, generation);
        }
        if let Some(finish) = delta.finish {
            self.begin_chunk(out, delta.index);
            out.extend_from_slice(match self.wishes.shape {
                Shape::Chat => b"\"delta\":{}",
                Shape::Completion => b"\"text\":\"\"",
            });
            out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
            write_string(out, finish.as_str());
            out.extend_from_slice(b"}]");
            self.end_chunk(out, delta.index, generation);
        }
    }

    /// The end of a stream in which every choice has ended.
    pub(super) fn closing(&self, out: &mut Vec<u8>, generation: &Generation) {
        if self.wishes.stream.is_some_and(|stream| stream.include_usage) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            write_usage(out, generation.tally());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// A whole answer.
    pub(super) fn whole(&mut self, choices: &[Whole], generation: &Generation) -> Vec<u8> {
        let text_bytes: usize = choices.iter().map(|choice| choice.text.len()).sum();
        let mut out = Vec::with_capacity(1024 + text_bytes * 5 / 4);
        out.extend_from_slice(&self.head);
        for (index, choice) in choices.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_whole_choice(&mut out, index as u32, choice, generation);
        }
        out.extend_from_slice(b"],\"usage\":");
        write_usage(&mut out, generation.tally());
        if self.wishes.shape == Shape::Chat {
            if self.wishes.return_token_ids {
                let prompt = generation.prompt(0).tokens.iter().copied();
                write_ids(&mut out, ",\"prompt_token_ids\":", prompt);
            }
            self.write_prompt_logprobs(&mut out, 0, generation);
        }
        out.push(b'}');
        out
    }

    fn write_whole_choice(
        &mut self,
        out: &mut Vec<u8>,
        index: u32,
        choice: &Whole,
        generation: &Generation,
    ) {
        out.extend_from_slice(b"{\"index\":");
        write_u64(out, u64::from(index));
        match self.wishes.shape {
            Shape::Chat => {
                out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
                write_string(out, &choice.text);
                out.extend_from_slice(b",\"refusal\":null,\"annotations\":[]}");
            }
            Shape::Completion => {
                out.extend_from_slice(b",\"text\":");
                write_string(out, &choice.text);
            }
        }
        self.write_logprobs(out, index, &choice.prompt, &choice.tokens, true);
        out.extend_from_slice(b",\"finish_reason\":");
        write_string(out, choice.finish.map_or("stop", Finish::as_str));
        self.write_token_ids(out, &choice.tokens);
        if self.wishes.shape == Shape::Completion {
            if self.wishes.return_token_ids {
                let prompt = generation.prompt(index).tokens.iter().copied();
                write_ids(out, ",\"prompt_token_ids\":", prompt);
            }
            self.write_prompt_logprobs(out, index, generation);
        }
        out.push(b'}');
    }

    /// `,"logprobs":…`; null when none were asked for, and in chunks without tokens.
    fn write_logprobs(
        &mut self,
        out: &mut Vec<u8>,
        index: u32,
        prompt: &[Scored],
        tokens: &[Scored],
        is_whole: bool,
    ) {
        out.extend_from_slice(b",\"logprobs\":");
        let has_tokens = is_whole || !prompt.is_empty() || !tokens.is_empty();
        let Some(top) = self.wishes.logprobs.filter(|_| has_tokens) else {
            out.extend_from_slice(b"null");
            return;
        };
        match self.wishes.shape {
            Shape::Chat => logprobs::write_chat(out, &self.text, tokens, top),
            Shape::Completion => {
                let tokens = prompt.iter().chain(tokens);
                let skip = self.wishes.skip_special;
                let offsets = &mut self.offsets[index as usize];
                logprobs::write_completion(out, &self.text, tokens, top, skip, offsets);
            }
        }
    }

    fn write_token_ids(&self, out: &mut Vec<u8>, tokens: &[Scored]) {
        if self.wishes.return_token_ids {
            write_ids(out, ",\"token_ids\":", tokens.iter().map(|scored| scored.token));
        }
    }

    fn write_prompt_logprobs(&self, out: &mut Vec<u8>, index: u32, generation: &Generation) {
        if let Some(top) = self.wishes.prompt_logprobs {
            out.extend_from_slice(b",\"prompt_logprobs\":");
            logprobs::write_prompt(out, &self.text, generation.prompt_scores(index), top);
        }
    }

    fn write_padding(&mut self, out: &mut Vec<u8>, text_bytes: usize) {
        if !self.wishes.stream.is_some_and(|stream| stream.obfuscation) {
            return;
        }
        self.padding = mix(self.padding.wrapping_add(1));
        out.extend_from_slice(b",\"obfuscation\":\"");
        let count = PADDING_BYTES - text_bytes % PADDING_BYTES;
        let letters =
            (0..count).map(|at| b'a' + (self.padding.rotate_left(4 * at as u32) & 15) as u8);
        out.extend(letters);
        out.push(b'"');
    }

    fn begin_chunk(&self, out: &mut Vec<u8>, index: u32) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"{\"index\":");
        write_u64(out, u64::from(index));
        out.push(b',');
    }

    /// After the chunk's choices: the usage, where the request asked for it.
    fn end_chunk(&self, out: &mut Vec<u8>, index: u32, generation: &Generation) {
        let stream = self.wishes.stream.unwrap_or_default();
        if stream.continuous_usage {
            out.extend_from_slice(b",\"usage\":");
            write_usage(out, generation.choice_tally(index));
        } else if stream.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
    }
}

/// An event in place of the rest of a stream. `body` is an error body.
pub(super) fn write_error_event(out: &mut Vec<u8>, body: &str) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(body.as_bytes());
    out.extend_from_slice(b"\n\n");
}

fn write_usage(out: &mut Vec<u8>, tally: Tally) {
    let total = u64::from(tally.prompt_tokens) + u64::from(tally.output_tokens);
    for (name, value) in [
        ("{\"prompt_tokens\":", u64::from(tally.prompt_tokens)),
        (",\"completion_tokens\":", u64::from(tally.output_tokens)),
        (",\"total_tokens\":", total),
        (",\"prompt_tokens_details\":{\"cached_tokens\":", u64::from(tally.cached_tokens)),
    ] {
        out.extend_from_slice(name.as_bytes());
        write_u64(out, value);
    }
    out.extend_from_slice(b",\"audio_tokens\":0},\"completion_tokens_details\":{");
    out.extend_from_slice(b"\"reasoning_tokens\":0,\"audio_tokens\":0,");
    out.extend_from_slice(b"\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}");
}

fn write_ids(out: &mut Vec<u8>, key: &str, ids: impl Iterator<Item = TokenId>) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'[');
    for (index, id) in ids.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_u64(out, u64::from(id.0));
    }
    out.push(b']');
}
