//! Which bytes a token stands for, read off the `decoder` of a `tokenizer.json`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::TextError;
use super::detokenize::StartRule;

/// A decoder as what it does to each token alone, plus what it does at the start of a text.
///
/// Differs from the `tokenizers` crate in one place: a run of byte tokens that is no valid UTF-8
/// becomes U+FFFD only where it is invalid, not for each of its bytes, because the latter would
/// mean to hold back every run of byte tokens until it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenDecoder {
    steps: Vec<Step>,
    start: StartRule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Replace { pattern: String, content: String },
    ByteFallback,
    ByteLevel,
    Strip { content: char, start: usize, stop: usize },
    PrependSpace,
}

const SUPPORTED: &str = "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Sequence, Strip";

/// The GPT-2 table: printable characters that stand for bytes, among them `Ġ` for a space.
static BYTE_OF_CHAR: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let mut next = 256;
    let chars = (0..=255u8).map(|byte| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => (char::from(byte), byte),
        _ => {
            next += 1;
            (char::from_u32(next - 1).expect("256..324 are characters"), byte)
        }
    });
    chars.collect()
});

impl TokenDecoder {
    /// Reads the `decoder` field; `null` joins tokens with spaces, as `tokenizers` does.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] for decoders whose effect on a token depends on later ones.
    pub(super) fn new(decoder: &Value) -> Result<Self, TextError> {
        let mut this = Self::default();
        if decoder.is_null() {
            this.steps.push(Step::PrependSpace);
            this.start = StartRule::Strip(1);
        } else {
            this.read(decoder, &mut false)?;
        }
        Ok(this)
    }

    /// What happens at the start of a text.
    pub(super) fn start(&self) -> StartRule {
        self.start
    }

    /// The bytes of a token inside a text.
    pub(super) fn bytes(&self, token: &str) -> Vec<u8> {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                Step::Replace { pattern, content } => text = text.replace(pattern, content),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel => {
                    let bytes = text.chars().map(|c| BYTE_OF_CHAR.get(&c).copied());
                    return bytes.collect::<Option<_>>().unwrap_or_else(|| text.into_bytes());
                }
                Step::Strip { content, start, stop } => {
                    text = strip(&text, *content, *start, *stop).to_owned();
                }
                Step::PrependSpace => text.insert(0, ' '),
            }
        }
        text.into_bytes()
    }

    fn read(&mut self, decoder: &Value, fused: &mut bool) -> Result<(), TextError> {
        let kind = decoder["type"].as_str().unwrap_or("without a type");
        match kind {
            "Sequence" => {
                for part in decoder["decoders"].as_array().into_iter().flatten() {
                    self.read(part, fused)?;
                }
            }
            "Fuse" => *fused = true,
            "ByteLevel" => {
                self.steps.push(Step::ByteLevel);
                *fused = true;
            }
            "ByteFallback" => self.steps.push(Step::ByteFallback),
            "Replace" => {
                let pattern = decoder["pattern"]["String"].as_str();
                let (Some(pattern), Some(content)) = (pattern, decoder["content"].as_str()) else {
                    return Err(unsupported("Replace with a regular expression"));
                };
                self.steps.push(Step::Replace { pattern: pattern.into(), content: content.into() });
            }
            "Strip" => self.read_strip(decoder, *fused)?,
            "Metaspace" => {
                let pattern = decoder["replacement"].as_str().unwrap_or("▁").to_owned();
                self.steps.push(Step::Replace { pattern, content: " ".to_owned() });
                let never = decoder["prepend_scheme"] == "never"
                    || decoder["add_prefix_space"] == Value::Bool(false);
                if !never {
                    self.start = StartRule::StripFirstToken;
                }
            }
            other => return Err(unsupported(other)),
        }
        Ok(())
    }

    fn read_strip(&mut self, decoder: &Value, fused: bool) -> Result<(), TextError> {
        let content = decoder["content"].as_str().and_then(|s| s.chars().next()).unwrap_or(' ');
        let count = |name: &str| decoder[name].as_u64().unwrap_or(0) as usize;
        let (start, stop) = (count("start"), count("stop"));
        if !fused {
            self.steps.push(Step::Strip { content, start, stop });
        } else if content == ' ' && stop == 0 {
            self.start = StartRule::Strip(start);
        } else {
            return Err(unsupported("Strip at the end of a text"));
        }
        Ok(())
    }
}

/// The byte that SentencePiece's `<0x0A>` stands for.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || hex.starts_with('+') {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

fn strip(text: &str, content: char, start: usize, stop: usize) -> &str {
    let mut rest = text;
    for _ in 0..start {
        rest = rest.strip_prefix(content).unwrap_or(rest);
    }
    for _ in 0..stop {
        rest = rest.strip_suffix(content).unwrap_or(rest);
    }
    rest
}

fn unsupported(what: &str) -> TextError {
    TextError::Tokenizer(format!(
        "tokenizer.json: the decoder {what} is not supported; supported are {SUPPORTED}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn byte_level_tokens_are_the_bytes_they_stand_for() {
        let decoder = TokenDecoder::new(&json!({"type": "ByteLevel"})).unwrap();
        assert_eq!(decoder.bytes("ĠHello"), b" Hello");
        assert_eq!(decoder.bytes("Ċ"), b"\n");
        assert_eq!(decoder.bytes("âĤ"), [0xE2, 0x82]);
        // Not made of such characters: itself.
        assert_eq!(decoder.bytes("<｜end｜>"), "<｜end｜>".as_bytes());
        assert_eq!(BYTE_OF_CHAR.len(), 256);
    }

    #[test]
    fn sentencepiece_tokens_have_spaces_and_bytes() {
        let decoder = TokenDecoder::new(&json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}))
        .unwrap();
        assert_eq!(decoder.bytes("▁▁a"), b"  a");
        assert_eq!(decoder.bytes("<0xE2>"), [0xE2]);
        assert_eq!(decoder.bytes("<0xZZ>"), b"<0xZZ>");
        assert_eq!(decoder.start(), StartRule::Strip(1));
    }

    #[test]
    fn an_unknown_decoder_is_refused_by_name() {
        let error = TokenDecoder::new(&json!({"type": "WordPiece"})).unwrap_err().to_string();
        assert!(error.contains("WordPiece") && error.contains("ByteLevel"), "{error}");
    }
}
