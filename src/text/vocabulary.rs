//! Tokenizer tables of a GGUF file to a `tokenizers` pipeline.

use std::collections::HashMap;

use serde_json::{Map, Value};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NFC, Prepend, Replace, Sequence as NormalizerSequence};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper};

use super::pre_tokenizer::Family;
use super::tokenizer::{Tokenizer, add_around, broken};
use super::{TextError, Vocabulary};

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

impl Vocabulary {
    /// Builds the tokenizer, and what `tokenizer_config.json` would say of it.
    pub(super) fn open(mut self) -> Result<(Tokenizer, Map<String, Value>), TextError> {
        self.check()?;
        let info = self.info()?;
        let mut pipeline = match self.model.as_str() {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentencepiece()?,
            other => {
                return Err(TextError::Tokenizer(format!(
                    "tokenizer.ggml.model: {other:?} is not supported; supported are \"gpt2\" \
                     (byte-level BPE) and \"llama\" (SentencePiece BPE)"
                )));
            }
        };
        let role = |role: &str| info.get(role).and_then(Value::as_str).map(str::to_owned);
        let flag = |flag: &str| info[flag] == Value::Bool(true);
        let bos = role("bos_token").filter(|_| flag("add_bos_token"));
        let eos = role("eos_token").filter(|_| flag("add_eos_token"));
        self.add_added_tokens(&mut pipeline, &info)?;
        add_around(&mut pipeline, bos, eos)?;
        Ok((Tokenizer::pipeline(pipeline)?, info))
    }

    /// Tables that belong together have the same length.
    fn check(&self) -> Result<(), TextError> {
        let count = self.tokens.len();
        let wrong = |table: &str, length: usize| {
            let message = format!(
                "tokenizer.ggml.{table} has {length} entries, and there are {count} tokens"
            );
            Err(TextError::Tokenizer(message))
        };
        if count == 0 {
            return wrong("tokens", 0);
        }
        if !self.types.is_empty() && self.types.len() != count {
            return wrong("token_type", self.types.len());
        }
        if self.model == "llama" && self.scores.len() != count {
            return wrong("scores", self.scores.len());
        }
        Ok(())
    }

    fn info(&self) -> Result<Map<String, Value>, TextError> {
        let mut info = Map::new();
        let roles = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ];
        for (role, id) in roles {
            let Some(id) = id else { continue };
            let token = self.tokens.get(id as usize).ok_or_else(|| {
                let count = self.tokens.len();
                TextError::Tokenizer(format!("{role} is {id}, and there are {count} tokens"))
            })?;
            info.insert(role.to_owned(), Value::from(token.as_str()));
        }
        let bos_by_default = match self.model.as_str() {
            "gpt2" => Family::named(self.pre.as_deref())?.add_bos,
            _ => true,
        };
        let add_bos = self.add_bos.unwrap_or(bos_by_default) && self.bos.is_some();
        let add_eos = self.add_eos.unwrap_or(false) && self.eos.is_some();
        info.insert("add_bos_token".to_owned(), Value::from(add_bos));
        info.insert("add_eos_token".to_owned(), Value::from(add_eos));
        if let Some(template) = &self.chat_template {
            info.insert("chat_template".to_owned(), Value::from(template.as_str()));
        }
        Ok(info)
    }

    fn byte_level(&mut self) -> Result<tokenizers::Tokenizer, TextError> {
        let family = Family::named(self.pre.as_deref())?;
        let ids = self.ids();
        let mut merges = Vec::with_capacity(self.merges.len());
        for merge in std::mem::take(&mut self.merges) {
            // The left part may start with a space, but neither part can hold one otherwise.
            let space = merge.char_indices().skip(1).find(|&(_, c)| c == ' ');
            let pair = space.map(|(at, _)| (merge[..at].to_owned(), merge[at + 1..].to_owned()));
            let known = |(left, right): &(String, String)| {
                ids.contains_key(left)
                    && ids.contains_key(right)
                    && ids.contains_key(&format!("{left}{right}"))
            };
            merges.push(pair.filter(known).ok_or_else(|| {
                let message =
                    format!("tokenizer.ggml.merges: {merge:?} is not two tokens that make a third");
                TextError::Tokenizer(message)
            })?);
        }
        let model = BPE::builder()
            .vocab_and_merges(ids.into_iter().collect::<HashMap<_, _, _>>(), merges)
            .ignore_merges(family.ignore_merges)
            .build()
            .map_err(broken)?;
        let mut pipeline = tokenizers::Tokenizer::new(model);
        if family.compose {
            pipeline.with_normalizer(Some(NFC)).map_err(broken)?;
        }
        pipeline.with_pre_tokenizer(Some(family.pre_tokenizer()?));
        pipeline.with_decoder(Some(ByteLevel::default()));
        Ok(pipeline)
    }

    fn sentencepiece(&self) -> Result<tokenizers::Tokenizer, TextError> {
        let merges = self.merges_by_score();
        let mut model = BPE::builder()
            .vocab_and_merges(self.ids().into_iter().collect::<HashMap<_, _, _>>(), merges)
            .fuse_unk(true)
            .byte_fallback(true);
        if let Some(unknown) = self.unknown.and_then(|id| self.tokens.get(id as usize)) {
            model = model.unk_token(unknown.clone());
        }
        let mut pipeline = tokenizers::Tokenizer::new(model.build().map_err(broken)?);
        let space_prefix = self.add_space_prefix.unwrap_or(true);
        let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
        let mut decoders: Vec<DecoderWrapper> = Vec::new();
        decoders.push(Replace::new("▁", " ").map_err(broken)?.into());
        decoders.push(ByteFallback::new().into());
        decoders.push(Fuse::new().into());
        if space_prefix {
            // Also after a special token, as llama.cpp and the older transformers tokenizers.
            normalizers.push(Prepend::new("▁".to_owned()).into());
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        normalizers.push(Replace::new(" ", "▁").map_err(broken)?.into());
        let normalizer = NormalizerSequence::new(normalizers);
        pipeline.with_normalizer(Some(normalizer)).map_err(broken)?;
        pipeline.with_decoder(Some(DecoderSequence::new(decoders)));
        Ok(pipeline)
    }

    /// SentencePiece merges the pair whose union has the best score; a BPE merges the pair that
    /// is first in its list. So the list is all splits of all tokens into two tokens, best score
    /// first (the same as `generate_merges` of `transformers`).
    fn merges_by_score(&self) -> Vec<(String, String)> {
        let normal =
            |id: usize| !matches!(self.type_of(id), UNKNOWN | CONTROL | USER_DEFINED | BYTE);
        let tokens = self.tokens.iter().enumerate().filter(|&(id, _)| normal(id));
        let ids: HashMap<&str, usize> = tokens.map(|(id, token)| (token.as_str(), id)).collect();
        let mut merges: Vec<(f32, usize, usize)> = Vec::new();
        for (&token, &id) in &ids {
            for (at, _) in token.char_indices().skip(1) {
                if let (Some(&left), Some(&right)) = (ids.get(&token[..at]), ids.get(&token[at..]))
                {
                    merges.push((self.scores[id], left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
        let token = |id: usize| self.tokens[id].clone();
        merges.into_iter().map(|(_, left, right)| (token(left), token(right))).collect()
    }

    /// Control and unknown tokens are special; user-defined ones are found in any text.
    fn add_added_tokens(
        &self,
        pipeline: &mut tokenizers::Tokenizer,
        info: &Map<String, Value>,
    ) -> Result<(), TextError> {
        let mut special = Vec::new();
        let mut user_defined = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let has_role = || {
                ["bos_token", "eos_token", "unk_token"]
                    .iter()
                    .any(|&r| info.get(r) == Some(&Value::from(token.as_str())))
            };
            match self.type_of(id) {
                CONTROL | UNKNOWN => special.push(AddedToken::from(token, true)),
                USER_DEFINED => user_defined.push(AddedToken::from(token, false).normalized(false)),
                _ if self.types.is_empty() && has_role() => {
                    special.push(AddedToken::from(token, true))
                }
                _ => {}
            }
        }
        pipeline.add_special_tokens(special).map_err(broken)?;
        pipeline.add_tokens(user_defined).map_err(broken)?;
        Ok(())
    }

    /// The first of tokens with the same string has its id.
    fn ids(&self) -> HashMap<String, u32> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            ids.entry(token.clone()).or_insert(id as u32);
        }
        ids
    }

    fn type_of(&self, id: usize) -> i32 {
        self.types.get(id).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests;
