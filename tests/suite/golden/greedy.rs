//! The reference's 64 greedy tokens, however the scheduler cuts the work.

use weir::device::SamplingParams;
use weir::ids::TokenId;

use super::driver::{BLOCK_SIZE, Driver, Part, Seat};
use super::fixture::{MODELS, expected, folder};

const OTHERS: usize = 16;

#[test]
fn are_the_references_for_the_whole_prompt_and_in_chunks_of_every_size() {
    for name in MODELS {
        let expected = expected(name);
        let mut driver = Driver::open(&folder(name));
        for chunk in (1..=17).chain([expected.prompt.len()]) {
            let mut seat = driver.seat(SamplingParams::greedy());
            let found = driver.tokens(&mut seat, &expected.prompt, chunk, expected.greedy.len());
            assert_eq!(found, expected.greedy, "{name} in chunks of {chunk}");
            driver.leave(seat);
        }
    }
}

#[test]
fn are_the_references_when_the_prompts_beginning_is_in_the_cache() {
    for name in MODELS {
        let expected = expected(name);
        let mut driver = Driver::open(&folder(name));
        let mut first = driver.seat(SamplingParams::greedy());
        driver.tokens(&mut first, &expected.prompt, 48, expected.greedy.len());
        for cached in [BLOCK_SIZE, 3 * BLOCK_SIZE, 5 * BLOCK_SIZE] {
            let mut seat = driver.seat_with_prefix(&first, cached, SamplingParams::greedy());
            let found = driver.tokens(&mut seat, &expected.prompt, 48, expected.greedy.len());
            assert_eq!(found, expected.greedy, "{name} with {cached} tokens cached");
        }
    }
}

#[test]
fn are_the_references_after_preemption() {
    for name in MODELS {
        let expected = expected(name);
        let mut driver = Driver::open(&folder(name));
        for generated in [1, 20, 63] {
            let mut seat = driver.seat(SamplingParams::greedy());
            let mut found = driver.tokens(&mut seat, &expected.prompt, 48, generated);
            driver.leave(seat);
            // Another sequence overwrites the blocks that were given back.
            let mut intruder = driver.seat(SamplingParams::greedy());
            driver.tokens(&mut intruder, &stranger(7, 60), 60, 8);
            // What was generated becomes part of what is recomputed.
            let known: Vec<TokenId> = expected.prompt.iter().chain(&found).copied().collect();
            let mut seat = driver.seat(SamplingParams::greedy());
            let left = expected.greedy.len() - generated;
            found.extend(driver.tokens(&mut seat, &known, 17, left));
            assert_eq!(found, expected.greedy, "{name} preempted after {generated} tokens");
            driver.leave(seat);
            driver.leave(intruder);
        }
    }
}

#[test]
fn are_the_references_among_sixteen_other_requests() {
    for name in MODELS {
        let expected = expected(name);
        let mut driver = Driver::open(&folder(name));
        let mut others: Vec<Seat> =
            (0..OTHERS).map(|_| driver.seat(SamplingParams::greedy())).collect();
        let mut seat = driver.seat(SamplingParams::greedy());
        let mut found = Vec::new();
        let mut prompt = expected.prompt.chunks(11).peekable();
        for step in 0.. {
            // Half of the others stand before, half after; they begin one after the other, with
            // prompts of every length from 1 to 16, and decode from then on.
            let mut parts = Vec::new();
            let mut after = Vec::new();
            for (index, other) in others.iter_mut().enumerate().take(step + 1) {
                let part = match other.computed {
                    0 => Part::tokens(other, &stranger(index as u32, index + 1)).next(0),
                    computed => Part::last_sampled(other).next(computed),
                };
                if index % 2 == 0 { parts.push(part) } else { after.push(part) }
            }
            let slot = seat.slot;
            parts.push(match prompt.next() {
                Some(chunk) if prompt.peek().is_some() => Part::tokens(&mut seat, chunk),
                Some(chunk) => Part::tokens(&mut seat, chunk).next(0),
                None => Part::last_sampled(&mut seat).next(found.len() as u32),
            });
            parts.append(&mut after);
            let output = driver.step(parts);
            found.extend(output.sampled.iter().filter(|s| s.slot == slot).map(|s| s.token));
            if found.len() == expected.greedy.len() {
                break;
            }
        }
        assert_eq!(found, expected.greedy, "{name}");
    }
}

/// A prompt that no fixture has, from a linear congruence.
pub fn stranger(seed: u32, tokens: usize) -> Vec<TokenId> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        TokenId(3 + (state >> 16) % 250)
    };
    std::iter::repeat_with(next).take(tokens).collect()
}
