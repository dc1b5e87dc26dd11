//! Tokens to text: the bytes of each token, whole texts, and texts that grow token by token.
//!
//! Decoders of the supported tokenizers map each token to bytes that do not depend on its
//! neighbours, with one exception: SentencePiece writes a space before the first word and takes it
//! away again at the start of a text. So a text is the concatenation of its tokens' bytes, less
//! that space, read as UTF-8; and adding a token costs time proportional to its bytes.

use std::str;
use std::sync::Arc;

use super::stop::StopMatcher;
use super::{DetokenizerOptions, Piece, TextError};
use crate::ids::TokenId;

/// The bytes of every token.
#[derive(Clone, Debug)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    /// Token `i` has `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    special: Vec<bool>,
    start: StartRule,
    longest_bytes: usize,
}

/// What happens to spaces at the start of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StartRule {
    /// Nothing.
    #[default]
    Keep,
    /// Up to this many leading spaces are dropped (decoder `Strip` after `Fuse`).
    Strip(usize),
    /// All spaces of the first token are dropped (decoder `Metaspace`).
    StripFirstToken,
}

/// Turns one choice's tokens into text, token by token.
#[derive(Debug)]
pub struct Detokenizer {
    table: Arc<TokenTable>,
    skip_special: bool,
    start: StartRule,
    utf8: Utf8Stream,
    stop: StopMatcher,
    /// Reused between tokens.
    decoded: String,
}

/// Reads bytes as UTF-8 where characters may be cut anywhere. The result is the same as
/// [`String::from_utf8_lossy`] of all the bytes.
#[derive(Clone, Debug, Default)]
struct Utf8Stream {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl TokenTable {
    /// A table of no tokens.
    pub(super) fn new(start: StartRule) -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), special: Vec::new(), start, longest_bytes: 0 }
    }

    /// Adds the next token.
    pub(super) fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
        self.special.push(special);
        self.longest_bytes = self.longest_bytes.max(bytes.len());
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Bytes of the longest token.
    pub(super) fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// A token's bytes; empty for ids that are not in the table.
    pub(super) fn bytes(&self, token: TokenId) -> &[u8] {
        let Some(&end) = self.ends.get(token.index()) else { return &[] };
        let start = match token.index() {
            0 => 0,
            index => self.ends[index - 1],
        };
        &self.bytes[start as usize..end as usize]
    }

    /// Whether the token is a special one.
    pub(super) fn is_special(&self, token: TokenId) -> bool {
        self.special.get(token.index()).copied().unwrap_or(false)
    }

    /// The text of `tokens`.
    pub(super) fn decode(
        &self,
        tokens: &[TokenId],
        skip_special: bool,
    ) -> Result<String, TextError> {
        let mut bytes = Vec::new();
        let mut start = self.start;
        for &token in tokens {
            if token.0 >= self.len() {
                return Err(TextError::UnknownToken { id: token.0, vocab_size: self.len() });
            }
            if !(skip_special && self.is_special(token)) {
                start.apply(self.bytes(token), |part| bytes.extend_from_slice(part));
            }
        }
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The incomplete character at the end of a prompt's text, if there is one.
    fn open_character(&self, prompt: &[TokenId], skip_special: bool) -> Vec<u8> {
        let shown = prompt.iter().rev().filter(|&&t| !(skip_special && self.is_special(t)));
        let mut tail: Vec<u8> =
            shown.flat_map(|&token| self.bytes(token).iter().rev()).take(4).copied().collect();
        tail.reverse();
        let lead = tail.iter().rposition(|&byte| !(0x80..0xC0).contains(&byte));
        let open = lead.map_or(&[][..], |lead| &tail[lead..]);
        match str::from_utf8(open) {
            Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => open.to_vec(),
            _ => Vec::new(),
        }
    }
}

impl StartRule {
    /// Gives `emit` the parts of a token's bytes that are text, and becomes the rule for the next
    /// token.
    fn apply(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        match *self {
            Self::Keep => emit(bytes),
            Self::Strip(spaces) => {
                let leading = bytes.iter().take(spaces).take_while(|&&b| b == b' ').count();
                emit(&bytes[leading..]);
                *self = match spaces - leading {
                    0 => Self::Keep,
                    _ if leading < bytes.len() => Self::Keep,
                    left => Self::Strip(left),
                };
            }
            Self::StripFirstToken => {
                bytes.split(|&byte| byte == b' ').for_each(emit);
                *self = Self::Keep;
            }
        }
    }
}

impl Detokenizer {
    /// Starts a text that follows `prompt`.
    pub(super) fn new(
        table: Arc<TokenTable>,
        prompt: &[TokenId],
        options: &DetokenizerOptions,
    ) -> Self {
        let mut start = table.start;
        for &token in prompt {
            if start == StartRule::Keep {
                break;
            }
            if !(options.skip_special && table.is_special(token)) {
                start.apply(table.bytes(token), |_| ());
            }
        }
        let pending = table.open_character(prompt, options.skip_special);
        Self {
            skip_special: options.skip_special,
            start,
            utf8: Utf8Stream { pending },
            stop: StopMatcher::new(&options.stop, options.include_stop),
            decoded: String::new(),
            table,
        }
    }

    /// Adds a token. After a stop string was met, nothing more comes.
    pub fn push(&mut self, token: TokenId) -> Piece {
        let mut piece = Piece::default();
        if self.stop.is_stopped() || (self.skip_special && self.table.is_special(token)) {
            return piece;
        }
        self.decoded.clear();
        let (utf8, decoded) = (&mut self.utf8, &mut self.decoded);
        self.start.apply(self.table.bytes(token), |bytes| utf8.push(bytes, decoded));
        piece.stopped = self.stop.push(&self.decoded, &mut piece.text);
        piece
    }

    /// The choice has ended: gives what was held back (an unfinished stop string; an incomplete
    /// UTF-8 sequence as U+FFFD).
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        if !self.stop.is_stopped() {
            let rest = self.utf8.finish();
            // A stop string may itself contain U+FFFD; then the text ends there as it should,
            // and the choice has ended anyway.
            self.stop.push(rest, &mut text);
            text.push_str(&self.stop.finish());
        }
        text
    }
}

impl Utf8Stream {
    /// Appends the characters that are complete to `out`.
    fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.pending.is_empty() {
            let rest = push_valid(bytes, out);
            self.pending.extend_from_slice(rest);
        } else {
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(bytes);
            let rest = push_valid(&joined, out);
            self.pending.extend_from_slice(rest);
        }
    }

    /// What stands for the character that never became complete.
    fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.pending).is_empty() { "" } else { "\u{FFFD}" }
    }
}

/// Appends the characters of `bytes` to `out`, U+FFFD for what cannot become one, and returns the
/// beginning of a character at the end.
fn push_valid<'a>(mut bytes: &'a [u8], out: &mut String) -> &'a [u8] {
    loop {
        match str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return &[];
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(valid));
                let Some(invalid) = error.error_len() else { return rest };
                out.push('\u{FFFD}');
                bytes = &rest[invalid..];
            }
        }
    }
}

#[cfg(test)]
mod tests;
