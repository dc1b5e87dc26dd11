//! Attempts and final outcomes are exact: each request's record against what the server saw of it.

use loadtest::record::{Outcome, RequestRecord};

use crate::generator::{Generator, Run, attempts_by_index, machine_shared};
use crate::paced::{PacedServer, RequestTruth, Settings};

const REQUESTS: usize = 60;

/// Everybody retries, at most twice.
const PROFILE: &str = "
name = \"retrying\"
[load]
request_rate = 60.0
num_prompts = 60
[prompt]
tokens = { fixed = 30 }
[output]
tokens = { fixed = 5 }
[[behaviours]]
fraction = 1.0
retries = 2
";

fn run(test: &str, faults: &[&str]) -> (Run, Vec<(RequestRecord, Vec<RequestTruth>)>) {
    let _shared = machine_shared();
    let settings = Settings {
        ttft_ms: 20.0,
        gap_ms: 5.0,
        faults: faults.iter().map(|fault| fault.parse().unwrap()).collect(),
        ..Settings::default()
    };
    let server = PacedServer::start(settings);
    // Nothing before the run: faults are counted by request.
    let args = "--model paced --no-preflight";
    let generator = Generator::new(test, &server.base_url(), args);
    let run = generator.file("--profile", "retrying.toml", PROFILE).run();
    let mut truth = attempts_by_index(&server);
    let records = run.records();
    assert_eq!(records.len(), REQUESTS, "{}", run.stderr);
    let pairs = records.into_iter().map(|record| {
        let tries = truth.remove(&record.index).unwrap_or_default();
        (record, tries)
    });
    let pairs: Vec<_> = pairs.collect();
    for (record, tries) in &pairs {
        assert_eq!(record.attempts as usize, tries.len(), "{record:?}\n{tries:?}");
        assert_eq!(record.status, tries.last().map(|truth| truth.status), "{record:?}");
        let completed = tries.last().is_some_and(|truth| truth.completed);
        assert_eq!(record.outcome == Outcome::Completed, completed, "{record:?}\n{tries:?}");
    }
    let total = run.summary().total;
    let attempts: u32 = pairs.iter().map(|(record, _)| record.attempts).sum();
    assert_eq!(total.attempts, u64::from(attempts));
    assert_eq!(total.requests, REQUESTS as u64);
    (run, pairs)
}

fn with_outcome(pairs: &[(RequestRecord, Vec<RequestTruth>)], outcome: Outcome) -> usize {
    pairs.iter().filter(|(record, _)| record.outcome == outcome).count()
}

#[test]
fn a_refusal_that_passes_is_retried_and_then_completed() {
    let (run, pairs) = run("retry-once", &["every=3,tries=1,status=429,retry-after-ms=20"]);
    assert_eq!(with_outcome(&pairs, Outcome::Completed), REQUESTS);
    let twice = pairs.iter().filter(|(record, _)| record.attempts == 2).count();
    assert_eq!(twice, REQUESTS / 3);
    let failures = run.summary().total.failures;
    assert!(failures.is_empty(), "{failures:?}");
    // The first attempt's time is kept: retrying does not make a request younger.
    let retried = pairs.iter().filter(|(record, _)| record.attempts == 2);
    for (record, _) in retried {
        assert!(record.last_sent_ns.unwrap() >= record.sent_ns.unwrap() + 20_000_000);
        assert!(record.first_token_ns().unwrap() >= record.last_sent_ns.unwrap());
    }
}

#[test]
fn retries_are_used_up_and_the_refusal_stands() {
    let fault = "every=4,first=1,status=503,code=overloaded,retry-after-ms=20";
    let (run, pairs) = run("retry-in-vain", &[fault]);
    let refused = with_outcome(&pairs, Outcome::Refused);
    assert_eq!(refused, REQUESTS / 4);
    assert_eq!(with_outcome(&pairs, Outcome::Completed), REQUESTS - refused);
    for (record, _) in pairs.iter().filter(|(record, _)| record.outcome == Outcome::Refused) {
        assert_eq!((record.attempts, record.status), (3, Some(503)));
        assert_eq!(record.code.as_deref(), Some("overloaded"));
    }
    let failures = run.summary().total.failures;
    assert_eq!(failures.get("503 overloaded").copied(), Some(refused as u64), "{failures:?}");
}

#[test]
fn the_server_may_forbid_to_retry() {
    let fault = "every=5,first=1,status=429,code=insufficient_quota,should-retry=false";
    let (_, pairs) = run("retry-forbidden", &[fault]);
    let refused: Vec<_> =
        pairs.iter().filter(|(record, _)| record.outcome == Outcome::Refused).collect();
    assert_eq!(refused.len(), REQUESTS / 5);
    assert!(refused.iter().all(|(record, _)| record.attempts == 1));
}

/// SDKs retry before an answer began, not in the middle of one.
#[test]
fn an_answer_that_breaks_is_broken() {
    let faults = [
        "every=6,first=1,drop-after=2",
        "every=6,first=2,error-event-at=2,code=lost",
        "every=6,first=3,malformed-at=1",
        "every=6,first=4,end-after=3",
        "every=6,first=5,status=500,code=bug,tries=1",
    ];
    let (run, pairs) = run("retry-broken", &faults);
    let total = run.summary().total;
    let broken = with_outcome(&pairs, Outcome::Broken);
    assert_eq!(broken, 40, "{:?}", total.failures);
    for (record, _) in pairs.iter().filter(|(record, _)| record.outcome == Outcome::Broken) {
        assert_eq!((record.attempts, record.status), (1, Some(200)), "{record:?}");
    }
    for word in ["reset", "lost", "malformed_stream", "unfinished_stream"] {
        let found = total.failures.get(&format!("200 {word}")).copied();
        assert_eq!(found, Some(10), "{word}: {:?}", total.failures);
    }
}
