//! The model inside the binary: a few million parameters that show that everything works. Made by
//! `demo-model/make.py`.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::checkpoint::Checkpoint;
use super::error::ModelError;
use super::source::{ModelFiles, TokenizerFiles};
use super::weights::{DummyWeights, SafetensorsWeights, WeightSource};

/// What users call it, and requests too.
pub const NAME: &str = "demo";

const CONFIG: &[u8] = include_bytes!("../../demo-model/model/config.json");
const GENERATION_CONFIG: &[u8] = include_bytes!("../../demo-model/model/generation_config.json");
const TOKENIZER: &[u8] = include_bytes!("../../demo-model/model/tokenizer.json");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../demo-model/model/tokenizer_config.json");
const WEIGHTS: &[u8] = include_bytes!("../../demo-model/model/model.safetensors");

/// The demo model's files; its weights are read in place. `dummy` replaces the weights alone.
///
/// # Errors
/// [`ModelError`] when the build embedded files that are not a model.
pub(super) fn files(dummy: Option<&DummyWeights>) -> Result<ModelFiles, ModelError> {
    let json = |name: &str, bytes: &[u8]| {
        serde_json::from_slice(bytes).map_err(|error| ModelError::file(Path::new(name), error))
    };
    let weights = match dummy {
        Some(dummy) => WeightSource::Dummy(dummy.clone()),
        None => WeightSource::Safetensors(SafetensorsWeights::from_bytes(
            "demo-model/model/model.safetensors",
            Bytes::from_static(WEIGHTS),
        )?),
    };
    let checkpoint = Checkpoint {
        name: NAME.to_owned(),
        config: json("demo-model/model/config.json", CONFIG)?,
        generation_config: Some(json(
            "demo-model/model/generation_config.json",
            GENERATION_CONFIG,
        )?),
        weights,
    };
    let tokenizer = TokenizerFiles::HuggingFace {
        tokenizer_json: TOKENIZER.to_vec(),
        tokenizer_config: Some(TOKENIZER_CONFIG.to_vec()),
        special_tokens_map: None,
        chat_template: None,
    };
    let files = vec![(PathBuf::from("demo-model/model/model.safetensors"), WEIGHTS.len() as u64)];
    Ok(ModelFiles { checkpoint, tokenizer, files })
}
