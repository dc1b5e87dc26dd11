//! The short form of fuzzing: seeded mutations of good inputs through the functions of `fuzz/`.

#[path = "fuzz/flips.rs"]
mod flips;
#[path = "../../fuzz/src/model_files.rs"]
mod model_files;
#[path = "fuzz/mutator.rs"]
mod mutator;
#[path = "../../fuzz/src/template.rs"]
mod template;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutator::Mutator;

use crate::weights::fixtures;

/// Any number will do; another one makes other mutations.
const SEED: u64 = 0x77e1_2026;
/// Mutations start from files of at most this size: what matters is in their headers.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// The files below a folder of fixtures that end in `end`.
pub fn inputs(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(fixtures().join(folder)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let small = |path: &PathBuf| fs::metadata(path).unwrap().len() <= INPUT_BYTES_MAX;
    paths.retain(|path| path.to_string_lossy().ends_with(end) && small(path));
    paths.sort();
    paths
}

fn contents(paths: Vec<PathBuf>) -> Vec<Vec<u8>> {
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Calls `target` with each input, then with `count` mutations of them. When it panics, the seed
/// and the place of the failing input are printed.
fn run(name: &str, inputs: &[Vec<u8>], count: usize, target: fn(&[u8])) {
    assert!(inputs.len() > 1, "{name} starts from several inputs");
    for input in inputs {
        target(input);
    }
    let mut mutator = Mutator::new(SEED, inputs);
    for index in 0..count {
        let input = mutator.mutate();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}.bin"));
            fs::write(&path, &input).unwrap();
            eprintln!("{name}: seed {SEED:#x}, mutation {index}: input in {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn mutated_gguf_files_end_in_errors() {
    let mut files = contents(inputs("hostile/gguf", ".gguf"));
    files.extend(contents(inputs("hostile/gguf-model", ".gguf")));
    files.extend(contents(inputs("hostile/gguf-tokenizer", ".gguf")));
    run("gguf", &files, 150_000, model_files::gguf);
}

#[test]
fn mutated_safetensors_files_end_in_errors() {
    let files = contents(inputs("hostile/safetensors", ".safetensors"));
    run("safetensors", &files, 150_000, model_files::safetensors);
}

#[test]
fn mutated_templates_end_in_errors() {
    let join = |path: PathBuf| {
        let file = fs::read(path.with_extension("json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let chat = expected["cases"][0].to_string();
        [&fs::read(&path).unwrap()[..], b"\0", chat.as_bytes()].concat()
    };
    let files: Vec<_> = inputs("text/templates", ".jinja").into_iter().map(join).collect();
    run("template", &files, 4_000, template::template);
}
