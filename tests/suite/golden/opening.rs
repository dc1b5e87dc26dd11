//! Opening a model: what is said about it, and in which words it is refused.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;
use weir::backend::DType;
use weir::backend::cpu::{CpuBackend, CpuOptions};
use weir::clock::ManualClock;
use weir::device::{Device, SamplingParams};
use weir::ids::TokenId;
use weir::model::weights::{DummyWeights, SafetensorsWeights, WeightSource};
use weir::model::{Checkpoint, KvMemory, OpenOptions, Opened, families, open, read_json};

use super::driver::{Driver, OPTIONS, Part};
use super::fixture::{GGUF, MODELS, folder, gguf};
use super::greedy::stranger;

fn attempt(checkpoint: &Checkpoint, options: &OpenOptions) -> Result<Opened<CpuBackend>, String> {
    let cpu = CpuOptions { threads: NonZeroUsize::MIN, ..CpuOptions::default() };
    let backend = CpuBackend::new(&cpu).unwrap();
    open(checkpoint, options, backend, Arc::new(ManualClock::default())).map_err(|e| e.to_string())
}

/// The fixture `name` with its weight file changed, in memory.
fn with_tensors(name: &str, change: impl Fn(&mut Vec<(String, TensorView<'_>)>)) -> Checkpoint {
    let path = folder(name).join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors: Vec<(String, TensorView<'_>)> =
        SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().collect();
    change(&mut tensors);
    let bytes = Bytes::from(safetensors::serialize(tensors, None).unwrap());
    let weights = SafetensorsWeights::from_bytes(path, bytes).unwrap();
    let checkpoint = Checkpoint::open_folder(&folder(name)).unwrap();
    Checkpoint { weights: WeightSource::Safetensors(weights), ..checkpoint }
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn says_what_the_model_is() {
    let opened = attempt(&Checkpoint::open_folder(&folder("llama3")).unwrap(), &OPTIONS).unwrap();
    let info = opened.info;
    let bytes = std::fs::read(folder("llama3").join("model.safetensors")).unwrap();
    let values: usize = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .iter()
        .map(|(_, tensor)| tensor.shape().iter().product::<usize>())
        .sum();
    assert_eq!(info.parameters, values as u64);
    assert_eq!(info.weight_bytes, 4 * values as u64);
    assert_eq!((info.name.as_str(), info.architecture.as_str()), ("llama3", "LlamaForCausalLM"));
    assert_eq!((info.context_tokens, info.vocab_size), (128, 256));
    assert_eq!((info.dtype, info.kv_dtype), (DType::F32, DType::F32));
    assert_eq!(info.eos, [TokenId(2)]);
    // 64 sequences of 128 tokens, 3 layers of K and V, 2 heads of 16 values of 4 bytes.
    assert_eq!(info.kv_bytes, 64 * 128 * 3 * 2 * 2 * 16 * 4);
    assert_eq!(opened.runner.limits().blocks_total, 64 * 128 / 8);
}

#[test]
fn end_tokens_of_both_configurations_count() {
    let mut checkpoint = Checkpoint::open_folder(&folder("llama3")).unwrap();
    checkpoint.generation_config = Some(json!({"eos_token_id": [2, 9, 7], "temperature": 0.6}));
    let eos = attempt(&checkpoint, &OPTIONS).unwrap().info.eos;
    assert_eq!(eos, [TokenId(2), TokenId(7), TokenId(9)]);
}

#[test]
fn a_tensor_that_is_missing_is_named() {
    for name in ["model.norm.weight", "model.layers.2.mlp.up_proj.weight", "lm_head.weight"] {
        let checkpoint = with_tensors("llama2", |tensors| tensors.retain(|(t, _)| t != name));
        let message = attempt(&checkpoint, &OPTIONS).unwrap_err();
        assert_says(&message, &[name, "model.safetensors", "missing"]);
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    for (field, value, words) in [
        ("hidden_size", json!(128), ["model.embed_tokens.weight", "[256, 64]", "[256, 128]"]),
        ("intermediate_size", json!(96), ["mlp.gate_proj.weight", "[160, 64]", "[96, 64]"]),
        ("num_key_value_heads", json!(4), ["self_attn.k_proj.weight", "[32, 64]", "[64, 64]"]),
    ] {
        let mut checkpoint = Checkpoint::open_folder(&folder("mistral")).unwrap();
        checkpoint.config[field] = value;
        assert_says(&attempt(&checkpoint, &OPTIONS).unwrap_err(), &words);
    }
}

#[test]
fn tensors_that_nobody_uses_are_reported_and_redundant_ones_are_not() {
    let checkpoint = with_tensors("llama3", |tensors| {
        let table = tensors.iter().find(|(name, _)| name == "model.embed_tokens.weight");
        let table = table.unwrap().1.clone();
        for name in [
            "lm_head.weight",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.layers.0.self_attn.q_proj.lora_a",
        ] {
            tensors.push((name.to_owned(), table.clone()));
        }
    });
    let warnings = attempt(&checkpoint, &OPTIONS).unwrap().info.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_says(&warnings[0], &["model.layers.0.self_attn.q_proj.lora_a", "not used"]);
}

#[test]
fn a_kv_cache_that_does_not_fit_says_which_context_would() {
    let checkpoint = Checkpoint::open_folder(&folder("llama3")).unwrap();
    // A token needs 768 bytes; there is room for 10 blocks of 8.
    let memory = KvMemory::Bytes(768 * 8 * 10 + 100);
    let options = OpenOptions { kv_memory: memory, ..OPTIONS };
    let message = attempt(&checkpoint, &options).unwrap_err();
    assert_says(&message, &["128 tokens", "--max-model-len 80", "--kv-cache-memory-bytes"]);
    let options = OpenOptions { context_tokens_max: Some(80), ..options };
    assert_eq!(attempt(&checkpoint, &options).unwrap().runner.limits().blocks_total, 10);

    let options = OpenOptions { kv_memory: KvMemory::AtMost(1000), ..OPTIONS };
    assert_says(&attempt(&checkpoint, &options).unwrap_err(), &["KV cache", "available"]);
}

#[test]
fn a_context_beyond_the_models_is_refused() {
    let checkpoint = Checkpoint::open_folder(&folder("llama3")).unwrap();
    let options = OpenOptions { context_tokens_max: Some(513), ..OPTIONS };
    assert_says(&attempt(&checkpoint, &options).unwrap_err(), &["--max-model-len", "513", "512"]);
}

#[test]
fn every_architecture_runs_on_random_weights() {
    for name in MODELS {
        for dtype in [DType::F32, DType::BF16] {
            let checkpoint =
                Checkpoint::open_dummy(&folder(name), DummyWeights::new(dtype, 7).unwrap())
                    .unwrap();
            let mut driver = Driver::over(&checkpoint, None);
            let mut seat = driver.seat(SamplingParams::greedy());
            let part = Part::tokens(&mut seat, &stranger(1, 20)).score_all(0);
            let logits = driver.logits(vec![part]);
            assert!(logits.iter().all(|l| l.is_finite()), "{name}");
            let (low, high) =
                logits.iter().fold((f32::MAX, f32::MIN), |(a, b), &l| (a.min(l), b.max(l)));
            assert!(high - low > 0.1, "{name}: logits from {low} to {high}");
        }
    }
}

#[test]
fn gguf_files_name_themselves() {
    for name in GGUF {
        let checkpoint = Checkpoint::open_gguf(&gguf(name, "gguf")).unwrap();
        let info = attempt(&checkpoint, &OPTIONS).unwrap().info;
        assert_eq!((info.name.as_str(), &info.warnings), (*name, &Vec::new()));
        assert!(matches!(info.kv_dtype, DType::F32 | DType::F16 | DType::BF16));
    }
}

#[test]
fn configurations_in_the_words_of_other_releases_mean_the_same() {
    let mut tried = 0;
    for name in MODELS {
        let spec = |config: &str| {
            let path = folder(name).join(config);
            let there = path.exists().then(|| read_json(&path).unwrap());
            there.map(|config| families::spec(&config, Some(128)).unwrap())
        };
        let expected = spec("config.json").unwrap();
        for other in ["config-older.json", "config-newer.json"] {
            let Some(read) = spec(other) else { continue };
            assert_eq!(read, expected, "{name}/{other}");
            tried += 1;
        }
    }
    assert!(tried >= 20, "only {tried} files were there");
}
