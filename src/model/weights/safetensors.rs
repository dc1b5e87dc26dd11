//! Weights in safetensors files: `model.safetensors`, or shards listed by
//! `model.safetensors.index.json`.
//!
//! A file is an 8-byte little-endian header length, a JSON header (name → dtype, shape, byte
//! range), and the tensors' bytes without holes. The header is untrusted: it is checked here, so
//! that errors name the tensor, and then once more by the `safetensors` crate.
//! Format: <https://github.com/huggingface/safetensors#format>.

mod header;
mod index;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use self::index::{INDEX_FILE, ShardIndex};
use super::mapping::map_file;
use crate::backend::{DType, HostTensor};
use crate::model::ModelError;

/// The one file of a folder without an index.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";

/// The weights of a folder in the Hugging Face layout.
#[derive(Debug)]
pub struct SafetensorsWeights {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Location>,
    described_by: PathBuf,
}

/// One file and where its tensors begin.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    data: Bytes,
}

/// Where a tensor is; the range was checked against the shard's length.
#[derive(Debug)]
struct Location {
    shard: usize,
    dtype: DType,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

impl SafetensorsWeights {
    /// Whether a folder has weights of this format.
    pub fn is_in(folder: &Path) -> bool {
        [SINGLE_FILE, INDEX_FILE].iter().any(|name| folder.join(name).exists())
    }

    /// Maps the weight files of `folder` and checks their headers. No tensor is read.
    ///
    /// # Errors
    /// [`ModelError`] naming the file or tensor that is missing, malformed or of an unsupported
    /// type.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let single = folder.join(SINGLE_FILE);
        if single.exists() {
            return Self::from_files(vec![(single.clone(), map_file(&single)?)], single);
        }
        let described_by = folder.join(INDEX_FILE);
        if !described_by.exists() {
            return Err(ModelError::file(folder, missing_weights(folder)));
        }
        let index = ShardIndex::read(&described_by)?;
        let mut files = Vec::with_capacity(index.shards().len());
        for name in index.shards() {
            let path = folder.join(name);
            if !path.exists() {
                let reason = format!("is missing, though {INDEX_FILE} lists it");
                return Err(ModelError::file(path, reason));
            }
            let data = map_file(&path)?;
            files.push((path, data));
        }
        let weights = Self::from_files(files, described_by)?;
        weights.agree_with(&index)?;
        Ok(weights)
    }

    /// Reads the headers of files that are in memory. `path` only names the file in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(path: impl Into<PathBuf>, data: Bytes) -> Result<Self, ModelError> {
        let path = path.into();
        Self::from_files(vec![(path.clone(), data)], path)
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor, as a slice of the mapped file. Its bytes need not be aligned to its type.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when there is none of this name.
    pub fn get(&self, name: &str) -> Result<HostTensor, ModelError> {
        let Some(at) = self.tensors.get(name) else {
            let known = self.tensors.len();
            let reason = format!("is missing; the model has {known} other tensors");
            return Err(ModelError::tensor(&self.described_by, name, reason));
        };
        let shard = &self.shards[at.shard];
        let data = shard.data.slice(at.start..at.end);
        HostTensor::new(name, at.dtype, at.shape.clone(), data)
            .map_err(|error| ModelError::malformed(&shard.path, &error))
    }

    /// The files and their sizes in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.shards.iter().map(|shard| (shard.path.as_path(), shard.data.len() as u64))
    }

    /// The file to look into when a tensor is missing: the index, or the only file.
    pub fn described_by(&self) -> &Path {
        &self.described_by
    }

    fn from_files(files: Vec<(PathBuf, Bytes)>, described_by: PathBuf) -> Result<Self, ModelError> {
        let mut weights = Self { shards: Vec::new(), tensors: BTreeMap::new(), described_by };
        for (path, data) in files {
            weights.add(path, data)?;
        }
        if weights.tensors.is_empty() {
            return Err(ModelError::file(&weights.described_by, "holds no tensors"));
        }
        Ok(weights)
    }

    fn add(&mut self, path: PathBuf, data: Bytes) -> Result<(), ModelError> {
        let shard = self.shards.len();
        for entry in header::read(&path, &data)? {
            let at = Location {
                shard,
                dtype: entry.dtype,
                shape: entry.shape,
                start: entry.start,
                end: entry.end,
            };
            if let Some(first) = self.tensors.get(&entry.name) {
                let other = self.shards[first.shard].path.display();
                let reason = format!("is also in {other}; a tensor belongs in one file");
                return Err(ModelError::tensor(path, entry.name, reason));
            }
            self.tensors.insert(entry.name, at);
        }
        self.shards.push(Shard { path, data });
        Ok(())
    }

    /// Every tensor that the index lists has to be in the shard that it names.
    fn agree_with(&self, index: &ShardIndex) -> Result<(), ModelError> {
        for (name, shard) in index.entries() {
            let said = &self.shards[shard].path;
            match self.tensors.get(name) {
                Some(at) if at.shard == shard => {}
                Some(at) => {
                    let found = self.shards[at.shard].path.display();
                    let reason = format!("is in {found}, though {INDEX_FILE} says it is here");
                    return Err(ModelError::tensor(said, name, reason));
                }
                None => {
                    let reason = format!("is missing, though {INDEX_FILE} says it is here");
                    return Err(ModelError::tensor(said, name, reason));
                }
            }
        }
        Ok(())
    }
}

fn missing_weights(folder: &Path) -> String {
    let other = ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.safetensors"]
        .into_iter()
        .find(|name| folder.join(name).exists());
    let expected = format!("has neither {SINGLE_FILE} nor {INDEX_FILE}");
    match other {
        Some(name) => format!(
            "{expected}; {name} is there, but only safetensors in the Hugging Face layout are read"
        ),
        None => format!("{expected}; download the model's safetensors files into it"),
    }
}
