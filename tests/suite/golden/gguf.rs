//! GGUF files: one for each quantisation and architecture, against the reference with de-quantised
//! weights.

use weir::backend::DType;
use weir::device::SamplingParams;
use weir::model::Checkpoint;

use super::driver::{Driver, Part};
use super::fixture::{Expected, GGUF, gguf};

/// Plain types are exact.
const TOLERANCE_FLOAT: f32 = 1e-4;
/// Quantised products round their input to 8 bits per block, as llama.cpp does. The fixtures say
/// how far the reference moves when it does the same; rounding at other block borders may move a
/// little further.
const OF_INT8_DEVIATION: f32 = 1.5;

#[test]
fn files_give_the_greedy_tokens_of_their_de_quantised_weights() {
    for name in GGUF {
        let expected = Expected::read(&gguf(name, "json"), &gguf(name, "safetensors"));
        let checkpoint = Checkpoint::open_gguf(&gguf(name, "gguf")).unwrap();
        let mut driver = Driver::over(&checkpoint, Some(DType::F32));
        for chunk in [expected.prompt.len(), 5] {
            let mut seat = driver.seat(SamplingParams::greedy());
            let found = driver.tokens(&mut seat, &expected.prompt, chunk, expected.greedy.len());
            assert_eq!(found, expected.greedy, "{name} in chunks of {chunk}");
            driver.leave(seat);
        }
    }
}

#[test]
fn files_give_the_logits_of_their_de_quantised_weights() {
    for name in GGUF {
        let expected = Expected::read(&gguf(name, "json"), &gguf(name, "safetensors"));
        let checkpoint = Checkpoint::open_gguf(&gguf(name, "gguf")).unwrap();
        let mut driver = Driver::over(&checkpoint, Some(DType::F32));
        let mut seat = driver.seat(SamplingParams::greedy());
        let part = Part::tokens(&mut seat, &expected.sequence()).score_all(0);
        let found = driver.logits(vec![part]);
        let float = ["f32", "f16"].iter().any(|end| name.ends_with(end));
        let tolerance = if float {
            TOLERANCE_FLOAT
        } else {
            OF_INT8_DEVIATION * expected.int8_deviation.unwrap()
        };
        expected.logits.check(0, &found, tolerance, name);
    }
}
