//! Weight files: what is read, and what is refused in which words.

mod dummy;
mod gguf;
mod gguf_file;
mod hostile;
mod safetensors;

use std::path::{Path, PathBuf};

/// The committed fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A new empty folder for one test.
pub fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights").join(test);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Asserts that an error's message has every one of these words.
pub fn assert_says(error: &impl std::fmt::Display, words: &[&str]) {
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}
