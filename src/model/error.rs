//! Why a model cannot be loaded or run.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::backend::{BackendError, TensorError};

/// Why a model cannot be loaded or run. Every message names the file or field, what was found and
/// what was expected.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ModelError {
    /// `--model` names nothing that can be opened.
    #[error("--model {model}: {reason}")]
    Source {
        /// The argument, as given.
        model: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file is missing, unreadable or malformed.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// A tensor is missing, or is not what the file or the architecture says.
    #[error("{}: tensor {name}: {reason}", file.display())]
    Tensor {
        /// The file that holds it or should.
        file: PathBuf,
        /// The tensor's name in that file.
        name: String,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// A field of the model's configuration is missing, of the wrong type or out of range.
    #[error("config.json: {field}: {reason}")]
    Config {
        /// The field, with dots for nesting (`rope_scaling.factor`).
        field: String,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// An architecture, field value or element type that this version does not implement.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// What was asked for, by name and with the place where it was found.
        what: String,
        /// Everything that is supported in its place, separated by commas.
        supported: String,
    },
    /// The model or its KV cache does not fit.
    #[error("{what} needs {needed_bytes} bytes, but {available_bytes} are available; {advice}")]
    Memory {
        /// What does not fit.
        what: String,
        /// Bytes that it needs.
        needed_bytes: u64,
        /// Bytes that there are.
        available_bytes: u64,
        /// What to do about it.
        advice: String,
    },
    /// A setting that does not go with this model.
    #[error("--{name}: {reason}")]
    Setting {
        /// The flag without its dashes.
        name: &'static str,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// The backend cannot take a tensor or reserve a buffer.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl ModelError {
    /// A [`ModelError::File`].
    pub fn file(path: impl AsRef<Path>, reason: impl Display) -> Self {
        Self::File { path: path.as_ref().to_owned(), reason: reason.to_string() }
    }

    /// A [`ModelError::Tensor`].
    pub fn tensor(file: impl AsRef<Path>, name: impl Display, reason: impl Display) -> Self {
        Self::Tensor {
            file: file.as_ref().to_owned(),
            name: name.to_string(),
            reason: reason.to_string(),
        }
    }

    /// A [`ModelError::Config`].
    pub fn config(field: impl Display, reason: impl Display) -> Self {
        Self::Config { field: field.to_string(), reason: reason.to_string() }
    }

    /// A [`ModelError::Unsupported`] with the list of what is supported.
    pub fn unsupported(what: impl Display, supported: &[&str]) -> Self {
        Self::Unsupported { what: what.to_string(), supported: supported.join(", ") }
    }

    /// A tensor whose bytes are not what type and shape say, in the file that holds it.
    pub fn malformed(file: impl AsRef<Path>, error: &TensorError) -> Self {
        let (TensorError::Overflow { name, .. }
        | TensorError::PartialBlock { name, .. }
        | TensorError::Length { name, .. }) = error;
        let said = error.to_string();
        let reason = said.strip_prefix(&format!("tensor {name}: ")).unwrap_or(&said);
        Self::tensor(file, name, reason)
    }
}
