//! Models that the Hugging Face tools have downloaded: ids, and their folders in the local cache.
//! Layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ModelError;

/// Longest part of an id, as on the hub.
const PART_BYTES_MAX: usize = 96;
/// Longest file under `refs/`: a commit is 40 characters.
const REF_BYTES_MAX: u64 = 64;

/// `org/name`, both of which are plain names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubId {
    org: String,
    name: String,
}

impl HubId {
    /// An id, if that is what the text is. Its parts cannot lead out of a folder.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (org, name) = text.split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty()
                && part.len() <= PART_BYTES_MAX
                && !part.starts_with(['.', '-'])
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let gguf = name.to_ascii_lowercase().ends_with(".gguf");
        (plain(org) && plain(name) && !gguf)
            .then(|| Self { org: org.to_owned(), name: name.to_owned() })
    }

    /// The folder of the model's files in the cache: the commit that `refs/main` names, or the
    /// only one there is.
    ///
    /// # Errors
    /// [`ModelError::Source`] saying where was looked, and how to download the model.
    pub(super) fn snapshot(&self, cache: Option<&Path>) -> Result<PathBuf, ModelError> {
        let Self { org, name } = self;
        let Some(cache) = cache else {
            return Err(self.absent("no Hugging Face cache is known on this machine"));
        };
        let model = cache.join(format!("models--{org}--{name}"));
        if !model.is_dir() {
            return Err(self.absent(&format!("it is not in the cache at {}", cache.display())));
        }
        let snapshots = model.join("snapshots");
        let reference = model.join("refs").join("main");
        if reference.is_file() {
            let commit = commit_in(&reference)?;
            let snapshot = snapshots.join(&commit);
            if snapshot.is_dir() {
                return Ok(snapshot);
            }
            let reason = format!("commit {commit} is not in {}", snapshots.display());
            return Err(self.absent(&reason));
        }
        let entries = fs::read_dir(&snapshots).into_iter().flatten().flatten();
        let mut folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
        match (folders.next(), folders.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(self.absent(&format!("{} has no snapshot", model.display()))),
            (Some(_), Some(_)) => {
                let reason = format!(
                    "{} has several snapshots and no refs/main; name one of them as a folder",
                    snapshots.display()
                );
                Err(ModelError::Source { model: self.to_string(), reason })
            }
        }
    }

    fn absent(&self, why: &str) -> ModelError {
        let Self { org, name } = self;
        let reason = format!(
            "there is no such folder or file, and as a model of the Hugging Face hub {why}; \
             models are not downloaded by this version: run `hf download {org}/{name} --local-dir \
             {name}`, then `weir serve --model ./{name}`"
        );
        ModelError::Source { model: self.to_string(), reason }
    }
}

impl std::fmt::Display for HubId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.org, self.name)
    }
}

/// The commit that a file under `refs/` names.
fn commit_in(reference: &Path) -> Result<String, ModelError> {
    let length = fs::metadata(reference).map_err(|e| ModelError::file(reference, e))?.len();
    let text = match length {
        0..=REF_BYTES_MAX => {
            fs::read_to_string(reference).map_err(|error| ModelError::file(reference, error))?
        }
        _ => String::new(),
    };
    let commit = text.trim();
    if commit.is_empty() || !commit.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(ModelError::file(reference, "expected a commit of hexadecimal digits"));
    }
    Ok(commit.to_owned())
}
