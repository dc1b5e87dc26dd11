//! Strings to tokens and back: tokenizer, chat templates, incremental detokenising, stop strings.
//! Pure computation; knows neither tenants nor HTTP.

use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::ids::TokenId;

mod decoder;
mod detokenize;
mod mark;
mod pre_tokenizer;
mod python;
mod stop;
mod template;
mod tokenizer;
mod vocabulary;

pub use detokenize::Detokenizer;
use mark::SpecialStrings;
use template::ChatTemplate;
use tokenizer::Tokenizer;

/// Why text could not be turned into tokens, or the other way round.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TextError {
    /// The model's files have no usable tokenizer.
    #[error("{0}")]
    Tokenizer(String),
    /// The model has no chat template, so chat requests cannot be rendered.
    #[error("the model has no chat template; use /v1/completions, or start with --chat-template")]
    NoTemplate,
    /// The template refused the messages (`raise_exception`) or failed on them.
    #[error("the model's chat template refuses these messages: {0}")]
    Template(String),
    /// Rendering needed more than the configured fuel or output size.
    #[error("rendering the chat template took more than its limit of {limit} {what}")]
    TemplateLimit {
        /// What ran out: "instructions" or "bytes".
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A text that the tokenizer's regular expressions give up on.
    #[error(
        "the tokenizer gives up on this text; it may hold a very long run of one kind of character"
    )]
    Untokenizable,
    /// A token id that is not in the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Ids are below this.
        vocab_size: u32,
    },
}

/// Where the tokenizer comes from.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// Hugging Face layout: the contents of the files.
    HuggingFace {
        /// `tokenizer.json`.
        tokenizer_json: Vec<u8>,
        /// `tokenizer_config.json`, if there is one.
        tokenizer_config: Option<Vec<u8>>,
        /// `special_tokens_map.json`, if there is one.
        special_tokens_map: Option<Vec<u8>>,
        /// `chat_template.jinja` (or `.json`'s field), if there is one.
        chat_template: Option<String>,
    },
    /// The vocabulary inside a GGUF file.
    Vocabulary(Box<Vocabulary>),
    /// Bytes as tokens 0–255 and the rest unused; for models without a tokenizer
    /// (`--load-format dummy` with nothing but a `config.json`).
    Bytes {
        /// The model's vocabulary size.
        vocab_size: u32,
    },
}

/// Tokenizer tables as a GGUF file has them (`tokenizer.ggml.*`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
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

/// Bounds of the work that a request's text may cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimits {
    /// Template instructions (minijinja fuel).
    pub template_fuel: u64,
    /// Bytes of a rendered prompt.
    pub rendered_bytes_max: u64,
}

/// Messages and settings for the chat template.
#[derive(Clone, Debug, Default)]
pub struct ChatInput {
    /// The messages as JSON objects, as the template sees them.
    pub messages: Vec<Value>,
    /// Tool definitions as JSON, if any.
    pub tools: Option<Vec<Value>>,
    /// Ask for the header of an assistant message at the end.
    pub add_generation_prompt: bool,
    /// Leave the last message open, so that the model continues it.
    pub continue_final_message: bool,
    /// Further template variables (`chat_template_kwargs`).
    pub kwargs: Map<String, Value>,
    /// Now, in seconds since 1970, for `strftime_now`.
    pub unix_s: u64,
}

/// A rendered prompt. Special tokens that stood in message contents are still marked as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt with marks.
    text: String,
    /// The character that breaks special tokens in message contents, if there is any.
    mark: Option<char>,
}

/// How a [`Detokenizer`] treats its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetokenizerOptions {
    /// The output ends before the first of these; none is empty.
    pub stop: Vec<String>,
    /// The stop string that was met is part of the text.
    pub include_stop: bool,
    /// Special tokens give no text.
    pub skip_special: bool,
}

/// What a token added to a choice's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is final: valid UTF-8, and no part of it can still become a stop string.
    pub text: String,
    /// Index of the stop string that ended the choice, if one did.
    pub stopped: Option<usize>,
}

/// A model's tokenizer and chat template. Shared by all requests.
#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    eos: Option<TokenId>,
    info: Map<String, Value>,
}

impl Text {
    /// Reads a tokenizer. `template` overrides the model's own chat template.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] or [`TextError::Template`] naming what is wrong in which file.
    pub fn open(
        source: TokenizerSource,
        template: Option<String>,
        limits: TextLimits,
    ) -> Result<Self, TextError> {
        let (tokenizer, mut info, own_template) = match source {
            TokenizerSource::HuggingFace {
                tokenizer_json,
                tokenizer_config,
                special_tokens_map,
                chat_template,
            } => {
                let mut info = parse_object("tokenizer_config.json", tokenizer_config)?;
                let map = parse_object("special_tokens_map.json", special_tokens_map)?;
                let roles = tokenizer::special_roles(&info, &map);
                let tokenizer = Tokenizer::hugging_face(&tokenizer_json, &info, &roles)?;
                info.extend(roles);
                (tokenizer, info, chat_template)
            }
            TokenizerSource::Vocabulary(vocabulary) => {
                let (tokenizer, info) = vocabulary.open()?;
                (tokenizer, info, None)
            }
            TokenizerSource::Bytes { vocab_size } => {
                (Tokenizer::bytes(vocab_size), Map::new(), None)
            }
        };
        if let Some(source) = template.or(own_template) {
            info.insert("chat_template".to_owned(), Value::from(source));
        }
        let roles = tokenizer::special_roles(&info, &Map::new());
        let eos = roles.get("eos_token").and_then(Value::as_str);
        let eos = eos.and_then(|token| tokenizer.id_of(token));
        let template = match info.get("chat_template") {
            None | Some(Value::Null) => None,
            Some(source) => {
                let special = SpecialStrings::new(tokenizer.special());
                Some(ChatTemplate::new(source, roles, special, limits)?)
            }
        };
        Ok(Self { tokenizer, template, eos, info })
    }

    /// Ids are below this; may be smaller than the model's logits row.
    pub fn vocab_size(&self) -> u32 {
        self.tokenizer.table().len()
    }

    /// The tokenizer's own end-of-sequence token.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// `tokenizer_config.json` (or its equivalent made from a GGUF file), for `/tokenizer_info`.
    pub fn info(&self) -> Map<String, Value> {
        self.info.clone()
    }

    /// Bytes of the longest token.
    pub fn longest_token_bytes(&self) -> usize {
        self.tokenizer.table().longest_bytes()
    }

    /// At least how many tokens a text of `bytes` bytes has, so that a text that is far too long
    /// can be refused before it is tokenised. 0 where nothing can be said: the tokenizer may drop
    /// characters, or make one unknown token of many.
    pub fn min_tokens(&self, bytes: usize) -> usize {
        self.tokenizer.min_tokens(bytes)
    }

    /// Renders messages with the chat template. Contents may be strings or lists of parts; where
    /// the template reads strings only, text parts are joined by newlines. Values may hold the
    /// strings of special tokens, which then stay text, unlike those that the template writes.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`], [`TextError::Template`], [`TextError::TemplateLimit`].
    pub fn render(&self, chat: &ChatInput) -> Result<Rendered, TextError> {
        self.template.as_ref().ok_or(TextError::NoTemplate)?.render(chat)
    }

    /// Tokens of a rendered prompt: special tokens of the template are tokens, those inside
    /// message contents are text. No special token is added.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<TokenId>, TextError> {
        self.tokenizer.encode_marked(&rendered.text, rendered.mark)
    }

    /// Tokens of plain text. `add_special_tokens` adds what the tokenizer's post-processor adds
    /// (a BOS, for most); special tokens inside `text` are tokens (as in every peer's
    /// `/v1/completions`).
    ///
    /// # Errors
    /// [`TextError`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<TokenId>, TextError> {
        self.tokenizer.encode(text, add_special_tokens)
    }

    /// Text of tokens; invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn decode(&self, tokens: &[TokenId], skip_special: bool) -> Result<String, TextError> {
        self.tokenizer.table().decode(tokens, skip_special)
    }

    /// The bytes that a token stands for inside a text; empty for ids without text.
    pub fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.tokenizer.table().bytes(token).to_vec()
    }

    /// Whether the token is a special one (control token).
    pub fn is_special(&self, token: TokenId) -> bool {
        self.tokenizer.table().is_special(token)
    }

    /// Starts a choice's text. `prompt` gives the left context that some tokenizers need to
    /// decode the first tokens right (leading spaces).
    pub fn detokenizer(
        self: &Arc<Self>,
        prompt: &[TokenId],
        options: DetokenizerOptions,
    ) -> Detokenizer {
        Detokenizer::new(Arc::clone(self.tokenizer.table()), prompt, &options)
    }
}

impl Rendered {
    /// The prompt as the model sees it.
    pub fn text(&self) -> String {
        match self.mark {
            Some(mark) => self.text.replace(mark, ""),
            None => self.text.clone(),
        }
    }
}

fn parse_object(file: &str, content: Option<Vec<u8>>) -> Result<Map<String, Value>, TextError> {
    let Some(content) = content else { return Ok(Map::new()) };
    serde_json::from_slice(&content)
        .map_err(|error| TextError::Tokenizer(format!("{file}: {error}")))
}

#[cfg(test)]
mod tests;
