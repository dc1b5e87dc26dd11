//! Text to tokens: a `tokenizers` pipeline, or bytes.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use serde_json::{Map, Value};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::tokenizer::{Model, OffsetReferential, OffsetType, PreTokenizer};
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper};

use super::TextError;
use super::decoder::TokenDecoder;
use super::detokenize::{StartRule, TokenTable};
use crate::ids::TokenId;

/// Turns text into tokens and knows the bytes of each token.
#[derive(Debug)]
pub(super) struct Tokenizer {
    encoder: Encoder,
    table: Arc<TokenTable>,
    /// Strings of the special tokens.
    special: Vec<String>,
    /// What the post-processor adds before and after a text.
    before: Vec<TokenId>,
    after: Vec<TokenId>,
    /// At most how many bytes of text become one byte of a token, or `None` if unbounded.
    shrink: Option<usize>,
    /// No token holds this character behind another one, so it can start a new word.
    word_start: Option<char>,
}

#[derive(Debug)]
enum Encoder {
    /// Each byte is a token.
    Bytes,
    Pipeline(Box<tokenizers::Tokenizer>),
}

/// Special tokens by role (`bos_token` …), as templates see them.
pub(super) type SpecialRoles = Map<String, Value>;

const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Tokenizer {
    /// Bytes as tokens 0 to 255; ids up to `vocab_size` have no text.
    pub(super) fn bytes(vocab_size: u32) -> Self {
        let mut table = TokenTable::new(StartRule::Keep);
        for id in 0..vocab_size {
            table.push(u8::try_from(id).as_ref().map_or(&[], std::slice::from_ref), false);
        }
        Self {
            encoder: Encoder::Bytes,
            table: Arc::new(table),
            special: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            shrink: Some(1),
            word_start: None,
        }
    }

    /// Reads `tokenizer.json` and what `tokenizer_config.json` adds to it.
    pub(super) fn hugging_face(
        tokenizer_json: &[u8],
        config: &Map<String, Value>,
        roles: &SpecialRoles,
    ) -> Result<Self, TextError> {
        // The crate panics on some malformed files, such as merges that make no token.
        let read = panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(tokenizer_json));
        let read = read.unwrap_or_else(|_| Err("it is malformed".into()));
        let mut pipeline =
            read.map_err(|error| TextError::Tokenizer(format!("tokenizer.json: {error}")))?;
        add_configured_tokens(&mut pipeline, config, roles)?;
        set_post_processor(&mut pipeline, config, roles)?;
        Self::pipeline(pipeline)
    }

    /// Takes a finished pipeline.
    pub(super) fn pipeline(mut pipeline: tokenizers::Tokenizer) -> Result<Self, TextError> {
        // A tokenizer.json saved after training may cut or pad every text.
        pipeline.with_truncation(None).map_err(broken)?;
        pipeline.with_padding(None);
        let json = |error| TextError::Tokenizer(format!("tokenizer.json: {error}"));
        let decoder = serde_json::to_value(pipeline.get_decoder()).map_err(json)?;
        let normalizer = serde_json::to_value(pipeline.get_normalizer()).map_err(json)?;
        let decoder = TokenDecoder::new(&decoder)?;

        let added = pipeline.get_added_tokens_decoder();
        let model: HashMap<u32, String> =
            pipeline.get_vocab(false).into_iter().map(|(token, id)| (id, token)).collect();
        let ids = model.keys().chain(added.keys());
        let vocab_size = ids.max().map_or(0, |&id| id as usize + 1);
        // Ids come from a file, and a table with one far away would not fit in memory.
        if vocab_size > 4 * (model.len() + added.len()) + 65_536 {
            return Err(TextError::Tokenizer(format!(
                "tokenizer.json: token id {} of {} tokens",
                vocab_size - 1,
                model.len() + added.len()
            )));
        }
        let mut table = TokenTable::new(decoder.start());
        for id in 0..vocab_size as u32 {
            let bytes = pipeline.id_to_token(id).map(|token| decoder.bytes(&token));
            let special = added.get(&id).is_some_and(|token| token.special);
            table.push(&bytes.unwrap_or_default(), special);
        }
        let special = added.values().filter(|token| token.special);
        let strips = added.values().any(|token| token.lstrip || token.rstrip);
        let model_keeps_bytes = keeps_bytes(&pipeline);
        let (before, after) = affixes(&pipeline)?;
        Ok(Self {
            special: special.map(|token| token.content.clone()).collect(),
            shrink: shrink(&normalizer).filter(|_| !strips && model_keeps_bytes),
            word_start: word_start(&pipeline),
            table: Arc::new(table),
            before,
            after,
            encoder: Encoder::Pipeline(Box::new(pipeline)),
        })
    }

    /// The bytes of each token.
    pub(super) fn table(&self) -> &Arc<TokenTable> {
        &self.table
    }

    /// Strings of the special tokens.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        self.special.iter().map(String::as_str)
    }

    /// The token with this string.
    pub(super) fn id_of(&self, token: &str) -> Option<TokenId> {
        match &self.encoder {
            Encoder::Bytes => None,
            Encoder::Pipeline(pipeline) => pipeline.token_to_id(token).map(TokenId),
        }
    }

    /// At least how many tokens a text of this many bytes has; 0 where nothing can be said.
    pub(super) fn min_tokens(&self, bytes: usize) -> usize {
        let per_token = self.shrink.map(|shrink| shrink * self.table.longest_bytes());
        per_token.filter(|&bytes| bytes > 0).map_or(0, |per_token| bytes.div_ceil(per_token))
    }

    /// Tokens of a text; special tokens in it are tokens.
    pub(super) fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<TokenId>, TextError> {
        let ids = self.encode_marked(text, None)?;
        if !add_special_tokens || (self.before.is_empty() && self.after.is_empty()) {
            return Ok(ids);
        }
        Ok([&self.before[..], &ids, &self.after].concat())
    }

    /// Tokens of a text in which `mark` breaks what must not be a special token; the mark itself
    /// gives no token.
    pub(super) fn encode_marked(
        &self,
        text: &str,
        mark: Option<char>,
    ) -> Result<Vec<TokenId>, TextError> {
        match &self.encoder {
            Encoder::Bytes => match mark {
                Some(mark) => self.encode_bytes(&text.replace(mark, "")),
                None => self.encode_bytes(text),
            },
            // Oniguruma gives up on some texts (ten million steps for one match), and its binding
            // panics then. Nothing is left half done: the pipeline is not changed by its use.
            Encoder::Pipeline(pipeline) => {
                let ids = AssertUnwindSafe(|| pipeline_ids(pipeline, text, mark, self.word_start));
                panic::catch_unwind(ids).unwrap_or(Err(TextError::Untokenizable))
            }
        }
    }

    fn encode_bytes(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        let vocab_size = self.table.len();
        let id = |byte: u8| match u32::from(byte) {
            id if id < vocab_size => Ok(TokenId(id)),
            id => Err(TextError::UnknownToken { id, vocab_size }),
        };
        text.bytes().map(id).collect()
    }
}

/// The special tokens of `tokenizer_config.json`, filled up from `special_tokens_map.json`.
pub(super) fn special_roles(config: &Map<String, Value>, map: &Map<String, Value>) -> SpecialRoles {
    let mut roles = SpecialRoles::new();
    for role in ROLES {
        let token = config.get(role).and_then(token_string);
        if let Some(token) = token.or_else(|| map.get(role).and_then(token_string)) {
            roles.insert(role.to_owned(), Value::from(token));
        }
    }
    let additional = config.get("additional_special_tokens");
    if let Some(Value::Array(tokens)) = additional.or(map.get("additional_special_tokens")) {
        let tokens: Vec<&str> = tokens.iter().filter_map(token_string).collect();
        roles.insert("additional_special_tokens".to_owned(), Value::from(tokens));
    }
    roles
}

/// A token as a string, or as an object with a `content`.
fn token_string(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Adds the tokens that only `tokenizer_config.json` knows, and makes the tokens that have a role
/// special, as `transformers` does.
fn add_configured_tokens(
    pipeline: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    roles: &SpecialRoles,
) -> Result<(), TextError> {
    let known = pipeline.get_added_tokens_decoder();
    let mut configured: Vec<(u32, AddedToken)> = Vec::new();
    for (id, token) in
        config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten()
    {
        let wrong = || {
            let message = format!("tokenizer_config.json: added_tokens_decoder has {id}: {token}");
            TextError::Tokenizer(message)
        };
        let number: u32 = id.parse().map_err(|_| wrong())?;
        if known.contains_key(&number) {
            continue;
        }
        let flag = |name: &str| token.get(name).and_then(Value::as_bool);
        let special = flag("special").unwrap_or(false);
        let added = AddedToken::from(token_string(token).ok_or_else(wrong)?, special)
            .normalized(flag("normalized").unwrap_or(!special))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .single_word(flag("single_word").unwrap_or(false));
        configured.push((number, added));
    }
    configured.sort_by_key(|(id, _)| *id);
    for (id, token) in configured {
        let content = token.content.clone();
        pipeline.add_tokens([token]).map_err(broken)?;
        let got = pipeline.token_to_id(&content);
        if got != Some(id) {
            return Err(TextError::Tokenizer(format!(
                "tokenizer_config.json gives {content:?} the id {id}, tokenizer.json {got:?}"
            )));
        }
    }
    let mut with_role: Vec<&str> = Vec::new();
    for value in roles.values() {
        match value {
            Value::Array(tokens) => with_role.extend(tokens.iter().filter_map(Value::as_str)),
            token => with_role.extend(token.as_str()),
        }
    }
    let known = pipeline.get_added_vocabulary().get_vocab().clone();
    with_role.retain(|token| !known.contains_key(*token) && pipeline.token_to_id(token).is_some());
    let special = with_role.into_iter().map(|token| AddedToken::from(token, true));
    pipeline.add_special_tokens(special.collect::<Vec<_>>()).map_err(broken)?;
    Ok(())
}

/// Some tokenizer classes of `transformers` replace the post-processor of `tokenizer.json` by one
/// that follows `add_bos_token` and `add_eos_token`; all others ignore these fields.
fn set_post_processor(
    pipeline: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    roles: &SpecialRoles,
) -> Result<(), TextError> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let bos_by_default = match class.trim_end_matches("Fast") {
        "LlamaTokenizer" | "GemmaTokenizer" | "CodeLlamaTokenizer" | "CohereTokenizer" => true,
        "GPTNeoXTokenizer" => false,
        _ => return Ok(()),
    };
    let flag = |name: &str, default| config.get(name).and_then(Value::as_bool).unwrap_or(default);
    let token = |role: &str| roles.get(role).and_then(Value::as_str).map(str::to_owned);
    let bos = token("bos_token").filter(|_| flag("add_bos_token", bos_by_default));
    let eos = token("eos_token").filter(|_| flag("add_eos_token", false));
    add_around(pipeline, bos, eos)
}

/// Makes the post-processor add a token before and one after each text.
pub(super) fn add_around(
    pipeline: &mut tokenizers::Tokenizer,
    bos: Option<String>,
    eos: Option<String>,
) -> Result<(), TextError> {
    // The template names tokens by itself, so that their strings may hold spaces.
    let mut template = Vec::new();
    let mut special = Vec::new();
    for (name, token) in [("bos", &bos), ("", &None), ("eos", &eos)] {
        if name.is_empty() {
            template.push("$A:0".to_owned());
        } else if let Some(token) = token {
            let id = pipeline.token_to_id(token).ok_or_else(|| {
                let message = format!("the {name} token {token:?} is not in the vocabulary");
                TextError::Tokenizer(message)
            })?;
            template.push(format!("{name}:0"));
            special.push((name.to_owned(), id));
        }
    }
    let processor = TemplateProcessing::builder()
        .try_single(template)
        .map_err(TextError::Tokenizer)?
        .special_tokens(special)
        .build()
        .map_err(|error| TextError::Tokenizer(error.to_string()))?;
    pipeline.with_post_processor(Some(processor));
    Ok(())
}

/// What `tokenizers::Tokenizer::encode` does without a post-processor, with two steps more: the
/// mark is dropped after the search for special tokens, and what is left is cut into words where
/// that changes no token.
fn pipeline_ids(
    pipeline: &tokenizers::Tokenizer,
    text: &str,
    mark: Option<char>,
    word_start: Option<char>,
) -> Result<Vec<TokenId>, TextError> {
    let added = pipeline.get_added_vocabulary();
    let mut parts = added.extract_and_normalize(pipeline.get_normalizer(), text);
    if let Some(mark) = mark {
        let unmarked = parts.split(|_, mut part| {
            if part.get().contains(mark) {
                part.replace(mark, "")?;
            }
            Ok([part])
        });
        unmarked.map_err(broken)?;
    }
    if let Some(pre_tokenizer) = pipeline.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut parts).map_err(broken)?;
    }
    let mut ids = Vec::new();
    for (part, _, tokens) in parts.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
        match tokens {
            Some(tokens) => ids.extend(tokens.iter().map(|token| TokenId(token.id))),
            None => {
                for word in words(part, word_start) {
                    let tokens = pipeline.get_model().tokenize(word).map_err(broken)?;
                    ids.extend(tokens.iter().map(|token| TokenId(token.id)));
                }
            }
        }
    }
    Ok(ids)
}

/// The character that SentencePiece writes for a space, if no token of the vocabulary holds it
/// behind another character. A merge across such a place would make a token that holds it there,
/// so words can be merged one by one, which is faster than the whole text at once: most words are
/// in the cache of the model.
fn word_start(pipeline: &tokenizers::Tokenizer) -> Option<char> {
    const SPACE: char = '▁';
    let ModelWrapper::BPE(bpe) = pipeline.get_model() else { return None };
    let whole_words = bpe.ignore_merges
        || bpe.dropout.is_some()
        || bpe.continuing_subword_prefix.is_some()
        || bpe.end_of_word_suffix.is_some();
    let vocab = bpe.get_vocab();
    let starts_words = |token: &String| words(token, Some(SPACE)).count() == 1;
    let fits = !whole_words && vocab.contains_key("▁") && vocab.keys().all(starts_words);
    fits.then_some(SPACE)
}

/// Cuts before each `start` that follows another character.
fn words(text: &str, start: Option<char>) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = start.and_then(|start| {
            let body = rest.trim_start_matches(start);
            body.find(start).map(|at| rest.len() - body.len() + at)
        });
        let (word, left) = rest.split_at(end.unwrap_or(rest.len()));
        rest = left;
        Some(word)
    })
}

/// What the post-processor adds before and after a text.
fn affixes(pipeline: &tokenizers::Tokenizer) -> Result<(Vec<TokenId>, Vec<TokenId>), TextError> {
    let encode = |probe: &str, add_special_tokens| {
        let encoding = pipeline.encode_fast(probe, add_special_tokens).map_err(broken)?;
        Ok(encoding.get_ids().iter().copied().map(TokenId).collect::<Vec<_>>())
    };
    for probe in ["a", "0", "."] {
        let (plain, full) = (encode(probe, false)?, encode(probe, true)?);
        if plain.is_empty() {
            continue;
        }
        let start = full.windows(plain.len()).position(|window| window == plain);
        return match start {
            Some(start) => Ok((full[..start].to_vec(), full[start + plain.len()..].to_vec())),
            None => {
                let message = "tokenizer.json: the post-processor changes the tokens of a text";
                Err(TextError::Tokenizer(message.to_owned()))
            }
        };
    }
    Ok((encode("", true)?, Vec::new()))
}

/// Whether each byte of a text is in exactly one token: not if unknown characters are fused.
fn keeps_bytes(pipeline: &tokenizers::Tokenizer) -> bool {
    let ModelWrapper::BPE(bpe) = pipeline.get_model() else { return false };
    let byte_level = |pre: &PreTokenizerWrapper| matches!(pre, PreTokenizerWrapper::ByteLevel(_));
    bpe.byte_fallback
        || pipeline.get_pre_tokenizer().is_some_and(|pre| match pre {
            PreTokenizerWrapper::Sequence(parts) => parts.as_ref().iter().any(byte_level),
            other => byte_level(other),
        })
}

/// At most how many bytes of text a normalizer turns into one byte.
fn shrink(normalizer: &Value) -> Option<usize> {
    match normalizer["type"].as_str() {
        None if normalizer.is_null() => Some(1),
        Some("Prepend") => Some(1),
        // U+212A (three bytes) becomes K, and three Hangul jamo (nine) one syllable (three).
        Some("NFC") => Some(3),
        Some("Replace") => {
            let from = normalizer["pattern"]["String"].as_str()?;
            let to = normalizer["content"].as_str()?;
            (to.len() >= from.len()).then_some(1)
        }
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array()?;
            parts.iter().try_fold(1, |total, part| Some(total * shrink(part)?))
        }
        _ => None,
    }
}

pub(super) fn broken(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer(format!("the tokenizer failed: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_start_at_a_space_behind_something_else() {
        let cut = |text| words(text, Some('▁')).collect::<Vec<_>>();
        assert_eq!(cut("▁a▁▁bc▁"), ["▁a", "▁▁bc", "▁"]);
        assert_eq!(cut("▁▁"), ["▁▁"]);
        assert!(cut("").is_empty());
        assert_eq!(words("a▁b", None).count(), 1);
    }

    proptest! {
        #[test]
        fn words_have_the_tokens_of_the_whole_text(
            text in "([ \n]{0,3}(the|river|flows|wátér|日本|▁|a|[!-~]{1,4}|<s>)){0,12}",
        ) {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/text/spm-legacy");
            let pipeline = tokenizers::Tokenizer::from_file(format!("{folder}/tokenizer.json"));
            let pipeline = pipeline.unwrap();
            let start = word_start(&pipeline);
            prop_assert!(start.is_some());
            let whole = pipeline_ids(&pipeline, &text, None, None).unwrap();
            prop_assert_eq!(pipeline_ids(&pipeline, &text, None, start).unwrap(), whole);
        }
    }
}
