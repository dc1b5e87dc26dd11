//! Reading a GGUF file front to back with every length checked before it is used.

use std::fmt::Display;
use std::path::Path;

use crate::model::ModelError;

/// A position in a file that is in memory.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    path: &'a Path,
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at`, which is not past the end.
    pub(super) fn new(path: &'a Path, file: &'a [u8], at: usize) -> Self {
        Self { path, file, at: at.min(file.len()) }
    }

    /// Bytes before this position.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes from this position on.
    pub(super) fn remaining(&self) -> u64 {
        (self.file.len() - self.at) as u64
    }

    /// An error in this file.
    pub(super) fn fail(&self, reason: impl Display) -> ModelError {
        ModelError::file(self.path, reason)
    }

    /// The next `len` bytes, which are `what`.
    ///
    /// # Errors
    /// [`ModelError::File`] when the file ends before them.
    pub(super) fn bytes(&mut self, len: u64, what: impl Display) -> Result<&'a [u8], ModelError> {
        let rest = &self.file[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let Some(taken) = taken else {
            let (at, left) = (self.at, rest.len());
            return Err(self.fail(format!(
                "is truncated: {what} needs {len} bytes at byte {at}, {left} are left"
            )));
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// The next `u32`, little-endian.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(super) fn u32(&mut self, what: impl Display) -> Result<u32, ModelError> {
        let mut value = [0; 4];
        value.copy_from_slice(self.bytes(4, what)?);
        Ok(u32::from_le_bytes(value))
    }

    /// The next `u64`, little-endian.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(super) fn u64(&mut self, what: impl Display) -> Result<u64, ModelError> {
        let mut value = [0; 8];
        value.copy_from_slice(self.bytes(8, what)?);
        Ok(u64::from_le_bytes(value))
    }

    /// The next length-prefixed name, of 1 to `bytes_max` bytes.
    ///
    /// # Errors
    /// [`ModelError::File`] when it is truncated, too long, empty or not UTF-8.
    pub(super) fn name(
        &mut self,
        bytes_max: u64,
        what: impl Display,
    ) -> Result<&'a str, ModelError> {
        let len = self.u64(format_args!("the length of {what}"))?;
        if len == 0 || len > bytes_max {
            let reason = format!("the length of {what} is {len}, expected 1 to {bytes_max}");
            return Err(self.fail(reason));
        }
        let bytes = self.bytes(len, &what)?;
        std::str::from_utf8(bytes).map_err(|_| self.fail(format!("{what} is not UTF-8")))
    }
}
