//! Every byte of a good header changed in every bit: no panic, and no large allocation.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{inputs, model_files};
use crate::weights::fixtures;

/// How much more address space parsing may take, over all changes of all files.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const CHILD: &str = "fuzz::flips::in_a_process_of_its_own";

/// Address space is counted for a whole process, so the work is done in one that does nothing
/// else.
#[test]
#[cfg(target_os = "linux")]
fn flipped_headers_take_little_memory() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", CHILD, "--ignored", "--test-threads=1", "--nocapture"];
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "the test {CHILD} did not run: {said}");
}

#[test]
#[ignore = "run by flipped_headers_take_little_memory in a process of its own"]
fn in_a_process_of_its_own() {
    let good = fixtures().join("hostile");
    type Target = fn(&[u8]);
    let files: [(PathBuf, Target); 3] = [
        (good.join("gguf/good.gguf"), model_files::gguf),
        (inputs("hostile/gguf-tokenizer", ".gguf").remove(0), model_files::gguf),
        (good.join("safetensors/good.safetensors"), model_files::safetensors),
    ];
    for (path, target) in &files {
        target(&fs::read(path).unwrap());
    }
    let before = peak_bytes();
    for (path, target) in &files {
        let whole = fs::read(path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            for value in (0..8).map(|bit| whole[at] ^ (1 << bit)).chain([0x00, 0x7f, 0x80, 0xff]) {
                changed[at] = value;
                target(&changed);
            }
        }
        for len in 0..whole.len() {
            target(&whole[..len]);
        }
    }
    let grown = peak_bytes() - before;
    assert!(grown < GROWTH_BYTES_MAX, "parsing took {grown} bytes of address space");
}

/// The largest address space that this process ever had.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}
