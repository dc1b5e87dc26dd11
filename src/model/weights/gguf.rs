//! Weights, configuration and vocabulary in one GGUF file, versions 2 and 3.
//!
//! A file is a header, typed metadata, a table of tensors, and their bytes at aligned offsets. All
//! of it is untrusted: no size is used before it was checked against the file's length.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod config;
mod contents;
mod cursor;
mod family;
mod metadata;
mod names;
mod tensors;
mod vocabulary;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use self::contents::Contents;
use self::family::Family;
pub use self::names::{NameMap, Place};
pub use self::vocabulary::GgufVocabulary;
use super::mapping::map_file;
use crate::backend::HostTensor;
use crate::model::ModelError;

/// What a GGUF file says about the whole model, as far as it is not in the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufFacts {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// Rows of q and k are ordered so that rope turns the neighbouring pairs (0, 1), (2, 3)… of a
    /// head, where Hugging Face files pair a head's first half with its second.
    pub rope_interleaved: bool,
    /// Norm weights contain the 1 that the Hugging Face files of this family leave out.
    pub norms_include_offset: bool,
    /// `rope_freqs.weight`: what each of a head's rope frequencies is to be divided by (Llama 3.x
    /// has its `rope_scaling` in this form).
    pub rope_factors: Option<Vec<f32>>,
}

/// A GGUF model.
#[derive(Debug)]
pub struct GgufWeights {
    contents: Contents,
    names: NameMap,
    facts: GgufFacts,
    config: Value,
    vocabulary: Option<GgufVocabulary>,
}

/// Tensors that say how to rotate, and are no weights.
const ROPE_TENSORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];
/// Longest `general.name` and `general.type`.
const NAME_BYTES_MAX: u64 = 4096;

impl GgufWeights {
    /// Maps a file and checks its header, metadata and tensor table. No tensor is read.
    ///
    /// # Errors
    /// [`ModelError`] naming the key or tensor that is missing, malformed or unsupported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::from_bytes(path, map_file(path)?)
    }

    /// Reads a file that is in memory. `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(path: impl Into<PathBuf>, file: Bytes) -> Result<Self, ModelError> {
        let contents = Contents::read(path.into(), file)?;
        refuse_partial(&contents)?;
        let name = contents.metadata.string("general.name", NAME_BYTES_MAX)?;
        let (family, architecture) = Family::of(&contents.metadata)?;
        let vocabulary = vocabulary::read(&contents)?;
        let ends = vocabulary::end_tokens(&contents.metadata, vocabulary.as_ref())?;
        let config = config::of(&contents, family, &architecture, &ends)?;
        let facts = GgufFacts {
            name,
            rope_interleaved: family.rope_interleaved(),
            norms_include_offset: family.norms_include_offset(),
            rope_factors: contents.floats("rope_freqs.weight")?,
            architecture,
        };
        Ok(Self { contents, names: NameMap::new(family), facts, config, vocabulary })
    }

    /// What the file says about the whole model.
    pub fn facts(&self) -> &GgufFacts {
        &self.facts
    }

    /// The configuration in the form of a Hugging Face config.json.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The tokenizer tables, if there are any.
    pub fn vocabulary(&self) -> Option<&GgufVocabulary> {
        self.vocabulary.as_ref()
    }

    /// Translates between Hugging Face names and the file's.
    pub fn name_map(&self) -> NameMap {
        self.names
    }

    /// The Hugging Face names of the tensors, in the order of the file's own sorted names. Tensors
    /// that have none keep their GGUF name; those that became facts or configuration are left out.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let weights =
            self.contents.tensors.iter().filter(|(name, _)| !ROPE_TENSORS.contains(&name.as_str()));
        weights.flat_map(|(name, entry)| {
            self.names.hugging_face(name, entry.shape.first().copied().unwrap_or(1))
        })
    }

    /// Whether there is a tensor of this Hugging Face name.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A tensor by its Hugging Face name, as a slice of the mapped file. One expert of a stacked
    /// tensor is a slice of it.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when there is none of this name.
    pub fn get(&self, name: &str) -> Result<HostTensor, ModelError> {
        let Some(place) = self.find(name) else {
            let reason = match self.names.place(name) {
                Some(place) => format!("is missing; expected it as {}", place.tensor),
                None => format!("has no place in a file of {}", self.facts.architecture),
            };
            return Err(self.contents.fail(name, reason));
        };
        let tensor = self.contents.tensor(&place.tensor)?;
        let Some(expert) = place.expert else { return Ok(tensor) };
        tensor.outer(expert).ok_or_else(|| {
            let reason = format!("has shape {:?} and so no expert {expert}", tensor.shape());
            self.contents.fail(&place.tensor, reason)
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.contents.path
    }

    /// The file's size.
    pub fn file_bytes(&self) -> u64 {
        self.contents.file.len() as u64
    }

    fn find(&self, name: &str) -> Option<Place> {
        let place = self.names.place(name)?;
        if let Some(shape) = self.contents.shape(&place.tensor) {
            let there = place.expert.is_none_or(|expert| shape.len() > 1 && expert < shape[0]);
            return there.then_some(place);
        }
        let tensor = NameMap::single_expert(&place)?;
        self.contents.shape(&tensor)?;
        Some(Place { tensor, expert: None })
    }
}

/// Refuses files that hold only part of a model, or something else.
fn refuse_partial(contents: &Contents) -> Result<(), ModelError> {
    let metadata = &contents.metadata;
    if let Some(parts) = metadata.u32("split.count")?.filter(|&parts| parts > 1) {
        let reason = format!("is {parts}: join the parts with `llama-gguf-split --merge` first");
        return Err(metadata.fail("split.count", reason));
    }
    if let Some(kind) = metadata.string("general.type", NAME_BYTES_MAX)?
        && kind != "model"
    {
        let reason = format!("is {kind:?}, expected \"model\"");
        return Err(metadata.fail("general.type", reason));
    }
    if contents.tensors.is_empty() {
        return Err(ModelError::file(&contents.path, "holds no tensors"));
    }
    Ok(())
}
