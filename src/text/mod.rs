//! Strings to tokens and back: tokenizer, chat templates, incremental detokenising, stop strings.
//! Pure computation; knows neither tenants nor HTTP.

use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::ids::TokenId;

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
    // Private fields: the text helper's.
    text: String,
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

/// Turns one choice's tokens into text, token by token.
#[derive(Debug)]
pub struct Detokenizer {}

/// A model's tokenizer and chat template. Shared by all requests.
#[derive(Debug)]
pub struct Text {}

impl Text {
    /// Reads a tokenizer. `template` overrides the model's own chat template.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] or [`TextError::Template`] naming what is wrong in which file.
    pub fn open(
        _source: TokenizerSource,
        _template: Option<String>,
        _limits: TextLimits,
    ) -> Result<Self, TextError> {
        todo!()
    }

    /// Ids are below this; may be smaller than the model's logits row.
    pub fn vocab_size(&self) -> u32 {
        todo!()
    }

    /// The tokenizer's own end-of-sequence token.
    pub fn eos(&self) -> Option<TokenId> {
        todo!()
    }

    /// `tokenizer_config.json` (or its equivalent made from a GGUF file), for `/tokenizer_info`.
    pub fn info(&self) -> Map<String, Value> {
        todo!()
    }

    /// Renders messages with the chat template.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn render(&self, _chat: &ChatInput) -> Result<Rendered, TextError> {
        todo!()
    }

    /// Tokens of a rendered prompt: special tokens of the template are tokens, those inside
    /// message contents are text. No special token is added.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn encode_rendered(&self, _rendered: &Rendered) -> Result<Vec<TokenId>, TextError> {
        todo!()
    }

    /// Tokens of plain text. `add_special_tokens` adds what the tokenizer's post-processor adds
    /// (a BOS, for most); special tokens inside `text` are tokens (as in every peer's
    /// `/v1/completions`).
    ///
    /// # Errors
    /// [`TextError`].
    pub fn encode(
        &self,
        _text: &str,
        _add_special_tokens: bool,
    ) -> Result<Vec<TokenId>, TextError> {
        todo!()
    }

    /// Text of tokens; invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`].
    pub fn decode(&self, _tokens: &[TokenId], _skip_special: bool) -> Result<String, TextError> {
        todo!()
    }

    /// The bytes that a token stands for inside a text; empty for ids without text.
    pub fn token_bytes(&self, _token: TokenId) -> Vec<u8> {
        todo!()
    }

    /// Whether the token is a special one (control token).
    pub fn is_special(&self, _token: TokenId) -> bool {
        todo!()
    }

    /// Starts a choice's text. `prompt` gives the left context that some tokenizers need to
    /// decode the first tokens right (leading spaces).
    pub fn detokenizer(
        self: &Arc<Self>,
        _prompt: &[TokenId],
        _options: DetokenizerOptions,
    ) -> Detokenizer {
        todo!()
    }
}

impl Rendered {
    /// The prompt as the model sees it.
    pub fn text(&self) -> String {
        todo!()
    }
}

impl Detokenizer {
    /// Adds a token. After a stop string was met, nothing more comes.
    pub fn push(&mut self, _token: TokenId) -> Piece {
        todo!()
    }

    /// The choice has ended: gives what was held back (an unfinished stop string; an incomplete
    /// UTF-8 sequence as U+FFFD).
    pub fn finish(&mut self) -> String {
        todo!()
    }
}
