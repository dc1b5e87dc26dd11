//! Mutations of byte strings, each from the seed and its number alone.

use serde_json::Value;

/// Lengths and counts that break arithmetic.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    31,
    255,
    4096,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// Pieces of the formats, so that mutations get past the first check.
const PIECES: [&[u8]; 16] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"-1",
    b"1e999",
    b"null",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"\xff\xfe",
];

/// JSON that stands where something else should.
const VALUES: [&str; 20] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1.5",
    "1e308",
    "4294967296",
    "18446744073709551615",
    "-9223372036854775808",
    "\"\"",
    "\"auto\"",
    "\"\\ud83d\\ude00\\u0000\"",
    "[]",
    "[null]",
    "[[[[[[[[]]]]]]]]",
    "[\"a\", \"b\", \"c\", \"d\", \"e\"]",
    "{}",
    "{\"type\": \"text\", \"text\": \"x\"}",
    "{\"50256\": -100, \"1\": 100}",
];

/// What inputs are taken for.
#[derive(Clone, Copy)]
pub enum Kind {
    Bytes,
    Json,
}

/// Draws mutations of a set of inputs.
pub struct Mutator<'a> {
    inputs: &'a [Vec<u8>],
    state: u64,
}

impl<'a> Mutator<'a> {
    pub fn new(seed: u64, inputs: &'a [Vec<u8>]) -> Self {
        Self { inputs, state: seed }
    }

    /// One of the inputs, changed.
    pub fn mutate(&mut self, kind: Kind) -> Vec<u8> {
        match kind {
            Kind::Bytes => self.mutate_bytes(),
            Kind::Json => self.mutate_json(),
        }
    }

    /// One to four changes of bytes.
    fn mutate_bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.pick().to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes);
        }
        bytes
    }

    /// One to three changes of values, keys or entries.
    fn mutate_json(&mut self) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(self.pick()).unwrap();
        for _ in 0..=self.below(3) {
            self.change_json(&mut value, 0);
        }
        value.to_string().into_bytes()
    }

    fn change_json(&mut self, value: &mut Value, depth: usize) {
        let deeper = depth == 0 || self.below(3) > 0;
        match value {
            Value::Array(items) if deeper && !items.is_empty() => {
                let index = self.below(items.len());
                match self.below(8) {
                    0 => drop(items.remove(index)),
                    1 => items.insert(index, items[index].clone()),
                    _ => self.change_json(&mut items[index], depth + 1),
                }
            }
            Value::Object(entries) if deeper && !entries.is_empty() => {
                let key = entries.keys().nth(self.below(entries.len())).unwrap().clone();
                match self.below(8) {
                    0 => drop(entries.remove(&key)),
                    1 => {
                        let moved = entries.remove(&key).unwrap();
                        entries.insert(self.other_key(), moved);
                    }
                    _ => self.change_json(&mut entries[&key], depth + 1),
                }
            }
            Value::String(text) if self.below(2) == 0 => {
                *text = text.repeat(1 + self.below(40));
                text.insert_str(0, ["<|im_end|>", "\u{feff}", " ", "\0"][self.below(4)]);
            }
            _ => *value = serde_json::from_str(VALUES[self.below(VALUES.len())]).unwrap(),
        }
    }

    /// A key of some input.
    fn other_key(&mut self) -> String {
        let other: Value = serde_json::from_slice(self.pick()).unwrap();
        let Value::Object(entries) = other else { return "x".to_owned() };
        entries.keys().nth(self.below(entries.len())).cloned().unwrap_or_default()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let some = self.below(bytes.len() - at + 1).min(1 + self.below(64));
        match self.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next() as u8,
            2 => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let width = [1, 4, 8][self.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + some)),
            5 => {
                let copy = bytes[at..at + some].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            6 => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..at + some.min(self.below(4)), piece.iter().copied());
            }
            7 => {
                let other = self.pick();
                let from = self.below(other.len() + 1);
                let len = self.below(other.len() - from + 1).min(64);
                let part = other[from..from + len].to_vec();
                bytes.splice(at..at + some, part);
            }
            _ => {
                let repeats = 1 + self.below(200);
                let part = bytes[at..at + some.min(8)].to_vec();
                bytes.splice(at..at, part.repeat(repeats));
            }
        }
    }

    fn pick(&mut self) -> &'a [u8] {
        let index = self.below(self.inputs.len());
        &self.inputs[index]
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
