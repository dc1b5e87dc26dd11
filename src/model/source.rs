//! From what the user writes after `--model` to the files of a model: `demo`, a folder in the
//! Hugging Face layout, a `.gguf` file, or a hub id that is in the local cache.
//!
//! Nothing is downloaded here. Every file but the weights has a bound on its size.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::demo;
use super::error::ModelError;
use super::hub::HubId;
use super::weights::{DummyWeights, GgufVocabulary, SafetensorsWeights};

/// Largest chat_template.json and chat_template.jinja; the largest known has 20 kB.
const TEMPLATE_BYTES_MAX: u64 = 4 << 20;
/// Largest tokenizer.json; those of Gemma 3 have 33 MB.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Largest tokenizer_config.json and special_tokens_map.json; those of Gemma 3 have 1.2 MB.
const TOKENIZER_CONFIG_BYTES_MAX: u64 = 16 << 20;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// What a model consists of, found and checked as far as that is possible without loading it.
#[derive(Debug)]
pub struct ModelFiles {
    /// Configuration and weights.
    pub checkpoint: Checkpoint,
    /// Tokenizer and chat template.
    pub tokenizer: TokenizerFiles,
    /// Every file that was read or mapped, and its size in bytes.
    pub files: Vec<(PathBuf, u64)>,
}

/// Where tokenizer and chat template come from; the text room reads them.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerFiles {
    /// Hugging Face layout: the contents of the files.
    HuggingFace {
        /// `tokenizer.json`.
        tokenizer_json: Vec<u8>,
        /// `tokenizer_config.json`, if there is one.
        tokenizer_config: Option<Vec<u8>>,
        /// `special_tokens_map.json`, if there is one.
        special_tokens_map: Option<Vec<u8>>,
        /// `chat_template.jinja`, or the text in `chat_template.json`, if there is one.
        chat_template: Option<String>,
    },
    /// The vocabulary inside a GGUF file.
    Gguf(Box<GgufVocabulary>),
    /// There is none, which only random weights may have.
    None,
}

/// How to find a model.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Where the Hugging Face tools keep downloaded models (`$HF_HOME/hub`).
    pub hub_cache: Option<PathBuf>,
    /// A folder with tokenizer files, or a tokenizer.json, instead of the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Random weights instead of the model's own.
    pub dummy: Option<DummyWeights>,
}

/// Finds the files of `model`.
///
/// # Errors
/// [`ModelError`] naming the file that is missing, too large or malformed, and what to do.
pub fn resolve(model: &str, options: &SourceOptions) -> Result<ModelFiles, ModelError> {
    let path = Path::new(model);
    if model == demo::NAME {
        let mut files = demo::files(options.dummy.as_ref())?;
        if let Some(elsewhere) = options.tokenizer.as_deref() {
            files.tokenizer = some_tokenizer(elsewhere, &mut files.files)?;
        }
        return Ok(files);
    }
    if path.is_dir() {
        return folder(path, options);
    }
    if path.is_file() {
        return file(model, path, options);
    }
    let Some(id) = HubId::parse(model) else {
        let reason = "there is no such folder or file; expected a folder in the Hugging Face \
                      layout, a .gguf file, a hub id (org/name), or \"demo\"";
        return Err(refuse(model, reason));
    };
    let snapshot = id.snapshot(options.hub_cache.as_deref())?;
    let mut files = folder(&snapshot, options)?;
    files.checkpoint.name = model.to_owned();
    Ok(files)
}

fn file(model: &str, path: &Path, options: &SourceOptions) -> Result<ModelFiles, ModelError> {
    let gguf = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    match (&options.dummy, path.file_name()) {
        (None, _) if gguf => gguf_file(path, options),
        (Some(_), Some(name)) if name == CONFIG => {
            folder(path.parent().unwrap_or(Path::new("")), options)
        }
        (Some(_), _) => {
            let reason = "--load-format dummy takes a config.json or a folder that has one";
            Err(refuse(model, reason))
        }
        (None, _) => {
            let reason = "is a file of another kind; expected a .gguf file, or the folder that \
                          has config.json and model.safetensors";
            Err(refuse(model, reason))
        }
    }
}

fn gguf_file(path: &Path, options: &SourceOptions) -> Result<ModelFiles, ModelError> {
    let checkpoint = Checkpoint::open_gguf(path)?;
    let mut files = checkpoint.weights.files();
    let inside = checkpoint.weights.gguf().and_then(|gguf| gguf.vocabulary());
    let tokenizer = match (&options.tokenizer, inside) {
        (Some(elsewhere), _) => some_tokenizer(elsewhere, &mut files)?,
        (None, Some(vocabulary)) => TokenizerFiles::Gguf(Box::new(vocabulary.clone())),
        (None, None) => {
            let reason = "has no tokenizer (tokenizer.ggml.tokens); name one with --tokenizer";
            return Err(ModelError::file(path, reason));
        }
    };
    Ok(ModelFiles { checkpoint, tokenizer, files })
}

/// A folder in the Hugging Face layout.
fn folder(folder: &Path, options: &SourceOptions) -> Result<ModelFiles, ModelError> {
    complete(folder, options)?;
    let mut files = Vec::new();
    let checkpoint = match &options.dummy {
        None => Checkpoint::open_folder(folder)?,
        Some(dummy) => Checkpoint::open_dummy(folder, dummy.clone())?,
    };
    for path in [CONFIG, "generation_config.json"].map(|name| folder.join(name)) {
        if let Ok(file) = std::fs::metadata(&path) {
            files.push((path, file.len()));
        }
    }
    let tokenizer = match &options.tokenizer {
        Some(elsewhere) => some_tokenizer(elsewhere, &mut files)?,
        // Only with random weights can there be none: `complete` has looked.
        None => tokenizer_files(folder, &mut files)?,
    };
    files.extend(checkpoint.weights.files());
    Ok(ModelFiles { checkpoint, tokenizer, files })
}

/// Everything that a folder lacks, in one message.
fn complete(folder: &Path, options: &SourceOptions) -> Result<(), ModelError> {
    let has = |name: &str| folder.join(name).exists();
    let mut missing = Vec::new();
    if !has(CONFIG) {
        missing.push(CONFIG.to_owned());
    }
    if options.dummy.is_none() && !SafetensorsWeights::is_in(folder) {
        missing.push("model.safetensors (or model.safetensors.index.json)".to_owned());
    }
    if options.dummy.is_none() && options.tokenizer.is_none() && !has(TOKENIZER) {
        missing.push(match has("tokenizer.model") {
            true => format!(
                "{TOKENIZER} (tokenizer.model alone is not read: save the tokenizer with \
                 `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` of transformers)"
            ),
            false => TOKENIZER.to_owned(),
        });
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut reason = format!("lacks {}", missing.join(" and "));
    if let Some(name) = gguf_in(folder) {
        reason += &format!("; to serve a GGUF file, name it: --model {}", name.display());
    }
    Err(ModelError::file(folder, reason))
}

/// The first GGUF file of a folder by name.
fn gguf_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|end| end == "gguf")).min()
}

/// The tokenizer that `--tokenizer` names, which has to be there.
fn some_tokenizer(
    place: &Path,
    files: &mut Vec<(PathBuf, u64)>,
) -> Result<TokenizerFiles, ModelError> {
    match tokenizer_files(place, files)? {
        TokenizerFiles::None => {
            let reason = format!("has no {TOKENIZER}, for which --tokenizer names it");
            Err(ModelError::file(place, reason))
        }
        found => Ok(found),
    }
}

/// The tokenizer files of a folder, or those beside a tokenizer.json.
fn tokenizer_files(
    place: &Path,
    files: &mut Vec<(PathBuf, u64)>,
) -> Result<TokenizerFiles, ModelError> {
    let (json, folder) = match place.is_file() {
        true => (place.to_owned(), place.parent().unwrap_or(Path::new("")).to_owned()),
        false => (place.join(TOKENIZER), place.to_owned()),
    };
    let Some(tokenizer_json) = read(&json, TOKENIZER_BYTES_MAX, files)? else {
        return Ok(TokenizerFiles::None);
    };
    let mut beside = |name: &str| read(&folder.join(name), TOKENIZER_CONFIG_BYTES_MAX, files);
    let tokenizer_config = beside("tokenizer_config.json")?;
    let special_tokens_map = beside("special_tokens_map.json")?;
    let chat_template = chat_template(&folder, files)?;
    Ok(TokenizerFiles::HuggingFace {
        tokenizer_json,
        tokenizer_config,
        special_tokens_map,
        chat_template,
    })
}

fn chat_template(
    folder: &Path,
    files: &mut Vec<(PathBuf, u64)>,
) -> Result<Option<String>, ModelError> {
    let path = folder.join("chat_template.jinja");
    if let Some(bytes) = read(&path, TEMPLATE_BYTES_MAX, files)? {
        let text = String::from_utf8(bytes).map_err(|_| ModelError::file(&path, "is not UTF-8"))?;
        return Ok(Some(text));
    }
    let path = folder.join("chat_template.json");
    let Some(bytes) = read(&path, TEMPLATE_BYTES_MAX, files)? else { return Ok(None) };
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| ModelError::file(&path, error))?;
    match json.get("chat_template") {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        _ => Err(ModelError::file(&path, "expected an object with the text chat_template")),
    }
}

/// The contents of a file of bounded size; `None` when there is none.
fn read(
    path: &Path,
    bytes_max: u64,
    files: &mut Vec<(PathBuf, u64)>,
) -> Result<Option<Vec<u8>>, ModelError> {
    let refuse = |error: std::io::Error| ModelError::file(path, error);
    if !path.exists() {
        return Ok(None);
    }
    // The kind is looked at before the file is opened: opening a named pipe would wait forever.
    if !path.is_file() {
        return Err(ModelError::file(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(refuse)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(refuse)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ModelError::file(path, format!("has more than {bytes_max} bytes")));
    }
    files.push((path.to_owned(), bytes.len() as u64));
    Ok(Some(bytes))
}

fn refuse(model: &str, reason: impl Into<String>) -> ModelError {
    ModelError::Source { model: model.to_owned(), reason: reason.into() }
}
