//! How requests end other than well: clients that leave, engines that fail, shutdowns.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http_body::Body as _;
use serde_json::{Value, json};
use weir::ids::TokenId;

use super::rig::{Answered, Options, Stepped, chat, completion, json_request};

const CHAT: &str = "/v1/chat/completions";

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn blocks_used(stepped: &Stepped) -> u32 {
    stepped.rig.state.engine.load().blocks_used
}

/// Drives a request, on its own task, until the engine works on it.
async fn until_running(stepped: &mut Stepped) {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        stepped.turn(1);
        if blocks_used(stepped) > 0 {
            return;
        }
    }
    panic!("the request never ran");
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_frees_its_blocks_within_two_steps() {
    let mut stepped = Options::default().stepped();
    let body = chat(json!({"stream": true, "max_tokens": 400, "n": 3})).to_string();
    let router = stepped.rig.router.clone();
    let request = tokio::spawn(tower::ServiceExt::oneshot(router, json_request(CHAT, body)));
    until_running(&mut stepped).await;
    stepped.turn(3);
    let mut response = request.await.unwrap().unwrap();
    let mut body = std::pin::pin!(response.body_mut());
    let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap().unwrap();
    assert!(frame.data_ref().unwrap().starts_with(b"data: "));
    assert!(blocks_used(&stepped) > 0);
    assert_eq!(stepped.rig.state.gate.open_requests(), 1);
    drop(response);
    stepped.turn(2);
    assert_eq!(blocks_used(&stepped), 0);
    assert_eq!(stepped.rig.state.gate.open_requests(), 0);
    stepped.engine.check();
}

#[tokio::test]
async fn a_client_that_leaves_a_whole_answer_frees_its_blocks_within_two_steps() {
    let mut stepped = Options::default().stepped();
    let body = chat(json!({"max_tokens": 400})).to_string();
    let router = stepped.rig.router.clone();
    let request = tokio::spawn(tower::ServiceExt::oneshot(router, json_request(CHAT, body)));
    until_running(&mut stepped).await;
    stepped.turn(3);
    assert!(blocks_used(&stepped) > 0);
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    stepped.turn(2);
    assert_eq!(blocks_used(&stepped), 0);
    assert_eq!(stepped.rig.state.gate.open_requests(), 0);
    let metrics = stepped.rig.get("/metrics").await.body;
    assert!(metrics.contains("outcome=\"cancelled\",code=\"\"} 1"), "{metrics}");
}

#[tokio::test]
async fn the_head_of_an_answer_waits_for_the_first_step() {
    let mut stepped = Options::default().stepped();
    let body = chat(json!({"stream": true})).to_string();
    let router = stepped.rig.router.clone();
    let mut request = Box::pin(tower::ServiceExt::oneshot(router, json_request(CHAT, body)));
    for _ in 0..20 {
        assert!(poll_once(&mut request).await.is_none(), "nothing has run yet");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let driver = tokio::spawn(request);
    until_running(&mut stepped).await;
    let response = driver.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(stepped.rig.state.gate.waiting_requests(), 0, "the permit knows that it started");
}

#[tokio::test]
async fn an_early_failure_has_a_status_and_a_late_one_an_event() {
    let mut options = Options::default();
    options.sim.faults.poison_token = Some(TokenId(33));
    options.sim.sampled = 97..98;
    let rig = options.start();
    // A poisoned prompt fails before anything was sent.
    for stream in [false, true] {
        let body = completion(json!({"prompt": "!", "stream": stream}));
        let answered = rig.post("/v1/completions", &body).await;
        if answered.status == 200 {
            assert_failed_stream(&answered);
            continue;
        }
        assert_eq!(answered.status, 500, "{}", answered.body);
        assert_eq!(answered.json()["error"]["code"], "engine_error");
        assert_eq!(answered.json()["error"]["type"], "server_error");
    }
    // One that samples poison fails in the middle.
    let body = completion(json!({"stream": true, "logit_bias": {}, "max_tokens": 20}));
    let fine = rig.post("/v1/completions", &body).await;
    assert_eq!(fine.chunks().len(), 21);
}

#[tokio::test]
async fn a_stream_that_fails_midway_ends_with_an_error_event_and_no_done() {
    let mut options = Options::default();
    // About every tenth token is one that makes the rest of its sequence NaN.
    options.sim.sampled = 97..107;
    options.sim.faults.nan_token = Some(TokenId(100));
    let rig = options.start();
    let body = completion(json!({"stream": true, "max_tokens": 300}));
    let answered = rig.post("/v1/completions", &body).await;
    assert_eq!(answered.status, 200);
    assert_failed_stream(&answered);
    assert!(answered.events().len() > 1, "something was sent before: {}", answered.body);
    let whole = rig.post("/v1/completions", &completion(json!({"max_tokens": 300}))).await;
    assert_eq!(whole.status, 500);
    assert_eq!(rig.state.gate.open_requests(), 0);
}

fn assert_failed_stream(answered: &Answered) {
    let events = answered.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    let keys: Vec<&str> = last["error"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["message", "type", "param", "code"]);
    assert_eq!(last["error"]["type"], "server_error");
    assert!(!answered.body.contains("[DONE]"), "{}", answered.body);
}

#[tokio::test]
async fn an_engine_that_stops_ends_every_stream_with_an_event() {
    let rig = Options::default().step(Duration::from_millis(2)).start();
    let body = chat(json!({"stream": true, "max_tokens": 480}));
    let (answered, ()) = tokio::join!(rig.post(CHAT, &body), async {
        while rig.state.engine.load().running == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        rig.state.engine.stop();
    });
    assert_failed_stream(&answered);
    let after = rig.post(CHAT, &body).await;
    assert!(after.status == 503 || after.status == 500, "{}", after.body);
}

#[tokio::test]
async fn an_abort_ends_streams_with_an_event_and_whole_answers_with_a_status() {
    let rig = Options::default().step(Duration::from_millis(5)).start();
    let stream = chat(json!({"stream": true, "max_tokens": 480}));
    let whole = chat(json!({"max_tokens": 480}));
    let (streamed, answered, ()) =
        tokio::join!(rig.post(CHAT, &stream), rig.post(CHAT, &whole), async {
            while rig.state.engine.load().running < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            rig.state.shutdown.abort();
        });
    assert_failed_stream(&streamed);
    assert!(streamed.body.contains("\"code\":\"draining\""), "{}", streamed.body);
    assert_eq!(answered.status, 503);
    assert_eq!(answered.header("x-should-retry"), "true");
}

#[tokio::test]
async fn a_full_queue_refuses_before_it_reads_the_body() {
    let mut options = Options::default();
    options.queue.requests_max = 2;
    let stepped = options.stepped();
    let send = || {
        let body = chat(json!({"stream": true})).to_string();
        let router = stepped.rig.router.clone();
        tokio::spawn(tower::ServiceExt::oneshot(router, json_request(CHAT, body)))
    };
    let waiting = [send(), send()];
    while stepped.rig.state.gate.waiting_requests() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = stepped.rig.post_text(CHAT, "this is not JSON").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["code"], "queue_full");
    assert!(!refused.header("retry-after-ms").is_empty());
    for request in waiting {
        request.abort();
    }
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let keep_alive_interval = Duration::from_millis(20);
    let stepped = Options { keep_alive_interval, ..Options::default() }.stepped();
    let body = chat(json!({"stream": true})).to_string();
    // Nothing turns the engine: the head comes after the interval, and then only comments.
    let mut response = stepped.rig.send(json_request(CHAT, body)).await;
    assert_eq!(response.status(), 200);
    let mut body = std::pin::pin!(response.body_mut());
    let mut frames = Vec::new();
    for _ in 0..3 {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap().unwrap();
        frames.push(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap());
    }
    assert!(frames[0].contains("\"role\":\"assistant\""), "{frames:?}");
    assert_eq!(&frames[1..], [": keep-alive\n\n", ": keep-alive\n\n"]);
}
