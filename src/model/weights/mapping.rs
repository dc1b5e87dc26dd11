//! Files as memory, without reading them first.

#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

use crate::model::ModelError;

/// Maps a regular file read-only. Slices of the result share the mapping; it ends with the last
/// one. The file must not be truncated or rewritten while the model is loaded: replace it by
/// renaming a new file over it, as download tools do.
///
/// # Errors
/// [`ModelError::File`] when the file is missing, not a regular file, empty or cannot be mapped.
pub(crate) fn map_file(path: &Path) -> Result<Bytes, ModelError> {
    let refuse = |error: std::io::Error| ModelError::file(path, error);
    // The kind is looked at before the file is opened: opening a named pipe would wait forever.
    let kind = std::fs::metadata(path).map_err(refuse)?;
    if !kind.is_file() {
        return Err(ModelError::file(path, "is not a regular file"));
    }
    let file = File::open(path).map_err(refuse)?;
    if file.metadata().map_err(refuse)?.len() == 0 {
        return Err(ModelError::file(path, "is empty"));
    }
    // SAFETY: the mapping is read-only and private to this process's view of a regular file; the
    // bytes are only ever read as plain integers. What cannot be excluded is that another process
    // changes the file meanwhile: then a read gives other bytes, or the process ends with SIGBUS
    // if the file shrinks. The path comes from the operator, who is told so above.
    let map = unsafe { Mmap::map(&file) }.map_err(refuse)?;
    Ok(Bytes::from_owner(map))
}
