//! GGUF and safetensors files.

use bytes::Bytes;
use weir::model::families;
use weir::model::weights::{GgufWeights, SafetensorsWeights, WeightSource};

/// Reads a GGUF file as the server would: container, vocabulary, configuration, every tensor.
pub fn gguf(data: &[u8]) {
    let file = Bytes::copy_from_slice(data);
    let weights = match GgufWeights::from_bytes("input.gguf", file) {
        Ok(weights) => weights,
        Err(error) => return assert_named(&error.to_string()),
    };
    if let Err(error) = families::spec(weights.config(), None) {
        assert!(!error.to_string().is_empty());
    }
    let names: Vec<String> = weights.names().collect();
    every_tensor(&WeightSource::Gguf(Box::new(weights)), &names, data.len());
}

/// Reads a safetensors file and every tensor in it.
pub fn safetensors(data: &[u8]) {
    let file = Bytes::copy_from_slice(data);
    let weights = match SafetensorsWeights::from_bytes("input.safetensors", file) {
        Ok(weights) => weights,
        Err(error) => return assert_named(&error.to_string()),
    };
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    every_tensor(&WeightSource::Safetensors(weights), &names, data.len());
}

/// What a file says that it has, it has: tensors are found, and together are no larger than it.
fn every_tensor(source: &WeightSource, names: &[String], file_bytes: usize) {
    let mut total = 0_usize;
    for name in names.iter().filter(|name| source.contains(name)) {
        let shape = match source {
            WeightSource::Gguf(weights) => weights.get(name),
            WeightSource::Safetensors(weights) => weights.get(name),
            WeightSource::Dummy(_) => unreachable!("files are fuzzed"),
        };
        let shape = shape.expect("a tensor that is contained is found").shape().to_vec();
        let tensor = source.get(name, &shape).expect("with its own shape");
        total += tensor.data().len();
    }
    assert!(total <= file_bytes, "{total} bytes of tensors in a file of {file_bytes}");
}

/// Errors name the file, or the key of an architecture that is not supported.
fn assert_named(error: &str) {
    let named = ["input.", "general.architecture"].iter().any(|place| error.contains(place));
    assert!(named, "the error does not say where: {error}");
}
