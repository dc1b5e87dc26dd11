//! Valid requests with a few bytes changed: whatever comes of them, it is no server error.

use serde_json::{Value, json};

use super::{CHAT, COMPLETIONS, base};
use crate::http::rig::Options;

const SEED: u64 = 20_261_120;
const CASES: u32 = 4000;

/// Pieces that JSON, numbers and UTF-8 break on.
const PIECES: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "-",
    "1e999",
    "0.0000001",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "true",
    "\"\"",
    "[]",
    "{}",
    " ",
    "messages",
    "-1",
    "\"x\":",
    "\u{10ffff}",
];

/// SplitMix64: the seed is printed when a case fails.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn mutate(text: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at.max(1)),
            2 => {
                let end = (at + random.below(12)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            _ => {
                let end = (at + random.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    bytes
}

#[tokio::test]
async fn changed_bytes_are_no_server_error() {
    let rig = Options::default().start();
    let full = json!({
        "temperature": 0.5, "top_p": 0.9, "n": 2, "stop": ["a", "b"], "logit_bias": {"5": -3},
        "seed": 7, "min_p": 0.1, "stream": true, "stream_options": {"include_usage": true},
        "stop_token_ids": [3], "max_tokens": 4, "user": "u", "logprobs": null,
    });
    let prompts = json!({"prompt": [[1, 2], [3]], "echo": true, "max_tokens": 2});
    let bases: Vec<(&str, Value)> = vec![
        (CHAT, base(CHAT, full.clone())),
        (COMPLETIONS, base(COMPLETIONS, full)),
        (COMPLETIONS, base(COMPLETIONS, prompts)),
        ("/tokenize", json!({"messages": [{"role": "user", "content": "x"}]})),
        ("/detokenize", json!({"tokens": [1, 2, 3]})),
    ];
    let mut random = Random(SEED);
    let mut refused = 0;
    for number in 0..CASES {
        let (path, body) = &bases[random.below(bases.len())];
        let bytes = mutate(&body.to_string(), &mut random);
        let answered = rig.post_text(path, bytes.clone()).await;
        let told = || format!("SEED={SEED} case {number}: {}", String::from_utf8_lossy(&bytes));
        assert!(answered.status.as_u16() < 500, "{}: {}", told(), answered.body);
        if answered.status != 200 {
            refused += 1;
            assert!(answered.json()["error"]["param"].is_string(), "{}", told());
        }
    }
    assert!(refused > CASES / 2, "{refused} of {CASES} were refused");
}
