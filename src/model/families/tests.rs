//! What each family reads, and what it refuses. The arithmetic is tested against the reference's
//! logits in `tests/suite/golden`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::model::MlpSpec;

/// config.json of a committed fixture.
fn fixture(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models");
    let text = std::fs::read_to_string(format!("{folder}/{name}/config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn with(mut config: Value, name: &str, value: Value) -> Value {
    config[name] = value;
    config
}

fn refusal(config: &Value) -> String {
    spec(config, None).unwrap_err().to_string()
}

#[test]
fn layer_kinds_follow_each_familys_fields() {
    let windows = |config: &Value| -> Vec<Option<u32>> {
        spec(config, None).unwrap().layers.iter().map(|layer| layer.window_tokens).collect()
    };
    assert_eq!(windows(&fixture("llama3")), [None; 3]);
    assert_eq!(windows(&fixture("mistral")), [Some(16); 3]);
    assert_eq!(windows(&with(fixture("mistral"), "sliding_window", Value::Null)), [None; 3]);
    assert_eq!(windows(&fixture("gemma2")), [Some(12), None, Some(12), None]);
    assert_eq!(windows(&fixture("gemma3")), [Some(12), Some(12), None, Some(12)]);
    let mut config = fixture("gemma3");
    config.as_object_mut().unwrap().remove("layer_types");
    assert_eq!(windows(&config), [Some(12), Some(12), None, Some(12)]);

    let mut config = fixture("qwen2");
    config.as_object_mut().unwrap().remove("layer_types");
    config["sliding_window"] = json!(7);
    config["max_window_layers"] = json!(1);
    assert_eq!(windows(&config), [None; 3], "use_sliding_window is false");
    config["use_sliding_window"] = json!(true);
    assert_eq!(windows(&config), [None, Some(7), Some(7)]);
}

#[test]
fn experts_are_where_the_fields_put_them() {
    let sparse = |name: &str| -> Vec<bool> {
        let spec = spec(&fixture(name), None).unwrap();
        spec.layers.iter().map(|layer| matches!(layer.mlp, MlpSpec::Moe { .. })).collect()
    };
    assert_eq!(sparse("mixtral"), [true, true, true]);
    assert_eq!(sparse("qwen3-moe"), [true, false, true]);
    assert_eq!(sparse("qwen3-moe-raw"), [false, true, false]);
    assert_eq!(sparse("qwen3"), [false, false, false]);
}

#[test]
fn rope_parameters_of_transformers_5_mean_the_same() {
    let old = fixture("llama3");
    let mut new = old.clone();
    let map = new.as_object_mut().unwrap();
    let mut parameters = map.remove("rope_scaling").unwrap();
    parameters["rope_theta"] = map.remove("rope_theta").unwrap();
    new["rope_parameters"] = parameters;
    assert_eq!(spec(&old, None).unwrap(), spec(&new, None).unwrap());

    let old = fixture("gemma3");
    let mut new = old.clone();
    let map = new.as_object_mut().unwrap();
    let mut global = map.remove("rope_scaling").unwrap();
    global["rope_theta"] = map.remove("rope_theta").unwrap();
    let local = map.remove("rope_local_base_freq").unwrap();
    new["rope_parameters"] = json!({
        "full_attention": global,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    });
    assert_eq!(spec(&old, None).unwrap(), spec(&new, None).unwrap());
}

#[test]
fn text_part_of_a_model_with_vision_is_read() {
    let mut text = fixture("gemma3");
    text.as_object_mut().unwrap().remove("architectures");
    let config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106],
        "text_config": text, "vision_config": {"hidden_size": 1152},
    });
    let read = spec(&config, None).unwrap();
    assert_eq!(read.names.roots[0], "language_model.model.");
    assert_eq!(read.layers, spec(&fixture("gemma3"), None).unwrap().layers);
}

#[test]
fn frequencies_are_those_of_the_reference() {
    // Printed by ROPE_INIT_FUNCTIONS of transformers 4.57.6.
    let cases = [
        (
            with(fixture("llama3"), "max_position_embeddings", json!(512)),
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
                "beta_fast": 8.0}),
            vec![
                1.0,
                0.237_170_82,
                0.049_999_997,
                0.007_905_695,
                0.0025,
                0.000_790_569_47,
                0.000_25,
                7.905_695e-5,
            ],
            1.138_629_4,
        ),
        (
            fixture("llama3"),
            fixture("llama3")["rope_scaling"].clone(),
            vec![
                1.0,
                0.244_384_59,
                0.013_042_256,
                0.003_952_847_3,
                0.00125,
                0.000_395_284_73,
                0.000_125,
                3.952_847_3e-5,
            ],
            1.0,
        ),
        (
            with(
                with(fixture("phi3"), "original_max_position_embeddings", json!(128)),
                "partial_rotary_factor",
                json!(0.75),
            ),
            json!({"type": "su", "short_factor": [1.0, 1.1, 1.25, 1.5, 2.0, 3.0],
                "long_factor": [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]}),
            vec![
                1.0,
                0.195_857_69,
                0.037_132_706,
                0.006_666_667,
                0.001_077_217_2,
                0.000_154_719_66,
            ],
            1.133_893_4,
        ),
    ];
    for (config, scaling, inv_freq, magnitude) in cases {
        let read = spec(&with(config, "rope_scaling", scaling), Some(128)).unwrap();
        let rope = &read.ropes[0];
        assert_eq!(rope.inv_freq.len(), inv_freq.len());
        for (found, expected) in rope.inv_freq.iter().zip(&inv_freq) {
            assert!((found - expected).abs() <= 3e-7 * expected, "{found} is not {expected}");
        }
        assert!((rope.magnitude - magnitude).abs() < 1e-6, "{}", rope.magnitude);
    }
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    let llama = || fixture("llama3");
    let cases: Vec<(Value, &[&str])> = vec![
        (
            with(llama(), "architectures", json!(["MambaForCausalLM"])),
            &["MambaForCausalLM", "Qwen3"],
        ),
        (with(llama(), "hidden_act", json!("relu")), &["hidden_act", "relu", "silu"]),
        (with(llama(), "rope_scaling", json!({"type": "dynamic", "factor": 2.0})), &["dynamic"]),
        (
            with(llama(), "quantization_config", json!({"bits": 4})),
            &["quantization_config", "GGUF"],
        ),
        (with(llama(), "attention_multiplier", json!(0.5)), &["attention_multiplier", "remove"]),
        (with(llama(), "sliding_window", json!(64)), &["sliding_window", "LlamaForCausalLM"]),
        (with(llama(), "rope_interleaved", json!(true)), &["rope_interleaved"]),
        (with(fixture("gemma3"), "use_bidirectional_attention", json!(true)), &["bidirectional"]),
        (
            with(fixture("gemma3"), "attn_logit_softcapping", json!(50.0)),
            &["attn_logit_softcapping"],
        ),
        (
            with(fixture("qwen2"), "layer_types", json!(["a", "b", "c"])),
            &["layer type", "full_att"],
        ),
        (
            with(
                fixture("phi3"),
                "rope_scaling",
                json!({"type": "longrope", "short_factor": [1.0],
                "long_factor": [1.0], "original_max_position_embeddings": 64}),
            ),
            &["longrope", "--max-model-len 64"],
        ),
    ];
    for (config, words) in cases {
        let message = refusal(&config);
        for word in words {
            assert!(message.contains(word), "{message:?} does not name {word:?}");
        }
    }
}

#[test]
fn sizes_out_of_range_are_errors_with_the_fields_name() {
    let cases = [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(1_000_000_000)),
        ("hidden_size", json!(-4)),
        ("hidden_size", json!("64")),
        ("hidden_size", Value::Null),
        ("num_hidden_layers", json!(100_000)),
        ("num_attention_heads", json!(1e300)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(4097)),
        ("vocab_size", json!(u64::MAX)),
        ("intermediate_size", json!(1_u64 << 40)),
        ("max_position_embeddings", json!(0.5)),
        ("rms_norm_eps", json!(0)),
        ("rope_theta", json!(-1.0)),
        ("eos_token_id", json!([1, "x"])),
        ("tie_word_embeddings", json!("yes")),
        ("partial_rotary_factor", json!(0.01)),
    ];
    for (name, value) in cases {
        let message = refusal(&with(fixture("llama3"), name, value.clone()));
        assert!(message.contains(name), "{name} = {value}: {message}");
    }
    assert!(refusal(&json!([1])).contains("object"));
}

#[test]
fn fields_without_meaning_for_inference_are_accepted() {
    let mut config = fixture("llama3");
    for (name, value) in [
        ("unsloth_fixed", json!(true)),
        ("attention_dropout", json!(0.1)),
        ("some_new_feature", Value::Null),
        ("some_newer_feature", json!(false)),
        ("hidden_size", json!(64.0)),
    ] {
        config[name] = value;
    }
    assert_eq!(spec(&config, None).unwrap(), spec(&fixture("llama3"), None).unwrap());
}
