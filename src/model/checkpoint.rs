//! A model as it lies on disk: its configuration and its weights.

use std::path::Path;

use serde_json::Value;

use super::error::ModelError;
use super::families;
use super::spec::ModelSpec;
use super::weights::{DummyWeights, GgufFacts, WeightSource};
use crate::backend::NormKind;

/// Largest accepted config.json or generation_config.json; the largest known has 0.1 MiB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The tensor by which a GGUF file divides rope frequencies.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A model that was found and not yet loaded.
#[derive(Debug)]
pub struct Checkpoint {
    /// What to call it: the name of its folder or file.
    pub name: String,
    /// config.json.
    pub config: Value,
    /// generation_config.json, which may name further end-of-sequence tokens.
    pub generation_config: Option<Value>,
    /// The weights.
    pub weights: WeightSource,
}

impl Checkpoint {
    /// Opens a folder in the Hugging Face layout.
    ///
    /// # Errors
    /// [`ModelError`] naming the file that is missing or malformed.
    pub fn open_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::with_weights(folder, WeightSource::open_folder(folder)?)
    }

    /// Opens a folder of which only the configuration is read: its weights are random.
    ///
    /// # Errors
    /// As [`Self::open_folder`].
    pub fn open_dummy(folder: &Path, weights: DummyWeights) -> Result<Self, ModelError> {
        Self::with_weights(folder, WeightSource::Dummy(weights))
    }

    fn with_weights(folder: &Path, weights: WeightSource) -> Result<Self, ModelError> {
        let config = read_json(&folder.join("config.json"))?;
        let generation = folder.join("generation_config.json");
        let generation_config =
            if generation.exists() { Some(read_json(&generation)?) } else { None };
        Ok(Self { name: name_of(folder), config, generation_config, weights })
    }

    /// Opens a GGUF file, which has its configuration inside.
    ///
    /// # Errors
    /// [`ModelError`] naming the key or tensor that is missing, malformed or not supported.
    pub fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let weights = WeightSource::open_gguf(path)?;
        let config = weights.gguf().map(|gguf| gguf.config().clone()).unwrap_or_default();
        Ok(Self { name: name_of(path), config, generation_config: None, weights })
    }

    /// What the model is: its configuration, the end-of-sequence tokens of both configuration
    /// files, and how the weight file differs from the Hugging Face form. `context_tokens_max` is
    /// the longest context that will be run, where that is less than what the model is made for.
    ///
    /// # Errors
    /// [`ModelError`] naming the field or tensor that is wrong or not supported.
    pub fn spec(&self, context_tokens_max: Option<u32>) -> Result<ModelSpec, ModelError> {
        let mut spec = families::spec(&self.config, context_tokens_max)?;
        if let Some(generation) = &self.generation_config {
            spec.eos.extend(families::eos(generation)?);
            spec.eos.sort_unstable();
            spec.eos.dedup();
        }
        if let Some(gguf) = self.weights.gguf() {
            obey(gguf.facts(), &mut spec).map_err(|reason| {
                ModelError::tensor(self.weights.described_by(), ROPE_FACTORS, reason)
            })?;
        }
        spec.check()?;
        Ok(spec)
    }
}

/// Changes a spec to how a GGUF file stores the same model; says what is wrong with the factors.
fn obey(facts: &GgufFacts, spec: &mut ModelSpec) -> Result<(), String> {
    if facts.norms_include_offset {
        spec.norm = NormKind::Plain;
    }
    for rope in &mut spec.ropes {
        rope.interleaved = facts.rope_interleaved;
        let Some(factors) = &facts.rope_factors else { continue };
        if factors.len() != rope.inv_freq.len() {
            let (found, expected) = (factors.len(), rope.inv_freq.len());
            return Err(format!("has {found} values; the model's heads ask for {expected}"));
        }
        for (freq, factor) in rope.inv_freq.iter_mut().zip(factors) {
            *freq /= factor;
        }
    }
    Ok(())
}

/// Reads a JSON file of bounded size.
///
/// # Errors
/// [`ModelError::File`] when it is missing, too large or not JSON.
pub fn read_json(path: &Path) -> Result<Value, ModelError> {
    let file = std::fs::metadata(path).map_err(|error| ModelError::file(path, error))?;
    // Reading a named pipe would wait forever.
    if !file.is_file() {
        return Err(ModelError::file(path, "is not a regular file"));
    }
    let bytes = file.len();
    if bytes > CONFIG_BYTES_MAX {
        let reason = format!("has {bytes} bytes, expected at most {CONFIG_BYTES_MAX}");
        return Err(ModelError::file(path, reason));
    }
    let text = std::fs::read(path).map_err(|error| ModelError::file(path, error))?;
    serde_json::from_slice(&text).map_err(|error| ModelError::file(path, error))
}

/// The last part of a path that has one.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_stem().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
