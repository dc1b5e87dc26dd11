//! A model as it lies on disk: its configuration and its weights.

use std::path::Path;

use serde_json::Value;

use super::error::ModelError;
use super::weights::WeightSource;

/// Largest accepted config.json or generation_config.json; the largest known has 0.1 MiB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

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
        let config = read_json(&folder.join("config.json"))?;
        let generation = folder.join("generation_config.json");
        let generation_config =
            if generation.exists() { Some(read_json(&generation)?) } else { None };
        let weights = WeightSource::open_folder(folder)?;
        Ok(Self { name: name_of(folder), config, generation_config, weights })
    }
}

/// Reads a JSON file of bounded size.
///
/// # Errors
/// [`ModelError::File`] when it is missing, too large or not JSON.
pub fn read_json(path: &Path) -> Result<Value, ModelError> {
    let bytes = std::fs::metadata(path).map_err(|error| ModelError::file(path, error))?.len();
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
