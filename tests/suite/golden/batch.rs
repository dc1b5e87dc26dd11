//! A request's answer does not depend on who else is in the batch.

use weir::backend::DType;
use weir::device::{SampledToken, SamplingParams};
use weir::model::Checkpoint;

use super::driver::{BLOCK_SIZE, Driver, Part, Seat};
use super::fixture::folder;
use super::greedy::stranger;

const OTHERS: u32 = 63;
const TOKENS: usize = 48;

fn params(seed: u64) -> SamplingParams {
    SamplingParams { temperature: 1.0, seed, logprobs: Some(5), ..SamplingParams::greedy() }
}

/// A sampled token, its log-probability's bits, and the highest ones with theirs.
type Bits = (u32, u32, Vec<(u32, u32)>);

fn bits(sampled: &[SampledToken]) -> Vec<Bits> {
    sampled
        .iter()
        .map(|s| {
            assert!(s.finite);
            let logprob = s.logprob.as_ref().unwrap();
            let top = logprob.top.iter().map(|(token, p)| (token.0, p.to_bits())).collect();
            (s.token.0, logprob.logprob.to_bits(), top)
        })
        .collect()
}

/// One request with a prompt of 29 tokens beside `others` requests, all sampling at temperature 1.
fn sampled_among(name: &str, others: u32, prompt_chunk: usize) -> Vec<SampledToken> {
    let mut driver = Driver::open(&folder(name));
    let mut rest: Vec<Seat> = (0..others).map(|i| driver.seat(params(u64::from(i)))).collect();
    let mut seat = driver.seat(params(1234));
    let slot = seat.slot;
    let prompt = stranger(99, 29);
    let mut chunks = prompt.chunks(prompt_chunk).peekable();
    let mut found: Vec<SampledToken> = Vec::new();
    while found.len() < TOKENS {
        let mut parts = vec![match chunks.next() {
            Some(chunk) if chunks.peek().is_some() => Part::tokens(&mut seat, chunk),
            Some(chunk) => Part::tokens(&mut seat, chunk).next(0),
            None => Part::last_sampled(&mut seat).next(found.len() as u32),
        }];
        for (index, other) in rest.iter_mut().enumerate() {
            parts.push(match other.computed {
                0 => Part::tokens(other, &stranger(index as u32, 1 + index % 7)).next(0),
                computed => Part::last_sampled(other).next(computed),
            });
        }
        let output = driver.step(parts);
        found.extend(output.sampled.iter().filter(|s| s.slot == slot).cloned());
    }
    found
}

#[test]
fn a_seeded_request_gives_the_same_bits_alone_and_among_63_others() {
    for name in ["llama3", "gemma2", "qwen3-moe", "llama-bf16"] {
        let alone = bits(&sampled_among(name, 0, 29));
        assert!(alone.windows(2).any(|w| w[0].0 != w[1].0), "{name}: the tokens vary");
        assert_eq!(alone, bits(&sampled_among(name, OTHERS, 29)), "{name}");
        assert_eq!(alone, bits(&sampled_among(name, OTHERS, 5)), "{name}, prompt in chunks");
    }
}

#[test]
fn a_seeded_request_gives_the_same_bits_after_preemption_and_on_a_prefix_hit() {
    for name in ["llama3", "gemma2", "qwen3-moe", "llama-bf16"] {
        let alone = bits(&sampled_among(name, 0, 29));
        let mut driver = Driver::open(&folder(name));
        let prompt = stranger(99, 29);

        let mut seat = driver.seat(params(1234));
        let mut found = driver.decode(&mut seat, &prompt, 29, 0..20);
        driver.leave(seat);
        let mut intruder = driver.seat(params(5));
        driver.decode(&mut intruder, &stranger(3, 70), 70, 0..4);
        let known: Vec<_> = prompt.iter().copied().chain(found.iter().map(|s| s.token)).collect();
        let mut seat = driver.seat(params(1234));
        found.extend(driver.decode(&mut seat, &known, 7, 20..TOKENS as u32));
        assert_eq!(alone, bits(&found), "{name}, preempted");

        let mut hit = driver.seat_with_prefix(&seat, 3 * BLOCK_SIZE, params(1234));
        let found = driver.decode(&mut hit, &prompt, 29, 0..TOKENS as u32);
        assert_eq!(alone, bits(&found), "{name}, on a prefix hit");
    }
}

#[test]
fn a_seeded_request_gives_the_same_bits_on_any_number_of_threads() {
    for name in ["llama3", "gemma2", "qwen3-moe", "llama-bf16"] {
        let checkpoint = Checkpoint::open_folder(&folder(name)).unwrap();
        let alone = bits(&sampled_among(name, 0, 29));
        for threads in [2, 3] {
            let mut driver = Driver::with_threads(&checkpoint, Some(DType::F32), threads);
            let mut seat = driver.seat(params(1234));
            let found = driver.decode(&mut seat, &stranger(99, 29), 29, 0..TOKENS as u32);
            assert_eq!(alone, bits(&found), "{name} on {threads} threads");
        }
    }
}
