//! Safetensors: single files and sharded folders.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use weir::backend::DType;
use weir::model::ModelError;
use weir::model::weights::{SafetensorsWeights, WeightSource};

use super::{assert_says, fixtures, scratch};

/// A file of this header and as many data bytes, counted up from 0.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..data_bytes).map(|i| i as u8));
    bytes
}

fn parse(header: &str, data_bytes: usize) -> Result<SafetensorsWeights, ModelError> {
    SafetensorsWeights::from_bytes("m.safetensors", Bytes::from(file(header, data_bytes)))
}

const TWO: &str = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
    "b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"__metadata__":{"format":"pt"}}"#;

#[test]
fn tensors_come_out_as_they_went_in() {
    let weights = parse(TWO, 32).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
    let a = weights.get("a").unwrap();
    assert_eq!((a.name(), a.dtype(), a.shape()), ("a", DType::F32, &[2, 3][..]));
    assert_eq!(a.data()[..], (0..24).collect::<Vec<u8>>());
    let b = weights.get("b").unwrap();
    assert_eq!((b.dtype(), b.shape()), (DType::BF16, &[4][..]));
    assert_eq!(b.data()[..], (24..32).collect::<Vec<u8>>());
}

#[test]
fn a_missing_tensor_or_another_shape_is_named() {
    let weights = WeightSource::Safetensors(parse(TWO, 32).unwrap());
    assert!(weights.contains("a") && !weights.contains("c"));
    assert_says(&weights.get("c", &[1]).unwrap_err(), &["m.safetensors", "tensor c", "missing"]);
    let error = weights.get("a", &[3, 2]).unwrap_err();
    assert_says(&error, &["m.safetensors", "tensor a", "[2, 3]", "asks for [3, 2]"]);
}

#[test]
fn lying_headers_are_refused_in_words() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let max = u64::MAX;
    let cases: &[(String, usize, &[&str])] = &[
        ("{}".into(), 0, &["m.safetensors", "holds no tensors"]),
        ("[]".into(), 0, &["header", "object of tensors"]),
        ("{".into(), 0, &["header", "EOF"]),
        (tensor("F64", "[1]", "[0,8]"), 8, &["tensor w", "F64", "F32, F16, BF16"]),
        (tensor("I8", "[1]", "[0,1]"), 1, &["tensor w", "I8", "F32, F16, BF16"]),
        (tensor("F32", "[2]", "[0,4]"), 4, &["tensor w", "needs 8 bytes", "0..4"]),
        (tensor("F32", "[2]", "[8,0]"), 8, &["tensor w", "needs 8 bytes", "8..0"]),
        (tensor("F32", "[2]", "[0,8]"), 4, &["tensor w", "truncated", "only 4"]),
        (tensor("F32", "[0]", "[0,0]"), 0, &["tensor w", "at least 1"]),
        (tensor("F32", "[-1]", "[0,4]"), 4, &["tensor w", "header"]),
        (tensor("F32", "[1.5]", "[0,4]"), 4, &["tensor w", "header"]),
        (tensor("F32", &format!("[{max},{max}]"), "[0,4]"), 4, &["tensor w", "overflows"]),
        (tensor("F32", "[1]", &format!("[{},{max}]", max - 4)), 4, &["tensor w", "truncated"]),
        (tensor("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, &["tensor w", "more than 8"]),
        (tensor("F32", "[1]", "[0,4]"), 5, &["m.safetensors", "1 bytes after its last"]),
        (tensor("F32", "[1]", "[4,8]"), 8, &["tensor w", "hole", "expected 0"]),
        (r#"{"w":{"dtype":"F32","shape":[1]}}"#.into(), 4, &["tensor w", "data_offsets"]),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, &["__metadata__", "string"]),
    ];
    for (header, data_bytes, words) in cases {
        assert_says(&parse(header, *data_bytes).unwrap_err(), words);
    }
}

#[test]
fn tensors_must_not_share_bytes_or_names() {
    let a = r#""a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}"#;
    let b = r#""b":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}"#;
    assert_says(&parse(&format!("{{{a},{b}}}"), 6).unwrap_err(), &["tensor b", "overlaps"]);
    assert_says(&parse(&format!("{{{a},{a}}}"), 4).unwrap_err(), &["a is described twice"]);
}

#[test]
fn header_lengths_are_checked_before_use() {
    let parse = |bytes: &[u8]| {
        SafetensorsWeights::from_bytes("m.safetensors", Bytes::copy_from_slice(bytes)).unwrap_err()
    };
    assert_says(&parse(b"1234567"), &["7 bytes long", "8 bytes"]);
    assert_says(&parse(&9_u64.to_le_bytes()), &["truncated", "9 bytes, 0 are there"]);
    assert_says(&parse(&u64::MAX.to_le_bytes()), &["18446744073709551615", "16777216"]);
    let one_more = ((16_u64 << 20) + 1).to_le_bytes();
    assert_says(&parse(&one_more), &["16777217", "at most 16777216"]);
}

#[test]
fn headers_have_a_bounded_number_of_things_in_them() {
    let tensors: Vec<String> = (0..65_537)
        .map(|i| format!(r#""{i}":{{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#))
        .collect();
    let error = parse(&format!("{{{}}}", tensors.join(",")), 2).unwrap_err();
    assert_says(&error, &["more than 65536 tensors"]);
    let remarks: Vec<String> = (0..4097).map(|i| format!(r#""{i}":"""#)).collect();
    let error = parse(&format!(r#"{{"__metadata__":{{{}}}}}"#, remarks.join(",")), 0).unwrap_err();
    assert_says(&error, &["__metadata__", "more than 4096"]);
}

#[test]
fn a_sharded_folder_reads_like_one_file() {
    let folder = fixtures().join("models/llama-sharded");
    let weights = WeightSource::open_folder(&folder).unwrap();
    assert_eq!(weights.files().len(), 3);
    let names = weights.names();
    for name in &names {
        let holders = weights
            .files()
            .into_iter()
            .filter(|(path, _)| {
                let shard = SafetensorsWeights::from_bytes("s", fs::read(path).unwrap().into());
                let Ok(tensor) = shard.unwrap().get(name) else { return false };
                assert_eq!(tensor.data(), weights.get(name, tensor.shape()).unwrap().data());
                true
            })
            .count();
        assert_eq!(holders, 1, "{name}");
    }
    assert!(names.iter().any(|name| name == "model.embed_tokens.weight"));
}

/// Two shards with one tensor each, and an index of this weight map.
fn sharded(test: &str, weight_map: &str) -> Result<WeightSource, ModelError> {
    let folder = scratch(test);
    for (name, file_name) in [("a", "one.safetensors"), ("b", "two.safetensors")] {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        fs::write(folder.join(file_name), file(&header, 4)).unwrap();
    }
    write_index(&folder, weight_map);
    WeightSource::open_folder(&folder)
}

fn write_index(folder: &Path, weight_map: &str) {
    let json = format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{weight_map}}}"#);
    fs::write(folder.join("model.safetensors.index.json"), json).unwrap();
}

#[test]
fn an_index_that_lies_is_refused() {
    let good = sharded("good", r#"{"a":"one.safetensors","b":"two.safetensors"}"#).unwrap();
    assert_eq!(good.names(), ["a", "b"]);
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "missing-shard",
            r#"{"a":"one.safetensors","b":"three.safetensors"}"#,
            &["three.safetensors", "missing", "index.json lists it"],
        ),
        (
            "wrong-shard",
            r#"{"a":"two.safetensors","b":"one.safetensors"}"#,
            &["tensor a", "index.json says"],
        ),
        (
            "missing-tensor",
            r#"{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"}"#,
            &["two.safetensors", "tensor c", "missing"],
        ),
        ("twice", r#"{"a":"one.safetensors","a":"two.safetensors"}"#, &["a is listed twice"]),
        ("empty", "{}", &["holds no tensors"]),
        ("number", r#"{"a":1}"#, &["index.json", "string"]),
        ("list", "[]", &["index.json", "object of tensor names"]),
    ];
    for (test, weight_map, words) in cases {
        assert_says(&sharded(test, weight_map).unwrap_err(), words);
    }
}

#[test]
fn shard_names_cannot_leave_the_folder() {
    for name in [
        "../one.safetensors",
        "/etc/passwd",
        "a/../../one.safetensors",
        "sub/one.safetensors",
        "..",
        ".safetensors",
        r"C:\\one.safetensors",
        "one.safetensors\\u0000",
        "one.bin",
        "",
    ] {
        let error = sharded("traversal", &format!(r#"{{"a":"{name}"}}"#)).unwrap_err();
        assert_says(&error, &["index.json", "not a plain file name"]);
    }
}

/// A tensor that is in two shards would be loaded from either, depending on the order.
#[test]
fn a_tensor_in_two_shards_is_refused() {
    let folder = scratch("two-shards");
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    fs::write(folder.join("one.safetensors"), file(header, 4)).unwrap();
    let both = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    fs::write(folder.join("two.safetensors"), file(both, 8)).unwrap();
    write_index(&folder, r#"{"a":"one.safetensors","b":"two.safetensors"}"#);
    let error = WeightSource::open_folder(&folder).unwrap_err();
    assert_says(&error, &["two.safetensors", "tensor a", "also in", "one.safetensors"]);
}

#[test]
fn a_folder_without_weights_says_what_it_lacks() {
    let folder = scratch("no-weights");
    let error = WeightSource::open_folder(&folder).unwrap_err();
    assert_says(&error, &["no-weights", "neither model.safetensors nor", "download"]);
    fs::write(folder.join("pytorch_model.bin"), b"x").unwrap();
    let error = WeightSource::open_folder(&folder).unwrap_err();
    assert_says(&error, &["pytorch_model.bin is there", "only safetensors"]);
    fs::create_dir(folder.join("model.safetensors")).unwrap();
    assert_says(&WeightSource::open_folder(&folder).unwrap_err(), &["not a regular file"]);
    fs::remove_dir(folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("model.safetensors"), b"").unwrap();
    assert_says(&WeightSource::open_folder(&folder).unwrap_err(), &["is empty"]);
}

/// Every prefix of a valid file is an error, and so is every file with bytes after its end.
#[test]
fn no_prefix_of_a_file_is_a_file() {
    let whole = file(TWO, 32);
    for len in 0..whole.len() {
        let cut = Bytes::copy_from_slice(&whole[..len]);
        assert!(SafetensorsWeights::from_bytes("m", cut).is_err(), "{len} bytes were accepted");
    }
    let mut longer = whole;
    longer.push(0);
    assert!(SafetensorsWeights::from_bytes("m", longer.into()).is_err());
}
