//! GGUF: what comes out of good files, and in which words bad ones are refused.

use bytes::Bytes;
use serde_json::json;
use weir::backend::DType;
use weir::model::ModelError;
use weir::model::families;
use weir::model::weights::{GgufWeights, WeightSource};

use super::gguf_file::{GgufFile, Value, list, small_llama, small_model, string};
use super::{assert_says, fixtures};

fn parse(file: &GgufFile) -> Result<GgufWeights, ModelError> {
    GgufWeights::from_bytes("m.gguf", Bytes::from(file.bytes()))
}

fn refused(file: &GgufFile, words: &[&str]) {
    assert_says(&parse(file).unwrap_err(), words);
}

#[test]
fn a_small_model_comes_out_as_it_went_in() {
    let weights = parse(&small_llama()).unwrap();
    assert_eq!(
        *weights.config(),
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": 6, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
            "max_position_embeddings": 64, "rms_norm_eps": 0.00001, "tie_word_embeddings": false,
            "eos_token_id": [4, 5], "bos_token_id": 3, "rope_theta": 10000.0,
            "sliding_window": null,
        })
    );
    let facts = weights.facts();
    assert_eq!(facts.architecture, "llama");
    assert_eq!(facts.name.as_deref(), Some("small"));
    assert!(facts.rope_interleaved && !facts.norms_include_offset);
    assert_eq!(facts.rope_factors, None);
    let vocabulary = weights.vocabulary().unwrap();
    assert_eq!(vocabulary.tokens, ["a", "b", "ab", "<s>", "</s>", "<|eot_id|>"]);
    assert_eq!(vocabulary.types, [1, 1, 1, 3, 3, 3]);
    assert_eq!(vocabulary.scores[2], -2.0);
    assert_eq!(vocabulary.merges, ["a b"]);
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (Some(3), Some(4), None));
    assert_eq!((vocabulary.add_bos, vocabulary.add_eos), (Some(true), None));
    assert_eq!(vocabulary.model, "gpt2");
    assert_eq!(vocabulary.pre.as_deref(), Some("llama-bpe"));
    assert_eq!(vocabulary.chat_template.as_deref(), Some("{{ messages }}"));
    let up = weights.get("model.layers.0.mlp.up_proj.weight").unwrap();
    assert_eq!((up.dtype(), up.shape()), (DType::F32, &[12, 8][..]));
    assert!(up.data().iter().all(|&byte| byte == 10), "the eleventh tensor is filled with 10");
}

#[test]
fn tensors_are_found_by_their_hugging_face_names_alone() {
    let weights = WeightSource::Gguf(Box::new(parse(&small_llama()).unwrap()));
    assert!(weights.contains("model.layers.0.self_attn.q_proj.weight"));
    assert!(!weights.contains("blk.0.attn_q.weight"));
    assert!(!weights.contains("model.layers.1.self_attn.q_proj.weight"));
    let error = weights.get("model.layers.1.mlp.up_proj.weight", &[12, 8]).unwrap_err();
    assert_says(&error, &["m.gguf", "model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"]);
    let error = weights.get("visual.proj.weight", &[1]).unwrap_err();
    assert_says(&error, &["visual.proj.weight", "no place in a file of llama"]);
    let error = weights.get("model.norm.weight", &[9]).unwrap_err();
    assert_says(&error, &["model.norm.weight", "has shape [8]", "asks for [9]"]);
}

/// Every fixture's metadata gives a configuration that the model room reads, and its tensors have
/// the names and shapes that the same family has in safetensors.
#[test]
fn every_fixture_maps_to_hugging_face_form() {
    let same_family = [
        ("llama-", "llama2"),
        ("llama3-", "llama3"),
        ("qwen2-", "qwen2"),
        ("qwen3-", "qwen3"),
        ("qwen3moe-", "qwen3-moe"),
        ("phi3-", "phi3"),
        ("mixtral-", "mixtral"),
        ("gemma2-", "gemma2"),
        ("gemma3-", "gemma3"),
    ];
    let mut seen = 0;
    for path in gguf_fixtures(|name| !name.starts_with("tokenizer-")) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let (_, family) = same_family.iter().find(|(start, _)| stem.starts_with(start)).unwrap();
        let weights = GgufWeights::open(&path).unwrap();
        let spec = families::spec(weights.config(), None).unwrap();
        let folder = fixtures().join("models").join(family);
        let other = std::fs::read(folder.join("config.json")).unwrap();
        let other = families::spec(&serde_json::from_slice(&other).unwrap(), None).unwrap();
        assert_eq!(spec.architecture, other.architecture, "{stem}");
        assert_eq!(spec.tied_embeddings, !weights.contains("lm_head.weight"), "{stem}");
        let reference = WeightSource::open_folder(&folder).unwrap();
        let expected = kinds_of(reference.names());
        let found = kinds_of(weights.names());
        let tied = |name: &String| name == "lm_head.weight";
        // The qwen3-moe folder also has a dense layer, for which the file has no room.
        let dense = |name: &String| {
            family.contains("moe")
                && (name.contains("mlp.up")
                    || name.contains("mlp.down")
                    || name.ends_with("mlp.gate_proj.weight"))
        };
        let expected: Vec<_> = expected.into_iter().filter(|n| !dense(n)).collect();
        assert!(
            expected.iter().filter(|n| !tied(n)).eq(found.iter().filter(|n| !tied(n))),
            "{stem}: {expected:#?} {found:#?}"
        );
        for name in weights.names() {
            weights.get(&name).unwrap();
        }
        seen += 1;
    }
    assert!(seen >= 17, "only {seen} fixtures");
}

/// The names with every number replaced, sorted, each once.
fn kinds_of(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let kind = |name: String| {
        let parts = name.split('.');
        let any =
            |part: &str| if part.parse::<u32>().is_ok() { "N".into() } else { part.to_owned() };
        parts.map(any).collect::<Vec<_>>().join(".")
    };
    let mut kinds: Vec<String> = names.into_iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

fn gguf_fixtures(choose: impl Fn(&str) -> bool) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(fixtures().join("gguf")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".gguf") && choose(name)
    });
    paths.sort();
    paths
}

#[test]
fn vocabularies_are_read_whole() {
    let paths = gguf_fixtures(|name| name.starts_with("tokenizer-"));
    assert!(paths.len() >= 4);
    for path in paths {
        let weights = GgufWeights::open(&path).unwrap();
        let vocabulary = weights.vocabulary().unwrap();
        let rows = weights.get("model.embed_tokens.weight").unwrap().shape()[0];
        assert_eq!(vocabulary.tokens.len(), rows, "{}", path.display());
        assert_eq!(vocabulary.types.len(), rows);
        assert!(vocabulary.chat_template.as_ref().is_some_and(|text| text.contains("messages")));
        let ends = &weights.config()["eos_token_id"];
        let eos = vocabulary.eos.unwrap();
        assert!(ends.as_array().unwrap().iter().any(|id| *id == json!(eos)), "{ends}");
        match vocabulary.model.as_str() {
            "gpt2" => assert!(vocabulary.pre.is_some() && !vocabulary.merges.is_empty()),
            "llama" => assert_eq!(vocabulary.scores.len(), rows),
            other => panic!("{other}"),
        }
    }
}

fn open_fixture(name: &str) -> GgufWeights {
    GgufWeights::open(&fixtures().join("gguf").join(name)).unwrap()
}

#[test]
fn families_differ_in_what_the_file_leaves_out() {
    let rope = open_fixture("llama3-rope-q8_0.gguf");
    let factors = rope.facts().rope_factors.as_ref().unwrap();
    assert_eq!(factors.len(), 8);
    assert_eq!((factors[0], factors[7]), (1.0, 8.0));
    assert_eq!(rope.config()["tie_word_embeddings"], true);

    let gemma = open_fixture("gemma3-f16.gguf");
    assert!(gemma.facts().norms_include_offset && !gemma.facts().rope_interleaved);
    let local = "sliding_attention";
    let types = json!([local, local, local, local, local, "full_attention", local]);
    assert_eq!(gemma.config()["layer_types"], types);
    assert_eq!(gemma.config()["rope_local_base_freq"], 10_000.0);
    assert_eq!(gemma.config()["rope_scaling"], json!({"rope_type": "linear", "factor": 8.0}));

    let gemma = open_fixture("gemma2-q8_0.gguf");
    let types = json!([local, "full_attention", local, "full_attention"]);
    assert_eq!(gemma.config()["layer_types"], types);
    assert_eq!(gemma.config()["attn_logit_softcapping"], 3.0);
    assert_eq!(gemma.config()["final_logit_softcapping"], 10.0);
    assert_eq!(gemma.config()["query_pre_attn_scalar"], 16);

    let phi = open_fixture("phi3-q4_0.gguf");
    assert_eq!(phi.config()["sliding_window"], json!(null));
    let fused = phi.get("model.layers.0.mlp.gate_up_proj.weight").unwrap();
    assert_eq!(fused.shape(), [320, 64]);

    let qwen = open_fixture("qwen3moe-q8_0.gguf");
    assert_eq!(qwen.config()["norm_topk_prob"], true);
    assert_eq!(qwen.config()["mlp_only_layers"], json!([]));
    assert!(!qwen.facts().rope_interleaved);
}

#[test]
fn experts_are_slices_of_their_stack() {
    let mixtral = open_fixture("mixtral-q8_0.gguf");
    assert_eq!(mixtral.config()["num_local_experts"], 4);
    let name = |expert| format!("model.layers.1.block_sparse_moe.experts.{expert}.w2.weight");
    let (first, last) = (mixtral.get(&name(0)).unwrap(), mixtral.get(&name(3)).unwrap());
    assert_eq!((first.dtype(), first.shape()), (DType::Q8_0, &[64, 64][..]));
    assert_eq!(first.data().len(), 64 * 64 / 32 * 34);
    assert_ne!(first.data(), last.data());
    assert!(!mixtral.contains(&name(4)));
    assert_says(&mixtral.get(&name(4)).unwrap_err(), &["experts.4.w2", "blk.1.ffn_down_exps"]);
    let names: Vec<String> = mixtral.names().collect();
    assert!(names.contains(&name(3)) && !names.contains(&name(4)));
}

/// Files of early 2024 have one tensor for each expert.
#[test]
fn experts_may_be_tensors_of_their_own() {
    let file = small_llama()
        .key("llama.expert_count", Value::U32(2))
        .key("llama.expert_used_count", Value::U32(1))
        .tensor("blk.0.ffn_gate.1.weight", &[8, 12]);
    let weights = parse(&file).unwrap();
    let name = "model.layers.0.block_sparse_moe.experts.1.w1.weight";
    assert_eq!(weights.get(name).unwrap().shape(), [12, 8]);
    assert!(weights.names().any(|found| found == name));
    assert!(!weights.contains("model.layers.0.block_sparse_moe.experts.0.w1.weight"));
}

#[test]
fn values_for_each_layer_must_agree() {
    let key = "qwen2.attention.sliding_window_pattern";
    refused(
        &small_llama().key("llama.rope.dimension_sections", Value::I32s(&[1])),
        &["llama.rope.dimension_sections", "not supported"],
    );
    assert!(parse(&small_llama().key("llama.expert_count", Value::U32(0))).is_ok());
    assert!(parse(&small_llama().key(key, Value::U32(7))).is_ok(), "another family's key");
    let with = |values: &[i32]| {
        let mut file = small_llama();
        file.keys.remove(5);
        file.key("llama.attention.head_count", Value::I32s(values))
    };
    assert!(parse(&with(&[2, 2])).is_ok());
    refused(&with(&[2, 1]), &["llama.attention.head_count", "differs between layers"]);
    refused(&with(&[-2]), &["llama.attention.head_count", "differs"]);
    refused(&with(&[]), &["llama.attention.head_count"]);
}

#[test]
fn local_layers_follow_the_file_where_it_says() {
    let name = "gemma3.attention.sliding_window_pattern";
    let types = |value| {
        parse(&small_model("gemma3").key(name, value)).unwrap().config()["layer_types"].clone()
    };
    assert_eq!(types(Value::Bools(&[0])), json!(["full_attention"]));
    assert_eq!(types(Value::Bools(&[1])), json!(["sliding_attention"]));
    assert_eq!(types(Value::U32(1)), json!(["full_attention"]));
    assert_eq!(types(Value::U32(2)), json!(["sliding_attention"]));
    let refused_with =
        |value, words: &[&str]| refused(&small_model("gemma3").key(name, value), words);
    refused_with(Value::Bools(&[1, 0]), &[name, "2 values, expected 1"]);
    refused_with(Value::U32(0), &[name, "at least 1"]);
    let mut many = small_model("gemma3");
    many.keys.remove(2);
    let many = many.key("gemma3.block_count", Value::U32(u32::MAX));
    refused(&many, &["gemma3.block_count", "4294967295"]);
}

#[test]
fn rope_scaling_takes_its_hugging_face_form() {
    let with = |keys: &[(&str, f32)]| {
        let file = small_llama().key("llama.rope.scaling.type", Value::Str("yarn"));
        let file = file.key("llama.rope.scaling.original_context_length", Value::U32(32));
        keys.iter().fold(file, |file, (name, value)| file.key(name, Value::F32(*value)))
    };
    let yarn = parse(&with(&[("llama.rope.scaling.factor", 4.0)])).unwrap();
    assert_eq!(
        yarn.config()["rope_scaling"],
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32})
    );
    let error = parse(&with(&[("llama.rope.scaling.attn_factor", 2.0)])).unwrap_err();
    assert_says(&error, &["llama.rope.scaling.attn_factor", "expected 1"]);
    let partial = small_llama().key("llama.rope.dimension_count", Value::U32(2));
    assert_eq!(parse(&partial).unwrap().config()["partial_rotary_factor"], 0.5);
    let long = small_model("phi3")
        .key("phi3.rope.scaling.attn_factor", Value::F32(1.5))
        .tensor("rope_factors_short.weight", &[2])
        .tensor("rope_factors_long.weight", &[2]);
    let scaling = parse(&long).unwrap().config()["rope_scaling"].clone();
    assert_eq!(
        (&scaling["rope_type"], &scaling["attention_factor"]),
        (&json!("longrope"), &json!(1.5))
    );
    assert_eq!(scaling["short_factor"].as_array().unwrap().len(), 2);
    let bad = small_llama().tensor("rope_freqs.weight", &[2, 2]);
    refused(&bad, &["rope_freqs.weight", "[2, 2]", "one dimension"]);
}

#[test]
fn needed_keys_are_missed_by_name() {
    for (index, name) in [
        (0, "general.architecture"),
        (2, "llama.block_count"),
        (3, "llama.embedding_length"),
        (4, "llama.feed_forward_length"),
        (5, "llama.attention.head_count"),
        (7, "llama.context_length"),
        (8, "llama.attention.layer_norm_rms_epsilon"),
        (10, "tokenizer.ggml.model"),
    ] {
        let mut file = small_llama();
        file.keys.remove(index);
        refused(&file, &["m.gguf", name, "missing"]);
    }
    let mut file = small_llama();
    file.tensors.remove(0);
    refused(&file, &["m.gguf", "token_embd.weight", "missing"]);
    file.tensors.clear();
    refused(&file, &["m.gguf", "no tensors"]);
}

#[test]
fn other_models_are_refused_by_name() {
    let named =
        |name| GgufFile::new().key("general.architecture", Value::Str(name)).tensor("t", &[1]);
    refused(&named("falcon"), &["\"falcon\"", "llama (Llama, Mistral, Mixtral), qwen2"]);
    refused(&small_llama().key("split.count", Value::U32(3)), &["split.count", "--merge"]);
    refused(&small_llama().key("general.type", Value::Str("mmproj")), &["mmproj", "\"model\""]);
    for (number, name) in
        [(10, "Q2_K"), (11, "Q3_K"), (6, "Q5_0"), (23, "IQ4_XS"), (99, "number 99")]
    {
        let file = small_llama().typed_tensor("x", &[256], number, &[0; 256]);
        refused(
            &file,
            &["m.gguf", "tensor x", name, "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K"],
        );
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let header = |edit: fn(&mut GgufFile)| {
        let mut file = small_llama();
        edit(&mut file);
        file
    };
    refused(&header(|f| f.version = 1), &["m.gguf", "version 1", "supported: 2, 3"]);
    refused(&header(|f| f.version = 4), &["version 4"]);
    refused(&header(|f| f.version = 3_u32.swap_bytes()), &["big-endian"]);
    assert!(parse(&header(|f| f.version = 2)).is_ok());
    refused(&header(|f| f.key_count = Some(u64::MAX)), &["18446744073709551615 metadata keys"]);
    refused(&header(|f| f.tensor_count = Some(1 << 60)), &["1152921504606846976 tensors"]);
    refused(&header(|f| f.tensor_count = Some(13)), &["m.gguf", "tensor 12"]);
    let error =
        GgufWeights::from_bytes("m.gguf", Bytes::from_static(b"PK\x03\x04junk")).unwrap_err();
    assert_says(&error, &["m.gguf", r"PK\x03\x04", "expected GGUF"]);
}

#[test]
fn metadata_that_lies_is_refused() {
    let with = |key: &str, value| GgufFile::new().key(key, value).tensor("t", &[1]);
    let raw = |number, bytes: &[u8]| Value::Raw(number, bytes.to_vec());
    let count =
        |kind: u32, count: u64| raw(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes()].concat());
    refused(&with("k", raw(13, &[0])), &["key k", "unknown value type 13"]);
    refused(&with("k", raw(9, &9_u32.to_le_bytes())), &["key k", "list of lists"]);
    refused(
        &with("k", count(4, u64::MAX)),
        &["key k", "18446744073709551615 values of at least 4"],
    );
    refused(&with("k", count(8, 1 << 61)), &["key k", "values of at least 8"]);
    refused(&with("k", count(0, 1 << 40)), &["key k", "1099511627776 values"]);
    refused(&with("k", raw(8, &u64::MAX.to_le_bytes())), &["key k", "truncated"]);
    refused(&with("", Value::U32(1)), &["metadata key 0", "length", "expected 1 to 65535"]);
    refused(&with("k", Value::U32(1)).key("k", Value::U32(1)), &["key k", "twice"]);
    let long = "k".repeat(65_536);
    refused(&with(&long, Value::U32(1)), &["length of metadata key 0 is 65536"]);
    let mut file = GgufFile::new();
    file.keys.push([string(b"\xff\xfe"), 4_u32.to_le_bytes().to_vec(), vec![0; 4]].concat());
    refused(&file, &["metadata key 0 is not UTF-8"]);
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    let replaced = |index: usize, key: &str, value| {
        let mut file = small_llama();
        file.keys.remove(index);
        file.key(key, value)
    };
    let cases: Vec<(usize, &str, Value<'_>, &[&str])> = vec![
        (0, "general.architecture", Value::U32(1), &["type U32", "expected a UTF-8 string"]),
        (2, "llama.block_count", Value::Str("1"), &["type String", "expected an integer"]),
        (2, "llama.block_count", Value::F32(1.0), &["type F32", "expected an integer"]),
        (2, "llama.block_count", Value::Raw(11, vec![255; 8]), &["type I64", "an integer of 0"]),
        (8, "llama.attention.layer_norm_rms_epsilon", Value::U32(1), &["type U32", "a float"]),
        (8, "llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), &["NaN", "finite"]),
        (12, "tokenizer.ggml.tokens", Value::I32s(&[1]), &["list of 1", "type I32", "strings"]),
        (12, "tokenizer.ggml.tokens", Value::Str("a"), &["type String", "a list of strings"]),
        (13, "tokenizer.ggml.token_type", Value::F32s(&[1.0; 6]), &["type F32", "integers"]),
        (13, "tokenizer.ggml.token_type", Value::I32s(&[1]), &["has 1 values", "6 tokens"]),
        (14, "tokenizer.ggml.scores", Value::Strs(&["a"; 6]), &["type String", "floats"]),
        (16, "tokenizer.ggml.bos_token_id", Value::U32(6), &["is 6", "below 6"]),
        (18, "tokenizer.ggml.add_bos_token", Value::Bool(2), &["a bool of 2", "0 or 1"]),
    ];
    for (index, key, value, words) in cases {
        let error = parse(&replaced(index, key, value)).unwrap_err();
        assert_says(&error, &["m.gguf", key]);
        assert_says(&error, words);
    }
    let (number, bytes) = list(8, 1, string(b"\xff").into_iter());
    let file = replaced(15, "tokenizer.ggml.merges", Value::Raw(number, bytes));
    refused(&file, &["tokenizer.ggml.merges", "string 0 is not UTF-8"]);
}

#[test]
fn alignments_are_small_powers_of_two() {
    for bad in [0, 1, 3, 24, 8192, u32::MAX] {
        let file = small_llama().key("general.alignment", Value::U32(bad));
        refused(&file, &["general.alignment", &bad.to_string(), "power of two of 8 to 4096"]);
    }
    let mut file = GgufFile::new();
    file.alignment = 4096;
    file = file.key("general.alignment", Value::U32(4096)).tensor("a", &[1]).tensor("b", &[1]);
    file = file.key("general.architecture", Value::Str("none"));
    refused(&file, &["none"]);
}

#[test]
fn tensor_descriptions_that_lie_are_refused() {
    let max = u64::MAX;
    let raw = |ne: &[u64], kind, offset| {
        let mut file = GgufFile::new().raw_tensor("t", ne, kind, offset);
        file.data = vec![0; 64];
        file
    };
    let cases: Vec<(GgufFile, &[&str])> = vec![
        (raw(&[], 0, 0), &["tensor t", "0 dimensions"]),
        (raw(&[1; 5], 0, 0), &["tensor t", "5 dimensions, expected 1 to 4"]),
        (raw(&[1, 0], 0, 0), &["tensor t", "dimension of 0"]),
        (raw(&[max, max], 0, 0), &["tensor t", "overflows"]),
        (raw(&[max], 0, 0), &["tensor t", "overflows"]),
        (raw(&[1 << 40], 0, 0), &["tensor t", "4398046511104 bytes", "truncated"]),
        (raw(&[17], 0, 0), &["tensor t", "68 bytes at offset 0", "64 bytes of data"]),
        (raw(&[4], 0, max - 31), &["tensor t", "truncated"]),
        (raw(&[4], 0, 8), &["tensor t", "offset 8", "multiple of 32"]),
        (raw(&[33], 8, 0), &["tensor t", "33", "blocks of 32"]),
        (raw(&[128], 12, 0), &["tensor t", "128", "Q4K blocks of 256"]),
        (raw(&[16], 0, 0).raw_tensor("u", &[1], 0, 32), &["tensor u", "overlaps"]),
        (raw(&[1], 0, 0).raw_tensor("t", &[1], 0, 32), &["tensor t", "twice"]),
        (raw(&[1], 0, 0).raw_tensor(&"n".repeat(65), &[1], 0, 32), &["tensor 1 is 65", "1 to 64"]),
    ];
    for (file, words) in cases {
        assert_says(&parse(&file).unwrap_err(), &["m.gguf"]);
        refused(&file, words);
    }
}

/// Every prefix of a good file is an error.
#[test]
fn no_prefix_of_a_file_is_a_file() {
    let whole = Bytes::from(small_llama().bytes());
    assert!(GgufWeights::from_bytes("m", whole.clone()).is_ok());
    for len in 0..whole.len() {
        let cut = GgufWeights::from_bytes("m", whole.slice(..len));
        assert!(cut.is_err(), "{len} of {} bytes were accepted", whole.len());
    }
}
