//! The tokenizer tables of a GGUF file, as plain data.

use super::contents::Contents;
use super::metadata::Metadata;
use crate::model::ModelError;

/// Longest chat template; the longest published ones have 20 KB.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;
/// Longest name of a tokenizer kind.
const NAME_BYTES_MAX: u64 = 256;
/// Texts of tokens that end a turn in the supported families. Files name one end token, yet chat
/// models of several families stop at another; llama.cpp goes by these texts too.
const END_TEXTS: [&str; 7] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
];
const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;

/// Tokenizer tables as a GGUF file has them (`tokenizer.ggml.*`), for the text room's tokenizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `model`: "gpt2" (byte-level BPE) or "llama" (SentencePiece with byte fallback).
    pub model: String,
    /// `pre`: which pre-tokenizer a byte-level BPE uses.
    pub pre: Option<String>,
    /// `tokens`.
    pub tokens: Vec<String>,
    /// `scores` (SentencePiece).
    pub scores: Vec<f32>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub types: Vec<i32>,
    /// `merges` (BPE), "left right".
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
    /// `padding_token_id`.
    pub padding: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// Reads the tables; `None` when the file has no tokens.
///
/// # Errors
/// [`ModelError::File`] naming the key of the wrong type or size.
pub(super) fn read(contents: &Contents) -> Result<Option<GgufVocabulary>, ModelError> {
    let metadata = &contents.metadata;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let Some(tokens) = metadata.strings(&key("tokens"))? else { return Ok(None) };
    let model = metadata.string(&key("model"), NAME_BYTES_MAX)?;
    let Some(model) = model else {
        return Err(metadata.fail(&key("model"), "is missing, though there are tokens"));
    };
    let vocabulary = GgufVocabulary {
        model,
        pre: metadata.string(&key("pre"), NAME_BYTES_MAX)?,
        scores: metadata.f32s(&key("scores"))?.unwrap_or_default(),
        types: metadata.i32s(&key("token_type"))?.unwrap_or_default(),
        merges: metadata.strings(&key("merges"))?.unwrap_or_default(),
        bos: metadata.u32(&key("bos_token_id"))?,
        eos: metadata.u32(&key("eos_token_id"))?,
        unknown: metadata.u32(&key("unknown_token_id"))?,
        padding: metadata.u32(&key("padding_token_id"))?,
        add_bos: metadata.bool(&key("add_bos_token"))?,
        add_eos: metadata.bool(&key("add_eos_token"))?,
        add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
        chat_template: metadata.string("tokenizer.chat_template", TEMPLATE_BYTES_MAX)?,
        tokens,
    };
    check(contents, &vocabulary)?;
    Ok(Some(vocabulary))
}

/// The tables have to fit each other and the embedding table.
fn check(contents: &Contents, vocabulary: &GgufVocabulary) -> Result<(), ModelError> {
    let metadata = &contents.metadata;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let count = vocabulary.tokens.len();
    let rows = contents.shape("token_embd.weight").and_then(<[usize]>::first);
    if let Some(rows) = rows.filter(|&&rows| rows != count) {
        let reason = format!("has {count} tokens, but token_embd.weight has {rows} rows");
        return Err(metadata.fail(&key("tokens"), reason));
    }
    for (name, len) in [("scores", vocabulary.scores.len()), ("token_type", vocabulary.types.len())]
    {
        if len != 0 && len != count {
            let reason = format!("has {len} values, expected one for each of {count} tokens");
            return Err(metadata.fail(&key(name), reason));
        }
    }
    for (name, id) in [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("unknown_token_id", vocabulary.unknown),
        ("padding_token_id", vocabulary.padding),
    ] {
        if let Some(id) = id.filter(|&id| id as usize >= count) {
            let reason = format!("is {id}, expected a token below {count}");
            return Err(metadata.fail(&key(name), reason));
        }
    }
    Ok(())
}

/// Every token that ends a sequence, ascending: those that the file names, and those known to end
/// a turn by their text.
///
/// # Errors
/// [`ModelError::File`] for a key of the wrong type.
pub(super) fn end_tokens(
    metadata: &Metadata,
    vocabulary: Option<&GgufVocabulary>,
) -> Result<Vec<u32>, ModelError> {
    let mut ids = Vec::new();
    for name in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        ids.extend(metadata.u32(&format!("tokenizer.ggml.{name}"))?);
    }
    if let Some(GgufVocabulary { tokens, types, .. }) = vocabulary {
        let named = (0_u32..).zip(tokens.iter().zip(types));
        ids.extend(named.filter_map(|(id, (text, kind))| {
            let special = matches!(*kind, TYPE_CONTROL | TYPE_USER_DEFINED);
            (special && END_TEXTS.contains(&text.as_str())).then_some(id)
        }));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
