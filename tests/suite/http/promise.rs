//! The latency promise over HTTP: who is refused, who waits without one, and who was late.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use weir::config::{Tenancy, TenantSettings};
use weir::device::sim::SimCost;

use super::limits::{enter, error, try_enter};
use super::rig::{Answered, Options, Stepped, completion, json_request};

const COMPLETIONS: &str = "/v1/completions";

/// One sequence at a time, steps of 50 ms, an objective of a fifth of a second.
fn stepped() -> Stepped {
    let default =
        TenantSettings { ttft: Some(Duration::from_millis(200)), ..TenantSettings::default() };
    let mut options =
        Options { tenancy: Tenancy { default, ..Tenancy::default() }, ..Options::default() };
    options.sim.limits.slots_total = 1;
    options.sim.cost = SimCost {
        fixed: Duration::from_millis(50),
        per_prefill_row: Duration::ZERO,
        per_sequence: Duration::ZERO,
        per_1024_context_tokens: Duration::ZERO,
    };
    options.stepped()
}

/// A server that has answered once, has a request running and as many waiting as it admits.
async fn crowded() -> (Stepped, Vec<tokio::task::JoinHandle<Answered>>) {
    let mut stepped = stepped();
    let first = enter(&stepped, 2).await;
    stepped.turn(10);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    let mut tasks = vec![enter(&stepped, 400).await];
    stepped.turn(2);
    // The permit learns of the start when its task reads the event.
    tokio::time::sleep(Duration::from_millis(20)).await;
    while let Some(task) = try_enter(&stepped, 400).await {
        tasks.push(task);
        assert!(tasks.len() < 20, "an objective of 200 ms is four steps");
    }
    assert!(tasks.len() > 1, "one may wait for a running one");
    (stepped, tasks)
}

async fn send(stepped: &Stepped, deadline_ms: Option<&str>, fields: Value) -> Answered {
    let mut request = json_request(COMPLETIONS, completion(fields).to_string());
    if let Some(ms) = deadline_ms {
        request.headers_mut().insert("x-weir-deadline-ms", ms.parse().unwrap());
    }
    Answered::read(stepped.rig.send(request).await).await
}

#[tokio::test]
async fn an_answer_tells_what_was_predicted_for_it() {
    let mut stepped = stepped();
    let task = enter(&stepped, 2).await;
    stepped.turn(10);
    let answered = task.await.unwrap();
    assert_eq!(answered.status, StatusCode::OK);
    assert!(answered.header("x-weir-predicted-ttft-ms").parse::<u64>().is_ok());
}

#[tokio::test]
async fn who_would_be_late_is_refused_at_once_and_told_when_to_come_back() {
    let (stepped, tasks) = crowded().await;
    let refused = send(&stepped, None, json!({})).await;
    let (status, kind, code, message) = error(&refused);
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&*kind, &*code), ("server_error", "predicted_late"));
    assert!(message.contains("the objective is 200 ms"), "{message}");
    assert_eq!(refused.header("x-should-retry"), "true");
    let ms: u64 = refused.header("retry-after-ms").parse().unwrap();
    assert!((75..60_000).contains(&ms), "{ms}");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    tasks.iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn flex_requests_wait_without_a_promise_and_the_answer_says_so() {
    let (mut stepped, tasks) = crowded().await;
    let rig = stepped.rig.router.clone();
    let body = completion(json!({ "service_tier": "flex", "max_tokens": 2 })).to_string();
    let open = stepped.rig.state.gate.open_requests();
    let flex = tokio::spawn(async move {
        let request = json_request(COMPLETIONS, body);
        Answered::read(tower::ServiceExt::oneshot(rig, request).await.unwrap()).await
    });
    while stepped.rig.state.gate.open_requests() == open {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tasks.iter().for_each(|task| task.abort());
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    stepped.turn(20);
    let answered = flex.await.unwrap();
    assert_eq!(answered.status, StatusCode::OK);
    assert_eq!(answered.json()["service_tier"], "flex");
}

#[tokio::test]
async fn a_request_that_was_admitted_and_did_not_start_in_time_is_told_to_come_back() {
    let mut stepped = stepped();
    let running = enter(&stepped, 400).await;
    stepped.turn(2);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting = enter(&stepped, 4).await;
    // Five steps of 50 ms pass, and the only slot stays taken.
    stepped.turn(6);
    let (status, kind, code, _) = error(&waiting.await.unwrap());
    assert_eq!((status, &*kind), (StatusCode::SERVICE_UNAVAILABLE, "server_error"));
    assert_eq!(code, "late");
    running.abort();
}

#[tokio::test]
async fn a_deadline_is_judged_at_the_door_and_kept_to_the_last_token() {
    let (stepped, tasks) = crowded().await;
    let refused = send(&stepped, Some("60"), json!({ "service_tier": "flex" })).await;
    assert_eq!(error(&refused).2, "predicted_late");
    for wrong in ["", "-1", "0", "soon", "99999999999"] {
        let (status, _, code, message) = error(&send(&stepped, Some(wrong), json!({})).await);
        assert_eq!((status, &*code), (StatusCode::BAD_REQUEST, "invalid_value"), "{wrong:?}");
        assert!(message.contains("x-weir-deadline-ms"), "{message}");
    }
    tasks.iter().for_each(|task| task.abort());

    let mut fresh = self::stepped();
    let mut request =
        json_request(COMPLETIONS, completion(json!({ "max_tokens": 300 })).to_string());
    request.headers_mut().insert("x-weir-deadline-ms", "400".parse().unwrap());
    let router = fresh.rig.router.clone();
    let task = tokio::spawn(async move {
        Answered::read(tower::ServiceExt::oneshot(router, request).await.unwrap()).await
    });
    while fresh.rig.state.gate.open_requests() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fresh.turn(30);
    let (status, _, code, _) = error(&task.await.unwrap());
    assert_eq!((status, &*code), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
}
