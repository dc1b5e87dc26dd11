//! The JSON of chat requests, through the real router to a simulated device.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::rig::{Answered, Options, Rig};

const PATHS: [&str; 2] = ["/v1/chat/completions/render", "/v1/chat/completions"];
/// Far more than any answer of the simulated device takes: this is for those that never end.
const PATIENCE: Duration = Duration::from_secs(60);

static SERVER: LazyLock<(Runtime, Rig)> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let rig = runtime.block_on(async { Options::default().start() });
    (runtime, rig)
});

/// Posts the bytes as a request for a prompt and as a request for an answer. Both are answered
/// whole, or refused with a 4xx and an error that says what and where.
pub fn chat_request(data: &[u8]) {
    statuses(data);
}

/// As [`chat_request`]; gives the two statuses.
pub fn statuses(data: &[u8]) -> [u16; 2] {
    let (runtime, rig) = &*SERVER;
    PATHS.map(|path| {
        runtime.block_on(async {
            let answer = rig.post_text(path, data.to_vec());
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer ends");
            check(path, &answer);
            answer.status.as_u16()
        })
    })
}

fn check(path: &str, answer: &Answered) {
    let status = answer.status.as_u16();
    match status {
        200 if answer.header("content-type").starts_with("text/event-stream") => {
            for chunk in answer.chunks() {
                assert!(chunk["error"].is_null(), "{path}: an error in a stream: {chunk}");
            }
        }
        200 => assert!(answer.json().is_object(), "{path}: {}", answer.body),
        400..=499 => {
            let error = &answer.json()["error"];
            let says = error["message"].as_str().is_some_and(|message| !message.is_empty());
            let whole = ["type", "param", "code"].iter().all(|key| error.get(key).is_some());
            assert!(says && whole, "{path}: {status} with {}", answer.body);
        }
        _ => panic!("{path}: {status} with {}", answer.body),
    }
}
