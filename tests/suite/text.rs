//! The text room against what `transformers`, `tokenizers` and `sentencepiece` do.

mod chats;
mod encoding;
mod growth;
mod injection;
mod scaling;
mod vocabularies;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weir::ids::TokenId;
use weir::model::weights::GgufWeights;
use weir::text::{ChatInput, Text, TextLimits, TokenizerSource, Vocabulary};

/// Enough for every fixture.
const LIMITS: TextLimits = TextLimits { template_fuel: 10_000_000, rendered_bytes_max: 16 << 20 };

/// The tokenizers in the layout of Hugging Face.
const FOLDERS: [&str; 4] = ["bpe-llama3", "bpe-qwen2", "spm-legacy", "spm-metaspace"];
/// The tokenizers inside GGUF files.
const FILES: [&str; 4] =
    ["tokenizer-llama-bpe", "tokenizer-qwen2", "tokenizer-spm", "tokenizer-spm-noprefix"];

/// Every fixture's tokenizer, by name, opened once.
static TEXTS: LazyLock<Vec<(&str, Arc<Text>)>> = LazyLock::new(|| {
    let folders = FOLDERS.iter().map(|name| (*name, Arc::new(open_folder(name, None))));
    folders.chain(FILES.iter().map(|name| (*name, Arc::new(open_file(name))))).collect()
});

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read_json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// A tokenizer in the layout of Hugging Face, perhaps with another template.
fn open_folder(name: &str, template: Option<String>) -> Text {
    let folder = fixtures().join("text").join(name);
    let source = TokenizerSource::HuggingFace {
        tokenizer_json: std::fs::read(folder.join("tokenizer.json")).unwrap(),
        tokenizer_config: Some(std::fs::read(folder.join("tokenizer_config.json")).unwrap()),
        special_tokens_map: None,
        chat_template: None,
    };
    Text::open(source, template, LIMITS).unwrap()
}

/// The tokenizer of a GGUF file.
fn open_file(name: &str) -> Text {
    let path = fixtures().join("gguf").join(format!("{name}.gguf"));
    let weights = GgufWeights::open(&path).unwrap();
    let tables = weights.vocabulary().unwrap().clone();
    let vocabulary = Vocabulary {
        model: tables.model,
        pre: tables.pre,
        tokens: tables.tokens,
        scores: tables.scores,
        types: tables.types,
        merges: tables.merges,
        bos: tables.bos,
        eos: tables.eos,
        unknown: tables.unknown,
        padding: tables.padding,
        add_bos: tables.add_bos,
        add_eos: tables.add_eos,
        add_space_prefix: tables.add_space_prefix,
        chat_template: tables.chat_template,
    };
    Text::open(TokenizerSource::Vocabulary(Box::new(vocabulary)), None, LIMITS).unwrap()
}

/// Token ids of a fixture.
fn ids(json: &Value) -> Vec<TokenId> {
    let ids = json.as_array().unwrap().iter();
    ids.map(|id| TokenId(u32::try_from(id.as_u64().unwrap()).unwrap())).collect()
}

/// A user's message.
fn user(content: &str) -> ChatInput {
    let message = json!({"role": "user", "content": content});
    ChatInput { messages: vec![message], ..ChatInput::default() }
}
