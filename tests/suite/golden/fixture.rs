//! The committed model folders and what the reference said about them.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use weir::ids::TokenId;

/// Every folder of `tests/fixtures/models`.
pub const MODELS: &[&str] = &[
    "gemma2",
    "gemma3",
    "llama-bf16",
    "llama-f16",
    "llama-linear",
    "llama-sharded",
    "llama-yarn",
    "llama2",
    "llama3",
    "mistral",
    "mixtral",
    "phi3",
    "phi3-longrope",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "qwen3-moe",
    "qwen3-moe-raw",
];

/// Expected values of one model.
pub struct Expected {
    pub prompt: Vec<TokenId>,
    pub greedy: Vec<TokenId>,
    /// Row `i` is the answer after token `i` of [`Expected::sequence`].
    pub logits: Matrix,
    /// The same computed in bf16; GGUF fixtures have none.
    pub logits_bf16: Option<Matrix>,
    /// How far the reference moves when inputs of products are rounded to int8; GGUF only.
    pub int8_deviation: Option<f32>,
}

/// Row-major values.
pub struct Matrix {
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Expected {
    /// Reads `<stem>.json` and `<stem>.safetensors`.
    pub fn read(json: &Path, tensors: &Path) -> Self {
        let text = std::fs::read_to_string(json).unwrap();
        let facts: Value = serde_json::from_str(&text).unwrap();
        let ids = |name: &str| -> Vec<TokenId> {
            let list = facts[name].as_array().unwrap();
            list.iter().map(|id| TokenId(u32::try_from(id.as_u64().unwrap()).unwrap())).collect()
        };
        let bytes = std::fs::read(tensors).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Self {
            prompt: ids("prompt"),
            greedy: ids("greedy"),
            logits: Matrix::of(&file, "logits").unwrap(),
            logits_bf16: Matrix::of(&file, "logits_bf16"),
            int8_deviation: facts["int8_deviation"].as_f64().map(|d| d as f32),
        }
    }

    /// The tokens that the logits' rows follow: the prompt and all but the last of the answer.
    pub fn sequence(&self) -> Vec<TokenId> {
        let answer = &self.greedy[..self.greedy.len() - 1];
        self.prompt.iter().chain(answer).copied().collect()
    }
}

impl Matrix {
    fn of(file: &SafeTensors<'_>, name: &str) -> Option<Self> {
        let tensor = file.tensor(name).ok()?;
        let values = match tensor.dtype() {
            safetensors::Dtype::F32 => {
                let words = tensor.data().chunks_exact(4);
                words.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            }
            safetensors::Dtype::BF16 => {
                let words = tensor.data().chunks_exact(2);
                words.map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            other => panic!("{name} is {other:?}"),
        };
        Some(Self { columns: tensor.shape()[1], values })
    }

    /// Fails when `found` (rows from `first_row` on) is further off than `tolerance`.
    pub fn check(&self, first_row: usize, found: &[f32], tolerance: f32, what: &str) {
        let start = first_row * self.columns;
        let expected = &self.values[start..start + found.len()];
        let largest = self.values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
        let mut worst = (0.0, 0);
        for (index, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!(f.is_finite(), "{what}: logit {index} is {f}");
            let off = (f - e).abs() / largest;
            if off > worst.0 {
                worst = (off, index);
            }
        }
        let (row, column) = (first_row + worst.1 / self.columns, worst.1 % self.columns);
        let (off, found, expected) = (worst.0, found[worst.1], expected[worst.1]);
        // Shown with `--nocapture`.
        eprintln!("{what}: off by {off:.1e} of the largest logit, {tolerance:.0e} allowed");
        assert!(
            off <= tolerance,
            "{what}: row {row}, token {column}: {found} is not {expected}, off by {off:.1e} of \
             the largest logit, at most {tolerance:.0e} is allowed"
        );
    }
}

/// A folder of `tests/fixtures/models`.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// What the reference said about a folder.
pub fn expected(name: &str) -> Expected {
    let folder = folder(name);
    Expected::read(&folder.join("expected.json"), &folder.join("expected.safetensors"))
}

/// Every file of `tests/fixtures/gguf`, without its ending.
pub const GGUF: &[&str] = &[
    "gemma2-q8_0",
    "gemma3-f16",
    "llama-bf16",
    "llama-f16",
    "llama-f32",
    "llama-q4_0",
    "llama-q4_k",
    "llama-q4_k_m",
    "llama-q5_k",
    "llama-q6_k",
    "llama-q8_0",
    "llama3-rope-q8_0",
    "mixtral-q8_0",
    "phi3-q4_0",
    "qwen2-q8_0",
    "qwen3-q8_0",
    "qwen3moe-q8_0",
];

/// A file of `tests/fixtures/gguf` with this ending.
pub fn gguf(name: &str, ending: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    folder.join(format!("{name}.{ending}"))
}
