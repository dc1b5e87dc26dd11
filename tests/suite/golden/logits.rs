//! Logits of the whole sequence.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use weir::device::SamplingParams;
use weir::ids::TokenId;
use weir::model::Checkpoint;

use super::driver::{Driver, Part};
use super::fixture::{MODELS, expected, folder};

const TOLERANCE_F32: f32 = 1e-4;
const TOLERANCE_BF16: f32 = 2e-2;

/// Logits of every position, computed in chunks.
fn logits_of(driver: &mut Driver, tokens: &[TokenId], chunk: usize) -> Vec<f32> {
    let mut seat = driver.seat(SamplingParams::greedy());
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        logits.extend(driver.logits(vec![Part::tokens(&mut seat, tokens).score_all(0)]));
    }
    driver.leave(seat);
    logits
}

#[test]
fn agree_with_the_reference_in_f32() {
    for name in MODELS {
        let expected = expected(name);
        let mut driver = Driver::open(&folder(name));
        let sequence = expected.sequence();
        for chunk in [sequence.len(), 48, 13, 1] {
            let found = logits_of(&mut driver, &sequence, chunk);
            assert_eq!(found.len(), expected.logits.values.len());
            let what = format!("{name} in chunks of {chunk}");
            expected.logits.check(0, &found, TOLERANCE_F32, &what);
        }
    }
}

#[test]
fn agree_with_the_reference_in_bf16() {
    for name in MODELS {
        let expected = expected(name);
        let scratch = Scratch::new(name);
        scratch.cast_to_bf16();
        let checkpoint = Checkpoint::open_folder(&scratch.path).unwrap();
        // The KV cache is bf16 as well, as it is for a user of such a file.
        let mut driver = Driver::over(&checkpoint, None);
        let found = logits_of(&mut driver, &expected.sequence(), 48);
        let bf16 = expected.logits_bf16.unwrap();
        bf16.check(0, &found, TOLERANCE_BF16, name);
    }
}

#[test]
fn scores_are_the_log_probabilities_of_all_tokens() {
    for name in ["llama3", "gemma2"] {
        let expected = expected(name);
        let vocab = expected.logits.columns;
        let mut driver = Driver::open(&folder(name));
        let mut seat = driver.seat(SamplingParams::greedy());
        let part = Part::tokens(&mut seat, &expected.sequence()).score_all(vocab as u32);
        let output = driver.step(vec![part]).clone();
        assert_eq!(output.scores.len(), expected.sequence().len());
        for (row, score) in expected.logits.values.chunks(vocab).zip(&output.scores) {
            let top = &score.logprob.top;
            assert_eq!(top.len(), vocab);
            assert!(top.windows(2).all(|w| w[0].1 >= w[1].1), "{name}: not in descending order");
            let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            for &(token, logprob) in top {
                let expected = f64::from(row[token.index()]) - sum.ln();
                let off = (f64::from(logprob) - expected).abs();
                assert!(off < 2e-3, "{name}: token {token}: {logprob} is not {expected}");
            }
        }
    }
}

/// A copy of a model folder in a temporary place.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-bf16").join(name);
        std::fs::create_dir_all(&path).unwrap();
        for entry in std::fs::read_dir(folder(name)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, path.join(from.file_name().unwrap())).unwrap();
        }
        Self { path }
    }

    /// Rewrites every weight file in bf16.
    fn cast_to_bf16(&self) {
        for entry in std::fs::read_dir(&self.path).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !name.starts_with("model") || !name.ends_with(".safetensors") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let cast: Vec<(String, Vec<usize>, Vec<u8>)> = file
                .tensors()
                .into_iter()
                .map(|(name, tensor)| (name, tensor.shape().to_vec(), bf16_bytes(&tensor)))
                .collect();
            let views = cast.iter().map(|(name, shape, data)| {
                (name.clone(), TensorView::new(Dtype::BF16, shape.clone(), data).unwrap())
            });
            serialize_to_file(views, None, &path).unwrap();
        }
    }
}

fn bf16_bytes(tensor: &TensorView<'_>) -> Vec<u8> {
    let rounded = |value: f32| half::bf16::from_f32(value).to_le_bytes();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => {
            let words = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            words.flat_map(rounded).collect()
        }
        Dtype::F16 => {
            let words = data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]));
            words.flat_map(|word| rounded(word.to_f32())).collect()
        }
        Dtype::BF16 => data.to_vec(),
        other => panic!("{other:?} is not a type of weights"),
    }
}
