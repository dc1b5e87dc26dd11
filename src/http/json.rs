//! Writing JSON piece by piece into memory: chunks are too many to build a tree for each.

use std::io::Write;

/// A string with its quotes, escaped.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

/// An integer.
pub(super) fn write_u64(out: &mut Vec<u8>, number: u64) {
    write!(out, "{number}").expect("writing to memory cannot fail");
}
