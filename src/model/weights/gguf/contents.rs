//! What a GGUF file holds, checked and indexed: metadata by key, tensors by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::tensors::{self, Entry};
use crate::backend::{DType, HostTensor};
use crate::model::ModelError;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];
/// Most values of a vector that is read into memory here.
const FLOATS_MAX: usize = 4096;

/// An opened file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) path: PathBuf,
    pub(super) file: Bytes,
    pub(super) metadata: Metadata,
    pub(super) tensors: BTreeMap<String, Entry>,
}

impl Contents {
    /// Reads header, metadata and tensor table.
    ///
    /// # Errors
    /// [`ModelError`] naming the key or tensor that is wrong.
    pub(super) fn read(path: PathBuf, file: Bytes) -> Result<Self, ModelError> {
        let mut cursor = Cursor::new(&path, &file, 0);
        let magic = cursor.bytes(4, "the format's mark")?;
        if magic != MAGIC {
            let reason = format!("begins with {}, expected GGUF", magic.escape_ascii());
            return Err(cursor.fail(reason));
        }
        let version = cursor.u32("the format's version")?;
        if VERSIONS.contains(&version.swap_bytes()) {
            return Err(cursor.fail("is a big-endian GGUF file; expected a little-endian one"));
        }
        if !VERSIONS.contains(&version) {
            let what = format!("{}: GGUF version {version}", path.display());
            return Err(ModelError::unsupported(what, &["2", "3"]));
        }
        let tensor_count = cursor.u64("the number of tensors")?;
        let key_count = cursor.u64("the number of metadata keys")?;
        let metadata = Metadata::read(&path, &file, &mut cursor, key_count)?;
        let tensors = tensors::read(&path, &mut cursor, &metadata, tensor_count)?;
        Ok(Self { path, file, metadata, tensors })
    }

    /// An error about a tensor.
    pub(super) fn fail(&self, tensor: &str, reason: impl std::fmt::Display) -> ModelError {
        ModelError::tensor(&self.path, tensor, reason)
    }

    /// The shape of a tensor, outermost dimension first.
    pub(super) fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.tensors.get(tensor).map(|entry| entry.shape.as_slice())
    }

    /// A tensor as a slice of the file.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when it is missing.
    pub(super) fn tensor(&self, name: &str) -> Result<HostTensor, ModelError> {
        let Some(entry) = self.tensors.get(name) else {
            let others = self.tensors.len();
            return Err(self.fail(name, format!("is missing; the file has {others} others")));
        };
        let data = self.file.slice(entry.start..entry.end);
        HostTensor::new(name, entry.dtype, entry.shape.clone(), data)
            .map_err(|error| ModelError::malformed(&self.path, &error))
    }

    /// The values of a short F32 vector, if there is such a tensor.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when it is of another type, has more dimensions or is too long.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(entry) = self.tensors.get(name) else { return Ok(None) };
        match entry.shape.as_slice() {
            [len] if *len <= FLOATS_MAX && entry.dtype == DType::F32 => {}
            shape => {
                let found = format!("is {:?} {shape:?}", entry.dtype);
                let expected = format!("expected F32 with one dimension of at most {FLOATS_MAX}");
                return Err(self.fail(name, format!("{found}, {expected}")));
            }
        }
        let values = self.file[entry.start..entry.end].chunks_exact(4);
        let floats = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Some(floats))
    }
}
