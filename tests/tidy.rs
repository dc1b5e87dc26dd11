//! The shape of the code, checked: room order, sizes, names, and that documents and code agree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;

/// Where code is held to these bounds.
const FOLDERS: [&str; 6] =
    ["src", "loadtest/src", "loadtest/tests", "loadtest/examples", "benches", "tests"];

/// A room and the rooms it may use. Everything points down the page; base is open to all.
const ROOMS: &[(&str, &[&str])] = &[
    ("serve", &["http", "text", "gate", "engine", "model", "device", "backend"]),
    ("http", &["text", "gate", "engine", "device"]),
    ("text", &[]),
    ("gate", &["engine"]),
    ("engine", &["device"]),
    ("model", &["backend", "device"]),
    ("backend", &["device"]),
    ("device", &[]),
];

/// Settings, names of things, time, counters: they use no room.
const BASE: &[&str] = &["config", "ids", "clock", "metrics"];

/// Names under which things without a concept gather.
const BANNED_FILE_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "misc", "lib2"];

/// `unsafe` stays in kernels, in the memory map and in what the listener needs of the socket.
const UNSAFE_ALLOWED: &[&str] = &["src/backend/cpu/", "src/model/weights/mapping.rs"];

/// Files longer than the bound, each with its reason. The list may only shrink.
const LONG_FILES: &[(&str, &str)] = &[];

/// Functions longer than the bound, each with its reason. The list may only shrink.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is readable");
            let name = path.strip_prefix(root()).expect("below the root");
            (name.to_string_lossy().replace('\\', "/"), text)
        })
        .collect()
}

/// The text before a file's inline test module, which has a bound of its own.
fn without_tests(text: &str) -> &str {
    match text.find("#[cfg(test)]\nmod tests {") {
        Some(at) => &text[..at],
        None => text,
    }
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/") || name.starts_with("tests/")
}

/// Names of the rooms that a line of code uses: after `crate::` (and `weir::` nowhere).
fn uses(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::")
        .map(|(at, word)| {
            let rest = &code[at + word.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            rest[..end].to_owned()
        })
        .collect()
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files("src") {
        let inside = name.trim_start_matches("src/");
        let room = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let allowed: &[&str] = match ROOMS.iter().find(|(r, _)| *r == room) {
            Some((_, allowed)) => allowed,
            None if BASE.contains(&room.as_str()) => &[],
            None => panic!("{name}: room {room} is not in the table of tests/tidy.rs"),
        };
        for (number, line) in without_tests(&text).lines().enumerate() {
            for used in uses(line) {
                let known = ROOMS.iter().any(|(r, _)| *r == used) || BASE.contains(&used.as_str());
                let fine = used == room
                    || BASE.contains(&used.as_str())
                    || allowed.contains(&used.as_str());
                if known && !fine && !is_test_file(&name) {
                    wrong.push(format!("{name}:{}: {room} may not use {used}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_architecture_document() {
    let document = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("it exists");
    for room in ROOMS.iter().map(|(room, _)| room).chain(BASE) {
        assert!(document.contains(&format!("`{room}`")), "ARCHITECTURE.md does not name `{room}`");
    }
}

#[test]
fn files_are_short_and_named_after_a_concept() {
    let mut wrong = Vec::new();
    for folder in FOLDERS {
        for (name, text) in rust_files(folder) {
            let stem = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
            if BANNED_FILE_NAMES.contains(&stem) {
                wrong.push(format!("{name}: name the concept instead"));
            }
            let lines = without_tests(&text).lines().count();
            let excused = LONG_FILES.iter().any(|(file, _)| *file == name);
            if lines > FILE_LINES_MAX && !excused {
                wrong.push(format!("{name}: {lines} lines, at most {FILE_LINES_MAX}"));
            }
            if lines <= FILE_LINES_MAX && excused {
                wrong.push(format!("{name}: no longer too long; take it off LONG_FILES"));
            }
            for (number, line) in text.lines().enumerate() {
                if line.chars().count() > LINE_CHARS_MAX && !line.contains("\"") {
                    wrong.push(format!("{name}:{}: longer than {LINE_CHARS_MAX}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions as (name, first line, length): from `fn` to the line that closes it. rustfmt indents
/// a function's closing brace as its head, which makes this exact for formatted code.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let head = line.trim_start();
        let indent = line.len() - head.len();
        let Some(at) = head.find("fn ") else { continue };
        let before = &head[..at];
        let is_head = before.split_whitespace().all(|word| {
            matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"")
                || word.starts_with("pub(")
        });
        if !is_head {
            continue;
        }
        let name: String =
            head[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[start..].iter().position(|l| *l == close);
        let one_line = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
        if let (Some(length), false) = (end, one_line) {
            found.push((name, start + 1, length + 1));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    for folder in FOLDERS {
        for (name, text) in rust_files(folder) {
            for (function, line, length) in functions(without_tests(&text)) {
                let excused =
                    LONG_FUNCTIONS.iter().any(|(file, f, _)| *file == name && *f == function);
                if length > FUNCTION_LINES_MAX && !excused {
                    wrong.push(format!("{name}:{line}: {function} has {length} lines"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "at most {FUNCTION_LINES_MAX} lines:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_where_it_has_to_be() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files("src") {
        let allowed = UNSAFE_ALLOWED.iter().any(|place| name.starts_with(place));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe ") && !code.contains("\"") && !allowed {
                wrong.push(format!("{name}:{}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe outside its places:\n{}", wrong.join("\n"));
}

#[test]
fn no_queue_is_unbounded() {
    let mut wrong = Vec::new();
    for (name, text) in rust_files("src") {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unbounded_channel") || code.contains("channel::unbounded") {
                wrong.push(format!("{name}:{}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "every queue has a bound:\n{}", wrong.join("\n"));
}

#[test]
fn metric_names_are_what_prometheus_expects() {
    let mut seen = BTreeSet::new();
    for metric in weir::metrics::METRICS {
        let name = metric.name;
        assert!(name.starts_with("weir_"), "{name}");
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
        assert!(seen.insert(name), "{name} is declared twice");
        assert!(metric.help.ends_with('.'), "{name}: help is a sentence");
        let total = name.ends_with("_total");
        let counter = metric.kind == weir::metrics::Kind::Counter;
        assert_eq!(counter, total, "{name}: counters, and only they, end in _total");
    }
}

#[test]
fn excuses_name_what_exists() {
    for (file, reason) in LONG_FILES {
        assert!(root().join(file).exists() && !reason.is_empty(), "{file}");
    }
    for (file, function, reason) in LONG_FUNCTIONS {
        let text = fs::read_to_string(root().join(file)).expect("an excused file exists");
        let found = functions(&text);
        let long = found.iter().any(|(f, _, n)| f == function && *n > FUNCTION_LINES_MAX);
        assert!(long && !reason.is_empty(), "{file}: {function} needs no excuse");
    }
}
