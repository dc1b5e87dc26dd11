//! The built-in model against `demo-model/reference.json`, which `transformers` wrote.

use serde_json::Value;
use weir::backend::DType;
use weir::device::SamplingParams;
use weir::ids::TokenId;
use weir::model::OpenOptions;
use weir::model::source::{SourceOptions, resolve};

use super::driver::{Driver, OPTIONS};

#[test]
fn its_greedy_answers_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/demo-model/reference.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    assert!(cases.len() >= 8, "{} cases", cases.len());
    let checkpoint = resolve("demo", &SourceOptions::default()).unwrap().checkpoint;
    let spec = checkpoint.spec(None).unwrap();
    // The reference computed in f32 from the bf16 weights.
    let options =
        OpenOptions { context_tokens_max: Some(512), kv_dtype: Some(DType::F32), ..OPTIONS };
    let mut driver = Driver::with_options(&checkpoint, &options, 1);
    for case in cases {
        let name = &case["name"];
        let ids = |field: &str| -> Vec<TokenId> {
            let list = case[field].as_array().unwrap();
            list.iter().map(|id| TokenId(u32::try_from(id.as_u64().unwrap()).unwrap())).collect()
        };
        let (prompt, expected) = (ids("prompt_ids"), ids("output_ids"));
        let stops = case["finish_reason"] == "stop";
        let mut seat = driver.seat(SamplingParams::greedy());
        let count = expected.len() + usize::from(stops);
        let mut found = driver.tokens(&mut seat, &prompt, 64, count);
        if stops {
            let last = found.pop().unwrap();
            assert!(spec.eos.contains(&last), "{name}: ends with token {last}");
        }
        assert_eq!(found, expected, "{name}");
        driver.leave(seat);
    }
}
