//! Log-probabilities as OpenAI writes them: one form for chat, an older one for completions, and
//! vLLM's for prompts.

use std::borrow::Cow;

use super::choice::Scored;
use super::json::{write_string, write_u64};
use crate::device::TokenLogprob;
use crate::ids::TokenId;
use crate::text::Text;

/// What OpenAI writes for a probability of zero: JSON has no infinity.
const LEAST: f32 = -9999.0;

/// Where the tokens of a choice lie in its text, in characters.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    chars: u64,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
}

impl Offsets {
    /// The offset of the next token, which has these bytes of text.
    fn next(&mut self, bytes: &[u8]) -> u64 {
        let offset = self.chars;
        self.pending.extend_from_slice(bytes);
        let complete = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Not the start of any character: it is shown as replacement characters.
            Err(_) => self.pending.len(),
        };
        let text = String::from_utf8_lossy(&self.pending[..complete]);
        self.chars += text.chars().count() as u64;
        self.pending.drain(..complete);
        offset
    }
}

/// Chat's form: `{"content":[…],"refusal":null}`.
pub(super) fn write_chat(out: &mut Vec<u8>, text: &Text, tokens: &[Scored], top: u32) {
    out.extend_from_slice(b"{\"content\":[");
    for (index, scored) in tokens.iter().enumerate() {
        comma(out, index);
        let known = scored.logprob.as_ref();
        write_chat_token(out, text, scored.token, known.map_or(LEAST, |known| known.logprob));
        out.extend_from_slice(b",\"top_logprobs\":[");
        let tops = known.map_or(&[][..], |known| &known.top[..]);
        for (index, (token, logprob)) in tops.iter().take(top as usize).enumerate() {
            comma(out, index);
            write_chat_token(out, text, *token, *logprob);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"],\"refusal\":null}");
}

/// Completions' form: four arrays side by side. `skip_special` says which tokens have no text.
pub(super) fn write_completion<'a>(
    out: &mut Vec<u8>,
    text: &Text,
    tokens: impl Iterator<Item = &'a Scored> + Clone,
    top: u32,
    skip_special: bool,
    offsets: &mut Offsets,
) {
    out.extend_from_slice(b"{\"tokens\":[");
    for (index, scored) in tokens.clone().enumerate() {
        comma(out, index);
        write_string(out, &shown(&text.token_bytes(scored.token)));
    }
    out.extend_from_slice(b"],\"token_logprobs\":[");
    for (index, scored) in tokens.clone().enumerate() {
        comma(out, index);
        match &scored.logprob {
            Some(known) => write_number(out, known.logprob),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b"],\"top_logprobs\":[");
    for (index, scored) in tokens.clone().enumerate() {
        comma(out, index);
        match &scored.logprob {
            Some(known) => write_tops(out, text, known, top),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b"],\"text_offset\":[");
    for (index, scored) in tokens.enumerate() {
        comma(out, index);
        let hidden = skip_special && text.is_special(scored.token);
        let bytes = if hidden { Vec::new() } else { text.token_bytes(scored.token) };
        write_u64(out, offsets.next(&bytes));
    }
    out.extend_from_slice(b"]}");
}

/// vLLM's `prompt_logprobs`: null for the first token, then an object by token id for each.
pub(super) fn write_prompt(out: &mut Vec<u8>, text: &Text, scores: &[TokenLogprob], top: u32) {
    out.extend_from_slice(b"[null");
    for known in scores {
        out.extend_from_slice(b",{");
        let tops = &known.top[..known.top.len().min(top as usize)];
        let ranked = tops.iter().enumerate().map(|(rank, top)| (*top, Some(rank + 1)));
        let own_rank = known.top.iter().position(|(token, _)| *token == known.token);
        let own = ((known.token, known.logprob), own_rank.map(|rank| rank + 1));
        let is_listed = tops.iter().any(|(token, _)| *token == known.token);
        let entries = ranked.chain((!is_listed).then_some(own));
        for (index, ((token, logprob), rank)) in entries.enumerate() {
            comma(out, index);
            write_string(out, &token.to_string());
            out.extend_from_slice(b":{\"logprob\":");
            write_number(out, logprob);
            out.extend_from_slice(b",\"rank\":");
            match rank {
                Some(rank) => write_u64(out, rank as u64),
                // Below the ones that were asked for: nobody has counted how far.
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"decoded_token\":");
            write_string(out, &String::from_utf8_lossy(&text.token_bytes(token)));
            out.push(b'}');
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// A token's text, or OpenAI's notation for bytes that are no text by themselves.
pub(super) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            Cow::Owned(format!("bytes:{hex}"))
        }
    }
}

/// An open object with `token`, `logprob` and `bytes`.
fn write_chat_token(out: &mut Vec<u8>, text: &Text, token: TokenId, logprob: f32) {
    let bytes = text.token_bytes(token);
    out.extend_from_slice(b"{\"token\":");
    write_string(out, &String::from_utf8_lossy(&bytes));
    out.extend_from_slice(b",\"logprob\":");
    write_number(out, logprob);
    out.extend_from_slice(b",\"bytes\":[");
    for (index, byte) in bytes.iter().enumerate() {
        comma(out, index);
        write_u64(out, u64::from(*byte));
    }
    out.push(b']');
}

/// The highest ones by their text, and the token itself in any case. Of tokens with the same text
/// the most probable one counts: keys are unique.
fn write_tops(out: &mut Vec<u8>, text: &Text, known: &TokenLogprob, top: u32) {
    let own = (known.token, known.logprob);
    let mut names: Vec<Vec<u8>> = Vec::new();
    out.push(b'{');
    for (token, logprob) in known.top.iter().take(top as usize).copied().chain([own]) {
        let bytes = text.token_bytes(token);
        if names.contains(&bytes) {
            continue;
        }
        comma(out, names.len());
        write_string(out, &shown(&bytes));
        out.push(b':');
        write_number(out, logprob);
        names.push(bytes);
    }
    out.push(b'}');
}

fn write_number(out: &mut Vec<u8>, logprob: f32) {
    let finite = if logprob.is_finite() { logprob.max(LEAST) } else { LEAST };
    // Minus zero would be written as "-0.0"; a certain token has the log-probability 0.
    let finite = if finite == 0.0 { 0.0 } else { finite };
    serde_json::to_writer(out, &finite).expect("writing a number to memory cannot fail");
}

fn comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}
