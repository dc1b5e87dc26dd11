//! A tenant's own limits over HTTP: budgets, rates, what refusals look like, what usage tells.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weir::config::{LedgerLimits, Tenancy, TenantSettings};
use weir::gate::ledger::{DiskFaults, Ledger, SimDisk};

use super::rig::{Answered, Options, Rig, Stepped, completion, json_request};

const COMPLETIONS: &str = "/v1/completions";
/// "hello" is five tokens for the tokenizer of the tests.
const PROMPT_TOKENS: u64 = 5;

fn options(default: TenantSettings) -> Options {
    Options { tenancy: Tenancy { default, ..Tenancy::default() }, ..Options::default() }
}

fn on_disk(default: TenantSettings, disk: &SimDisk) -> (Options, Arc<Ledger>) {
    let (ledger, _) = Ledger::open(Box::new(disk.clone()), LedgerLimits::default(), 0).unwrap();
    let ledger = Arc::new(ledger);
    (Options { ledger: Some(Arc::clone(&ledger)), ..options(default) }, ledger)
}

async fn ask(rig: &Rig, max_tokens: u32) -> Answered {
    let fields = json!({ "max_tokens": max_tokens, "ignore_eos": true });
    rig.post(COMPLETIONS, &completion(fields)).await
}

pub(super) fn error(answered: &Answered) -> (StatusCode, String, String, String) {
    let body = answered.json();
    let field = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (answered.status, field("type"), field("code"), field("message"))
}

async fn window(rig: &Rig, name: &str) -> Value {
    let usage = rig.get("/v1/usage").await.json();
    let windows = usage["windows"].as_array().unwrap().clone();
    windows.into_iter().find(|window| window["window"] == name).unwrap()
}

#[tokio::test]
async fn a_budget_is_spent_to_its_last_token_and_not_beyond() {
    let settings = TenantSettings { tokens_per_day: Some(50), ..TenantSettings::default() };
    let rig = options(settings).start();
    let large = ask(&rig, 46).await;
    let (status, kind, code, message) = error(&large);
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((&*kind, &*code), ("insufficient_quota", "insufficient_quota"));
    assert!(message.contains("may need 51 tokens") && message.contains("max_tokens"), "{message}");
    assert_eq!(large.header("x-should-retry"), "false");
    assert!(large.headers.get("retry-after").is_none());
    assert_eq!(ask(&rig, 20).await.status, StatusCode::OK);
    assert_eq!(ask(&rig, 20).await.status, StatusCode::OK);
    let day = window(&rig, "day").await;
    assert_eq!(
        day,
        json!({
            "window": "day",
            "starts_at": "1970-01-01T00:00:00Z",
            "resets_at": "1970-01-02T00:00:00Z",
            "limit": 50,
            "used": 50,
            "held": 0,
            "remaining": 0,
        })
    );
    let (status, _, code, message) = error(&ask(&rig, 1).await);
    assert_eq!((status, &*code), (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"));
    assert!(message.contains("resets at 1970-01-02T00:00:00Z"), "{message}");
    // Nothing is tokenised for a tenant whose budget is used up.
    let (status, ..) = error(&rig.post(COMPLETIONS, &completion(json!({"prompt": 7}))).await);
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let metrics = rig.get("/metrics").await.body;
    let refused = r#"weir_refusals_total{code="insufficient_quota",tenant="default"} 3"#;
    assert!(metrics.contains(refused), "{metrics}");
    assert!(metrics.contains("weir_budget_holds_open 0"));
    assert!(metrics.contains(r#"weir_budget_settled_tokens_total{kind="charged"} 50"#));
}

#[tokio::test]
async fn prompts_and_choices_of_a_request_are_held_together() {
    let settings = TenantSettings { tokens_per_hour: Some(60), ..TenantSettings::default() };
    let rig = options(settings).start();
    // Two prompts of 5 with three choices of 9 tokens each: 2 * (5 + 27) = 64.
    let fields = |max_tokens: u32| json!({"prompt": ["hello", "world"], "n": 3, "max_tokens": max_tokens, "ignore_eos": true});
    let answer = rig.post(COMPLETIONS, &completion(fields(9))).await;
    let (status, _, _, message) = error(&answer);
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(message.contains("64 tokens"), "{message}");
    assert_eq!(window(&rig, "hour").await["remaining"], 60, "a refused request holds nothing");
    let answer = rig.post(COMPLETIONS, &completion(fields(8))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.json()["usage"]["total_tokens"], 58);
    assert_eq!(window(&rig, "hour").await["used"], 58);
    let usage = rig.get("/v1/usage").await.json();
    assert_eq!(
        usage["days"],
        json!([{
            "date": "1970-01-01",
            "requests": 2,
            "prompt_tokens": 10,
            "cached_tokens": 0,
            "output_tokens": 48,
            "charged_tokens": 58,
        }])
    );
    assert_eq!(usage["as_of"]["durable"], false, "this server keeps no ledger");
}

#[tokio::test]
async fn rates_are_told_on_answers_and_on_refusals() {
    let settings = TenantSettings {
        requests_per_min: Some(4),
        tokens_per_min: Some(60),
        ..TenantSettings::default()
    };
    let rig = options(settings).start();
    let rates = |answered: &Answered| {
        ["limit", "remaining", "reset"].map(|what| {
            let of = |unit: &str| answered.header(&format!("x-ratelimit-{what}-{unit}")).to_owned();
            (of("requests"), of("tokens"))
        })
    };
    let told = |requests: [&str; 3], tokens: [&str; 3]| {
        [0, 1, 2].map(|i| (requests[i].to_owned(), tokens[i].to_owned()))
    };
    let first = ask(&rig, 10).await;
    assert_eq!(first.status, StatusCode::OK);
    // While it ran it held 15 tokens; the headers of a whole answer come after its end.
    assert_eq!(rates(&first), told(["4", "3", "15s"], ["60", "45", "15s"]));
    let large = ask(&rig, 56).await;
    let (status, kind, code, _) = error(&large);
    assert_eq!(
        (status, &*kind, &*code),
        (StatusCode::TOO_MANY_REQUESTS, "tokens", "rate_limit_exceeded")
    );
    assert_eq!(large.header("x-should-retry"), "false", "61 never are 60");
    let many = ask(&rig, 46).await;
    assert_eq!(error(&many).2, "rate_limit_exceeded");
    assert_eq!(many.header("retry-after-ms"), "6000", "51 of 45: six more, one a second");
    assert_eq!(many.header("retry-after"), "6");
    assert_eq!(many.header("x-should-retry"), "true");
    assert_eq!(rates(&many), told(["4", "3", "15s"], ["60", "45", "15s"]), "nothing was taken");
    for _ in 0..3 {
        assert_eq!(ask(&rig, 1).await.status, StatusCode::OK);
    }
    let fifth = ask(&rig, 1).await;
    let (status, kind, code, message) = error(&fifth);
    assert_eq!(
        (status, &*kind, &*code),
        (StatusCode::TOO_MANY_REQUESTS, "requests", "rate_limit_exceeded")
    );
    assert!(message.contains("limit 4 per minute"), "{message}");
    assert_eq!(fifth.header("retry-after-ms"), "15000");
    assert_eq!(rates(&fifth), told(["4", "0", "1m0s"], ["60", "27", "33s"]));
    let models = rig.get("/v1/models").await;
    assert_eq!(models.header("x-ratelimit-limit-requests"), "", "listing models is not bounded");
}

/// Starts a request on its own task and waits until it has been admitted.
pub(super) async fn enter(stepped: &Stepped, max_tokens: u32) -> JoinHandle<Answered> {
    try_enter(stepped, max_tokens).await.expect("the request is admitted")
}

/// As [`enter`]; `None` when it was refused.
pub(super) async fn try_enter(stepped: &Stepped, max_tokens: u32) -> Option<JoinHandle<Answered>> {
    let before = stepped.rig.state.gate.open_requests();
    let fields = json!({"max_tokens": max_tokens, "stream": true, "ignore_eos": true});
    let request = json_request(COMPLETIONS, completion(fields).to_string());
    let router = stepped.rig.router.clone();
    let task = tokio::spawn(async move {
        Answered::read(tower::ServiceExt::oneshot(router, request).await.unwrap()).await
    });
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if stepped.rig.state.gate.open_requests() > before {
            return Some(task);
        }
        if task.is_finished() {
            return None;
        }
    }
}

#[tokio::test]
async fn what_running_requests_hold_may_come_back() {
    let settings = TenantSettings { tokens_per_hour: Some(100), ..TenantSettings::default() };
    let mut stepped = options(settings).stepped();
    let first = enter(&stepped, 80).await;
    let refused = ask(&stepped.rig, 20).await;
    let (status, kind, code, message) = error(&refused);
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((&*kind, &*code), ("tokens", "rate_limit_exceeded"));
    assert!(message.contains("held by running requests (0 tokens used, 85 held)"), "{message}");
    assert_eq!(refused.header("x-should-retry"), "true");
    let hour = window(&stepped.rig, "hour").await;
    assert_eq!(
        (&hour["used"], &hour["held"], &hour["remaining"]),
        (&json!(0), &json!(85), &json!(15))
    );
    // It leaves after some tokens: what was computed is charged, the rest comes back.
    for _ in 0..12 {
        stepped.turn(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    stepped.turn(5);
    let hour = window(&stepped.rig, "hour").await;
    let used = hour["used"].as_u64().unwrap();
    assert!((PROMPT_TOKENS + 1..=PROMPT_TOKENS + 13).contains(&used), "{hour}");
    assert_eq!((&hour["held"], hour["remaining"].as_u64()), (&json!(0), Some(100 - used)));
    stepped.rig.state.gate.ledger().check().unwrap();
}

#[tokio::test]
async fn requests_at_once_and_requests_that_wait_are_bounded_by_tenant() {
    let settings = TenantSettings {
        concurrent_requests_max: Some(3),
        queued_requests_max: Some(2),
        ..TenantSettings::default()
    };
    let mut stepped = options(settings).stepped();
    let mut running = vec![enter(&stepped, 400).await, enter(&stepped, 400).await];
    let refused = ask(&stepped.rig, 1).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(error(&refused).3.contains("2 of your requests wait, at most 2 may"));
    stepped.turn(2);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.push(enter(&stepped, 400).await);
    let refused = ask(&stepped.rig, 1).await;
    let (_, kind, code, message) = error(&refused);
    assert_eq!((&*kind, &*code), ("requests", "rate_limit_exceeded"));
    assert!(message.contains("3 of your requests wait or run, at most 3 may"), "{message}");
    assert_eq!(refused.header("x-should-retry"), "true");
    running.iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn usage_tells_what_is_durable_and_only_that() {
    let disk = SimDisk::new(1, DiskFaults::default());
    let settings = TenantSettings { tokens_per_day: Some(100), ..TenantSettings::default() };
    let (options, ledger) = on_disk(settings.clone(), &disk);
    let rig = options.start();
    assert_eq!(ask(&rig, 10).await.status, StatusCode::OK);
    let day = window(&rig, "day").await;
    assert_eq!(
        (&day["used"], &day["held"], &day["remaining"]),
        (&json!(0), &json!(15), &json!(85))
    );
    let before = rig.get("/v1/usage").await.json()["as_of"].clone();
    assert_eq!(before["durable"], true);
    ledger.commit(0).unwrap();
    let day = window(&rig, "day").await;
    assert_eq!(
        (&day["used"], &day["held"], &day["remaining"]),
        (&json!(15), &json!(0), &json!(85))
    );
    let after = rig.get("/v1/usage").await.json()["as_of"].clone();
    assert!(after["sequence"].as_u64() > before["sequence"].as_u64());
    // A second server with the same disk, after a crash of the first.
    disk.restart(DiskFaults::default());
    let (options, _) = on_disk(settings, &disk);
    assert_eq!(window(&options.start(), "day").await["used"], 15);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_refuses_budgets_and_says_so() {
    let faults = DiskFaults { failing_sync: Some(1), ..DiskFaults::default() };
    let disk = SimDisk::new(1, faults);
    let settings = TenantSettings { tokens_per_day: Some(100), ..TenantSettings::default() };
    let (options, ledger) = on_disk(settings, &disk);
    let rig = options.start();
    assert_eq!(rig.get("/readyz").await.status, StatusCode::OK);
    assert_eq!(ask(&rig, 10).await.status, StatusCode::OK);
    ledger.commit(0).unwrap_err();
    let refused = ask(&rig, 10).await;
    let (status, kind, code, message) = error(&refused);
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&*kind, &*code), ("server_error", "ledger_read_only"));
    assert!(message.contains("operator"), "{message}");
    assert_eq!(refused.header("x-should-retry"), "true");
    assert!(!refused.header("retry-after-ms").is_empty());
    let ready = rig.get("/readyz").await;
    assert_eq!(
        (ready.status, error(&ready).2),
        (StatusCode::SERVICE_UNAVAILABLE, "ledger_read_only".to_owned())
    );
    assert!(rig.get("/metrics").await.body.contains("weir_ledger_read_only 1"));
}
