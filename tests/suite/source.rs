//! What may stand after `--model`, and what is said when it is not there.

use std::fs;
use std::path::{Path, PathBuf};

use weir::backend::DType;
use weir::model::source::{ModelFiles, SourceOptions, TokenizerFiles, resolve};
use weir::model::weights::{DummyWeights, WeightSource};

use crate::weights::{assert_says, fixtures, scratch};

fn found(model: &Path) -> Result<ModelFiles, weir::model::ModelError> {
    resolve(model.to_str().unwrap(), &SourceOptions::default())
}

fn refused(model: &str, options: &SourceOptions, words: &[&str]) {
    assert_says(&resolve(model, options).unwrap_err(), words);
}

fn dummy() -> SourceOptions {
    let dummy = Some(DummyWeights::new(DType::BF16, 1).unwrap());
    SourceOptions { dummy, ..SourceOptions::default() }
}

/// A folder with a small model and these further files.
fn model_folder(test: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = scratch(test);
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixtures().join("models/llama2").join(name), folder.join(name)).unwrap();
    }
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    folder
}

#[test]
fn a_folder_gives_everything_that_it_has() {
    let folder = model_folder(
        "source-whole",
        &[
            ("tokenizer.json", "{}"),
            ("tokenizer_config.json", r#"{"a": 1}"#),
            ("special_tokens_map.json", "{}"),
            ("chat_template.json", r#"{"chat_template": "from json"}"#),
            ("generation_config.json", r#"{"eos_token_id": [2, 7]}"#),
        ],
    );
    let files = found(&folder).unwrap();
    assert_eq!(files.checkpoint.name, "source-whole");
    assert_eq!(files.checkpoint.config["hidden_size"], 64);
    assert!(files.checkpoint.weights.contains("lm_head.weight"));
    let eos: Vec<u32> = files.checkpoint.spec(None).unwrap().eos.iter().map(|id| id.0).collect();
    assert_eq!(eos, [2, 7]);
    let expected = TokenizerFiles::HuggingFace {
        tokenizer_json: b"{}".to_vec(),
        tokenizer_config: Some(br#"{"a": 1}"#.to_vec()),
        special_tokens_map: Some(b"{}".to_vec()),
        chat_template: Some("from json".to_owned()),
    };
    assert_eq!(files.tokenizer, expected);
    assert_eq!(files.files.len(), 7);
    for (path, bytes) in files.files {
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes, "{}", path.display());
    }
    fs::write(folder.join("chat_template.jinja"), "from jinja").unwrap();
    let TokenizerFiles::HuggingFace { chat_template, .. } = found(&folder).unwrap().tokenizer
    else {
        panic!("a folder has files");
    };
    assert_eq!(chat_template.as_deref(), Some("from jinja"));
}

#[test]
fn a_folder_says_all_that_it_lacks_at_once() {
    let folder = scratch("source-empty");
    let said = ["source-empty", "config.json and", "model.safetensors (or", "tokenizer.json"];
    assert_says(&found(&folder).unwrap_err(), &said);
    fs::write(folder.join("tokenizer.model"), "x").unwrap();
    assert_says(&found(&folder).unwrap_err(), &["tokenizer.model alone", "save_pretrained"]);
    fs::write(folder.join("model.gguf"), "x").unwrap();
    assert_says(&found(&folder).unwrap_err(), &["--model", "source-empty/model.gguf"]);
    let folder = model_folder("source-no-tokenizer", &[]);
    assert_says(&found(&folder).unwrap_err(), &["source-no-tokenizer", "lacks tokenizer.json"]);
}

#[test]
fn files_that_cannot_be_are_refused() {
    let folder = model_folder("source-bad", &[("tokenizer.json", "{}")]);
    for (name, text, word) in [
        ("chat_template.json", "[]", "chat_template"),
        ("chat_template.json", "{", "EOF"),
        ("chat_template.json", r#"{"chat_template": 1}"#, "the text chat_template"),
        ("generation_config.json", "{", "EOF"),
        ("config.json", "{", "EOF"),
    ] {
        let path = folder.join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, text).unwrap();
        assert_says(&found(&folder).unwrap_err(), &[name, word]);
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    let file = fs::File::create(folder.join("tokenizer_config.json")).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    assert_says(&found(&folder).unwrap_err(), &["tokenizer_config.json", "more than 16777216"]);
    fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    fs::create_dir(folder.join("tokenizer_config.json")).unwrap();
    assert_says(&found(&folder).unwrap_err(), &["tokenizer_config.json", "not a regular file"]);
}

#[test]
fn a_gguf_file_is_a_whole_model() {
    let path = fixtures().join("gguf/tokenizer-qwen2.gguf");
    let files = found(&path).unwrap();
    assert_eq!(files.checkpoint.name, "tokenizer-qwen2");
    assert!(matches!(files.checkpoint.weights, WeightSource::Gguf(_)));
    let TokenizerFiles::Gguf(vocabulary) = &files.tokenizer else { panic!("a vocabulary") };
    assert_eq!(vocabulary.model, "gpt2");
    assert_eq!(files.files, [(path.clone(), fs::metadata(&path).unwrap().len())]);

    let bare = fixtures().join("gguf/llama-q8_0.gguf");
    assert_says(&found(&bare).unwrap_err(), &["llama-q8_0.gguf", "no tokenizer", "--tokenizer"]);
    let folder = model_folder("source-elsewhere", &[("tokenizer.json", "{}")]);
    for tokenizer in [folder.clone(), folder.join("tokenizer.json")] {
        let options = SourceOptions { tokenizer: Some(tokenizer), ..SourceOptions::default() };
        let files = resolve(bare.to_str().unwrap(), &options).unwrap();
        assert!(matches!(files.tokenizer, TokenizerFiles::HuggingFace { .. }));
        assert_eq!(files.files.len(), 2);
    }
}

#[test]
fn random_weights_need_a_configuration_alone() {
    let folder = scratch("source-dummy");
    let model = folder.to_str().unwrap();
    refused(model, &dummy(), &["source-dummy", "lacks config.json"]);
    let config = folder.join("config.json");
    fs::copy(fixtures().join("models/qwen3/config.json"), &config).unwrap();
    for model in [model, config.to_str().unwrap()] {
        let files = resolve(model, &dummy()).unwrap();
        assert_eq!(files.checkpoint.name, "source-dummy");
        assert_eq!(files.tokenizer, TokenizerFiles::None);
        let table = files.checkpoint.weights.get("model.embed_tokens.weight", &[256, 64]).unwrap();
        assert_eq!(table.dtype(), DType::BF16);
    }
    let gguf = fixtures().join("gguf/llama-q8_0.gguf");
    refused(gguf.to_str().unwrap(), &dummy(), &["--load-format dummy", "config.json"]);
}

#[test]
fn the_demo_model_is_in_the_binary() {
    let files = resolve("demo", &SourceOptions::default()).unwrap();
    let spec = files.checkpoint.spec(None).unwrap();
    assert_eq!((files.checkpoint.name.as_str(), spec.architecture), ("demo", "LlamaForCausalLM"));
    let shape = [spec.vocab_size as usize, spec.hidden_size as usize];
    let table = files.checkpoint.weights.get("model.embed_tokens.weight", &shape).unwrap();
    assert_eq!(table.dtype(), DType::BF16);
    let TokenizerFiles::HuggingFace { tokenizer_config, .. } = files.tokenizer else { panic!() };
    assert!(String::from_utf8(tokenizer_config.unwrap()).unwrap().contains("chat_template"));
    assert_eq!(files.files.len(), 1, "its weights");
    for (path, bytes) in files.files {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        assert_eq!(fs::metadata(&original).unwrap().len(), bytes, "{}", original.display());
    }
    let random = resolve("demo", &dummy()).unwrap().checkpoint.weights;
    assert_ne!(random.get("model.embed_tokens.weight", &shape).unwrap().data(), table.data());
    let options = SourceOptions { tokenizer: Some(scratch("source-bare")), ..Default::default() };
    refused("demo", &options, &["source-bare", "no tokenizer.json", "--tokenizer"]);
}

#[test]
fn hub_ids_are_looked_up_in_the_local_cache() {
    let cache = scratch("source-cache");
    let options = SourceOptions { hub_cache: Some(cache.clone()), ..SourceOptions::default() };
    let said = ["org/tiny", "not in the cache at", "hf download org/tiny --local-dir tiny"];
    refused("org/tiny", &options, &said);
    refused("org/tiny", &SourceOptions::default(), &["no Hugging Face cache", "hf download"]);

    let snapshots = cache.join("models--org--tiny/snapshots");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    fs::create_dir_all(&snapshots).unwrap();
    refused("org/tiny", &options, &["models--org--tiny has no snapshot"]);
    let folder = model_folder("source-snapshot", &[("tokenizer.json", "{}")]);
    fs::rename(&folder, snapshots.join(commit)).unwrap();
    assert_eq!(resolve("org/tiny", &options).unwrap().checkpoint.name, "org/tiny");

    fs::create_dir(snapshots.join("fedcba")).unwrap();
    refused("org/tiny", &options, &["several snapshots and no refs/main"]);
    let main = cache.join("models--org--tiny/refs/main");
    fs::create_dir(main.parent().unwrap()).unwrap();
    fs::write(&main, format!("{commit}\n")).unwrap();
    assert!(resolve("org/tiny", &options).is_ok());
    fs::write(&main, "aaaa").unwrap();
    refused("org/tiny", &options, &["commit aaaa is not in", "hf download"]);
    // A reference is a commit and never a path.
    for lie in ["../../../etc", "", "main", &"a".repeat(65)] {
        fs::write(&main, lie).unwrap();
        refused("org/tiny", &options, &["refs/main", "hexadecimal"]);
    }
}

#[test]
fn other_words_are_refused_with_what_is_possible() {
    let options = SourceOptions { hub_cache: Some(scratch("source-none")), ..Default::default() };
    for model in
        ["", "nothing", "../x", "a/b/c", "./a/b", "org/", "/x", "org/..", "o r/g", "a/b.gguf"]
    {
        refused(model, &options, &["--model", "no such folder or file", "hub id (org/name)"]);
    }
    let file = fixtures().join("models/llama2/model.safetensors");
    refused(file.to_str().unwrap(), &options, &["another kind", "the folder that has config.json"]);
}
