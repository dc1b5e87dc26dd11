//! The hostile fixtures: each is refused in words that say what is wrong with it.

use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use weir::model::ModelError;
use weir::model::families;
use weir::model::weights::{GgufWeights, SafetensorsWeights, WeightSource};

use super::fixtures;

/// A line of the manifest.
#[derive(Deserialize)]
struct Case {
    kind: String,
    path: String,
    wrong: String,
    accept: bool,
    any_of: Vec<String>,
}

/// Opens a file as the server would: the container, the configuration, and every tensor that it
/// asks for.
fn open(kind: &str, path: &Path) -> Result<(), ModelError> {
    match kind {
        "index" => WeightSource::open_folder(path).map(|_| ()),
        "safetensors" => {
            let bytes = Bytes::from(std::fs::read(path).unwrap());
            let weights = SafetensorsWeights::from_bytes(path, bytes)?;
            weights.names().try_for_each(|name| weights.get(name).map(|_| ()))
        }
        _ => {
            let bytes = Bytes::from(std::fs::read(path).unwrap());
            let weights = GgufWeights::from_bytes(path, bytes)?;
            let spec = families::spec(weights.config(), None)?;
            let (hidden, wide) = (spec.hidden_size as usize, spec.mlp_width as usize);
            let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
            let (queries, keys) = (queries as usize, keys as usize);
            let source = WeightSource::Gguf(Box::new(weights));
            source.get("model.embed_tokens.weight", &[spec.vocab_size as usize, hidden])?;
            source.get("model.norm.weight", &[hidden])?;
            for layer in 0..spec.layers.len() {
                for (name, shape) in [
                    ("input_layernorm", &[hidden][..]),
                    ("self_attn.q_proj", &[queries, hidden]),
                    ("self_attn.k_proj", &[keys, hidden]),
                    ("self_attn.v_proj", &[keys, hidden]),
                    ("self_attn.o_proj", &[hidden, queries]),
                    ("post_attention_layernorm", &[hidden]),
                    ("mlp.gate_proj", &[wide, hidden]),
                    ("mlp.up_proj", &[wide, hidden]),
                    ("mlp.down_proj", &[hidden, wide]),
                ] {
                    source.get(&format!("model.layers.{layer}.{name}.weight"), shape)?;
                }
            }
            Ok(())
        }
    }
}

#[test]
fn every_hostile_file_is_refused_for_what_is_wrong_with_it() {
    let folder = fixtures().join("hostile");
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&manifest).unwrap();
    let mut failures = Vec::new();
    let mut seen = 0;
    for case in cases.iter().filter(|case| case.kind != "config") {
        let path = folder.join(&case.path);
        let Case { wrong, any_of, .. } = case;
        seen += 1;
        match open(&case.kind, &path) {
            Ok(()) if case.accept => {}
            Ok(()) => failures.push(format!("{}: accepted, though {wrong}", case.path)),
            Err(error) if case.accept => failures.push(format!("refused the good one: {error}")),
            Err(error) => {
                // The path itself must not supply the words.
                let said = error.to_string().replace(&*path.to_string_lossy(), "FILE");
                let said = said.to_lowercase();
                if !any_of.iter().any(|word| said.contains(word)) {
                    failures
                        .push(format!("{}: {wrong}; expected {any_of:?} in: {said}", case.path));
                }
            }
        }
    }
    assert!(seen >= 120, "only {seen} cases");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
