//! What goes wrong is said clearly, ends with a code other than 0, and loses nothing that was
//! measured.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use crate::generator::{Generator, Run, machine_shared};
use crate::paced::{PacedServer, Settings};

const SMALL: &str = "--request-rate 100 --num-prompts 20 --random-input-len 10 \
    --random-output-len 5";

fn quick() -> Settings {
    Settings { ttft_ms: 20.0, gap_ms: 5.0, ..Settings::default() }
}

fn run(test: &str, settings: Settings, args: &str) -> Run {
    let _shared = machine_shared();
    let server = PacedServer::start(settings);
    Generator::new(test, &server.base_url(), &format!("{SMALL} {args}")).run()
}

fn completed(run: &Run) -> u64 {
    run.summary().total.outcomes.get("completed").copied().unwrap_or(0)
}

#[test]
fn an_unreachable_server() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = Generator::new("unreachable", &format!("http://{free}"), SMALL).run();
    run.expect_code(3).expect_told(&free.to_string()).expect_told("--base-url");
}

#[test]
fn a_wrong_key() {
    let settings = || Settings { api_key: Some("sk-7Zq".to_owned()), ..quick() };
    run("wrong-key", settings(), "--model paced --api-key sk-other")
        .expect_code(4)
        .expect_told("401 invalid_api_key")
        .expect_told("--api-key");
    let run = run("right-key", settings(), "--model paced --api-key sk-7Zq");
    run.expect_code(0);
    assert_eq!(completed(&run), 20);
    let report = run.report().to_string() + &run.stdout + &run.stderr;
    assert!(!report.contains("sk-7Zq"), "no report has a key in it");
}

#[test]
fn a_wrong_model() {
    run("wrong-model", quick(), "--model other")
        .expect_code(4)
        .expect_told("404 model_not_found")
        .expect_told("--model");
}

#[test]
fn a_malformed_trace_names_the_line() {
    let lines = "{\"timestamp\": 0, \"input_length\": 10, \"output_length\": 5, \"hash_ids\": [1]}\n\
        {\"timestamp\": 10, \"input_length\": \"ten\", \"output_length\": 5, \"hash_ids\": [1]}\n";
    let generator = Generator::new("trace", "http://127.0.0.1:1", "--trace mooncake");
    let run = generator.file("--dataset-path", "trace.jsonl", lines).run();
    run.expect_code(2).expect_told("trace.jsonl:2");
}

#[test]
fn a_stream_that_hangs_or_never_stops() {
    for (test, fault, code) in [
        ("hangs", "every=4,first=3,hang-after=2", "idle_timeout"),
        ("endless", "every=4,first=3,endless=true", "endless_stream"),
    ] {
        let faults = vec![fault.parse().unwrap()];
        let settings = Settings { faults, gap_ms: 0.01, ..quick() };
        let run = run(test, settings, "--model paced --idle-timeout 2 --no-preflight");
        run.expect_code(6).expect_told("5 of 20 answers");
        assert_eq!(completed(&run), 15, "{}", run.stdout);
        let failures = run.summary().total.failures;
        assert!(failures.keys().any(|key| key.contains(code)), "{failures:?}");
    }
}

#[test]
fn a_server_without_usage() {
    let run = run("no-usage", Settings { no_usage: true, ..quick() }, "--model paced");
    run.expect_code(6).expect_told("20 of 20 answers had no usage");
    let total = run.summary().total;
    assert_eq!((total.without_usage, total.output_tokens), (20, 100));
}

#[test]
fn a_server_that_never_streams() {
    let run = run("whole", Settings { whole_only: true, ..quick() }, "--model paced");
    let total = run.summary().total;
    assert_eq!((completed(&run), total.output_tokens), (20, 100));
    assert_eq!((total.tpot.count, total.itl.count), (0, 0), "one piece has no gaps");
}

/// `/dev/full` takes no byte, as a full disk does.
#[test]
fn a_full_disk() {
    let _shared = machine_shared();
    let server = PacedServer::start(quick());
    for name in ["run.json.tmp", "run.jsonl.tmp"] {
        let test = format!("full-{}", name.replace('.', "-"));
        let args = format!("--model paced {SMALL}");
        let generator = Generator::new(&test, &server.base_url(), &args);
        symlink("/dev/full", generator.folder().join(name)).unwrap();
        let run = generator.run();
        run.expect_code(5).expect_told(name.trim_end_matches(".tmp"));
        run.expect_told("No space left on device");
        // Whatever could be kept is: the figures are shown, and one of the two files is there.
        assert!(run.stdout.contains("TTFT"), "{}", run.stdout);
        if name == "run.json.tmp" {
            assert_eq!(run.records().len(), 20);
        } else {
            assert_eq!(completed(&run), 20);
        }
    }
}

#[test]
fn a_disk_that_is_full_from_the_start() {
    let _shared = machine_shared();
    let server = PacedServer::start(quick());
    let args = format!("--model paced --no-preflight {SMALL}");
    let generator = Generator::new("full-at-once", &server.base_url(), &args);
    symlink("/dev/full", generator.folder().join("run.partial.jsonl")).unwrap();
    generator.run().expect_code(5).expect_told("No space left on device");
    assert_eq!(server.truth().len(), 0, "found out before anything was sent");
}

#[test]
fn a_folder_that_cannot_be_made() {
    let _shared = machine_shared();
    let server = PacedServer::start(quick());
    // A file where a part of the path should be a folder.
    let folder = Generator::new("no-folder", &server.base_url(), "").folder().join("file");
    std::fs::write(folder, "").unwrap();
    let args = format!("--model paced --no-preflight {SMALL}");
    let run = Generator::without_folder("no-folder/file/folder", &server.base_url(), &args).run();
    run.expect_code(5).expect_told("no-folder/file").expect_told("--result-dir");
    assert_eq!(server.truth().len(), 0, "found out before anything was sent");
}

#[test]
fn an_interrupt_ends_with_a_report_of_what_was_measured() {
    let _shared = machine_shared();
    let server = PacedServer::start(quick());
    let args = "--model paced --request-rate 50 --num-prompts 100000 --random-output-len 5";
    let generator = Generator::new("interrupt", &server.base_url(), args);
    let mut child = generator.spawn();
    while server.truth().len() < 40 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let run = generator.wait(child);
    run.expect_code(130);
    let summary = run.summary();
    assert!(summary.run.interrupted);
    assert!(completed(&run) >= 39, "{:?}", summary.total.outcomes);
    assert!(summary.total.requests < 1000, "what was never sent does not count");
    assert!(run.stdout.contains("TTFT"), "{}", run.stdout);
    assert!(run.records().iter().any(|record| record.first_token_ns().is_some()));
}
