//! The short form of fuzzing: seeded mutations of good inputs through the functions of `fuzz/`.

#[path = "../../fuzz/src/chat_request.rs"]
mod chat_request;
#[path = "fuzz/flips.rs"]
mod flips;
#[path = "../../fuzz/src/ledger.rs"]
mod ledger;
#[path = "../../fuzz/src/model_files.rs"]
mod model_files;
#[path = "fuzz/mutator.rs"]
mod mutator;
#[path = "../../fuzz/src/template.rs"]
mod template;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutator::{Kind, Mutator};

use weir::gate::ledger::replay;

use crate::http::rig;
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

/// Calls `target` with each input, then with `count` mutations of them. When it panics,
/// the seed and the place of the failing input are printed.
fn run(name: &str, inputs: &[Vec<u8>], count: usize, kind: Kind, target: fn(&[u8])) {
    assert!(inputs.len() > 1, "{name} starts from several inputs");
    for input in inputs {
        target(input);
    }
    let mut mutator = Mutator::new(SEED, inputs);
    for index in 0..count {
        let input = mutator.mutate(kind);
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
    run("gguf", &files, 150_000, Kind::Bytes, model_files::gguf);
}

#[test]
fn mutated_safetensors_files_end_in_errors() {
    let files = contents(inputs("hostile/safetensors", ".safetensors"));
    run("safetensors", &files, 150_000, Kind::Bytes, model_files::safetensors);
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
    run("template", &files, 4_000, Kind::Bytes, template::template);
}

#[test]
fn mutated_ledgers_end_in_errors() {
    let logs: Vec<Vec<u8>> = (0..8).map(crate::ledger::some_log).collect();
    for log in &logs {
        assert_eq!(replay(log).unwrap().torn_bytes, 0, "it is whole");
    }
    run("ledger", &logs, 60_000, Kind::Bytes, ledger::ledger);
}

/// Good chat requests that between them use every kind of field.
const CHATS: [&str; 5] = [
    r#"{"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}"#,
    r#"{"model": "sim", "stream": true, "stream_options": {"include_usage": true}, "seed": 7,
        "max_completion_tokens": 5, "stop": ["a", "bc"], "n": 2, "user": "u", "messages": [
        {"role": "system", "content": "be short"}, {"role": "user", "name": "x", "content":
        [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]}"#,
    r#"{"model": "org/sim", "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
        "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1,
        "logit_bias": {"97": 5, "98": -100}, "logprobs": true, "top_logprobs": 3, "max_tokens": 3,
        "messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "hm"}],
        "continue_final_message": true, "add_generation_prompt": false}"#,
    r#"{"model": "sim", "messages": [{"role": "user", "content": "a"}], "min_tokens": 1,
        "ignore_eos": true, "stop_token_ids": [97], "include_stop_str_in_output": true,
        "skip_special_tokens": false, "return_token_ids": true, "prompt_logprobs": 1,
        "chat_template_kwargs": {"thinking": true}, "max_tokens": 2, "priority": 1}"#,
    r#"{"model": "sim", "messages": [{"role": "tool", "content": "1", "tool_call_id": "c"}],
        "response_format": {"type": "text"}, "tools": null, "metadata": {"k": "v"}, "store": false,
        "service_tier": "auto", "parallel_tool_calls": true, "max_tokens": 1}"#,
];

#[test]
fn mutated_chat_requests_are_answered_or_refused() {
    let bodies = CHATS.map(|body| body.as_bytes().to_vec());
    for body in &bodies {
        let text = String::from_utf8_lossy(body);
        assert_eq!(chat_request::statuses(body), [200, 200], "{text}");
    }
    run("chat-json", &bodies, 1_500, Kind::Json, chat_request::chat_request);
    run("chat-bytes", &bodies, 1_500, Kind::Bytes, chat_request::chat_request);
}
