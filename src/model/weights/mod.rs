//! Where weights come from: one [`WeightSource`] over safetensors folders, GGUF files and random
//! numbers. Only Hugging Face tensor names are used outside this module.

mod dummy;
mod gguf;
mod mapping;
mod safetensors;

use std::path::{Path, PathBuf};

use crate::backend::HostTensor;
use crate::model::ModelError;

pub use self::dummy::DummyWeights;
pub use self::gguf::{GgufFacts, GgufVocabulary, GgufWeights, NameMap, Place};
pub use self::safetensors::SafetensorsWeights;

/// A model's weights, looked up by their Hugging Face names.
#[derive(Debug)]
pub enum WeightSource {
    /// A folder in the Hugging Face layout, or one safetensors file in memory.
    Safetensors(SafetensorsWeights),
    /// A GGUF file.
    Gguf(Box<GgufWeights>),
    /// Random numbers.
    Dummy(DummyWeights),
}

impl WeightSource {
    /// Maps the safetensors files of `folder` and checks their headers.
    ///
    /// # Errors
    /// [`ModelError`] naming what is missing or malformed.
    pub fn open_folder(folder: &Path) -> Result<Self, ModelError> {
        Ok(Self::Safetensors(SafetensorsWeights::open(folder)?))
    }

    /// Maps a GGUF file and checks everything in it but the tensors' values.
    ///
    /// # Errors
    /// [`ModelError`] naming what is missing, malformed or unsupported.
    pub fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        Ok(Self::Gguf(Box::new(GgufWeights::open(path)?)))
    }

    /// The GGUF file, when the weights are in one: it also has the configuration and vocabulary.
    pub fn gguf(&self) -> Option<&GgufWeights> {
        match self {
            Self::Gguf(weights) => Some(weights),
            Self::Safetensors(_) | Self::Dummy(_) => None,
        }
    }

    /// The Hugging Face names of the tensors in the files; none for random weights.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(weights) => weights.names().map(str::to_owned).collect(),
            Self::Gguf(weights) => weights.names().collect(),
            Self::Dummy(_) => Vec::new(),
        }
    }

    /// Whether [`Self::get`] would find this tensor; random weights have every tensor.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Safetensors(weights) => weights.contains(name),
            Self::Gguf(weights) => weights.contains(name),
            Self::Dummy(_) => true,
        }
    }

    /// The tensor `name`, which has to have this shape (outermost dimension first). Its bytes
    /// usually are a slice of a mapped file and need not be aligned to its element type.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when it is missing or has another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError> {
        let tensor = match self {
            Self::Safetensors(weights) => weights.get(name)?,
            Self::Gguf(weights) => weights.get(name)?,
            Self::Dummy(weights) => weights.get(name, shape)?,
        };
        if tensor.shape() != shape {
            let reason = format!(
                "has shape {:?}; the model's configuration asks for {shape:?}",
                tensor.shape()
            );
            let name = match tensor.name() {
                same if same == name => name.to_owned(),
                other => format!("{name} ({other})"),
            };
            return Err(ModelError::tensor(self.described_by(), name, reason));
        }
        Ok(tensor)
    }

    /// The weight files and their sizes in bytes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        match self {
            Self::Safetensors(weights) => {
                weights.files().map(|(path, bytes)| (path.to_owned(), bytes)).collect()
            }
            Self::Gguf(weights) => vec![(weights.path().to_owned(), weights.file_bytes())],
            Self::Dummy(_) => Vec::new(),
        }
    }

    /// The file to look into when a tensor is missing or wrong.
    pub fn described_by(&self) -> &Path {
        match self {
            Self::Safetensors(weights) => weights.described_by(),
            Self::Gguf(weights) => weights.path(),
            Self::Dummy(_) => Path::new(dummy::PLACE),
        }
    }
}
