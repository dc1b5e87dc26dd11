//! The bytes of answers, as clients see them.

use serde_json::{Value, json};

use super::rig::{Answered, Options, chat, completion};

fn check(got: &str, expected: &str) {
    // Written with line breaks and indentation here, without them on the wire.
    let expected: String = expected.lines().map(str::trim).collect();
    assert_eq!(without_id(got), expected, "\n got: {got}\n");
}

/// Ids are drawn; the rest of an answer is the same each time.
fn without_id(text: &str) -> String {
    let mut parts = text.split("\"id\":\"");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find('"').unwrap();
        let (id, rest) = part.split_at(end);
        let prefix = id.split_once('-').unwrap().0;
        out.push_str(&format!("\"id\":\"{prefix}-…{rest}"));
    }
    out
}

fn usage(prompt: u32, output: u32, cached: u32) -> String {
    format!(
        "\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{output},\
         \"total_tokens\":{},\"prompt_tokens_details\":{{\"cached_tokens\":{cached},\
         \"audio_tokens\":0}},\"completion_tokens_details\":{{\"reasoning_tokens\":0,\
         \"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}}",
        prompt + output
    )
}

fn error(answered: &Answered) -> Value {
    answered.json()["error"].clone()
}

#[tokio::test]
async fn a_chat_answer() {
    let rig = Options::default().start();
    let answered = rig.post("/v1/chat/completions", &chat(json!({"service_tier": "auto"}))).await;
    assert_eq!(answered.status, 200);
    assert_eq!(answered.header("content-type"), "application/json");
    let usage = usage(23, 8, 0);
    check(
        &answered.body,
        &format!(
            r#"{{"id":"chatcmpl-…","object":"chat.completion","created":0,"model":"sim",
            "system_fingerprint":"fp_sim","service_tier":"default","choices":[{{"index":0,
            "message":{{"role":"assistant","content":"cwvpnmob","refusal":null,"annotations":[]}},
            "logprobs":null,"finish_reason":"length"}}],{usage}}}"#
        ),
    );
}

#[tokio::test]
async fn a_chat_stream() {
    let rig = Options::default().start();
    let fields = json!({
        "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 2
    });
    let answered = rig.post("/v1/chat/completions", &chat(fields)).await;
    assert_eq!(answered.header("content-type"), "text/event-stream");
    assert_eq!(answered.header("cache-control"), "no-cache");
    assert_eq!(answered.header("x-accel-buffering"), "no");
    let head = r#"data: {"id":"chatcmpl-…","object":"chat.completion.chunk","created":0,
        "model":"sim","system_fingerprint":"fp_sim","choices":["#;
    let chunk = |choice: &str| format!("{head}{choice}],\"usage\":null}}\n");
    let opening = r#""delta":{"role":"assistant","content":"","refusal":null},
        "logprobs":null,"finish_reason":null}"#;
    let piece = |index, text| {
        chunk(&format!(
            r#"{{"index":{index},"delta":{{"content":"{text}"}},"logprobs":null,
            "finish_reason":null}}"#
        ))
    };
    let end = |index| {
        chunk(&format!(
            r#"{{"index":{index},"delta":{{}},"logprobs":null,"finish_reason":"length"}}"#
        ))
    };
    let expected = [
        chunk(&format!("{{\"index\":0,{opening}")),
        piece(0, "c"),
        piece(0, "w"),
        end(0),
        format!("{head}],{}}}\n", usage(23, 2, 0)),
        "data: [DONE]\n".to_owned(),
    ];
    check(&answered.body.replace('\n', ""), &expected.concat());
}

#[tokio::test]
async fn a_completion_with_echo_and_logprobs_is_what_lm_eval_reads() {
    let rig = Options::default().start();
    // lm-evaluation-harness: N prompt entries, the first null, and one generated entry.
    let fields = json!({
        "prompt": [[104, 105], [111, 107, 33]], "echo": true, "logprobs": 1, "max_tokens": 1,
        "temperature": 0, "seed": 1234
    });
    let answered = rig.post("/v1/completions", &completion(fields)).await;
    let answer = answered.json();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2, "{}", answered.body);
    for (choice, (prompt, count)) in choices.iter().zip([("hi", 2), ("ok!", 3)]) {
        let logprobs = &choice["logprobs"];
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(logprobs[name].as_array().unwrap().len(), count + 1, "{name}");
        }
        assert!(choice["text"].as_str().unwrap().starts_with(prompt));
        assert!(logprobs["token_logprobs"][0].is_null() && logprobs["top_logprobs"][0].is_null());
        assert!(logprobs["token_logprobs"][count].is_number());
        let tokens = logprobs["tokens"].as_array().unwrap();
        let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(text, choice["text"].as_str().unwrap());
        // The chosen token is always among the alternatives that are told.
        for at in 1..=count {
            let token = tokens[at].as_str().unwrap();
            let told = &logprobs["top_logprobs"][at][token];
            assert_eq!(told, &logprobs["token_logprobs"][at], "{token}");
        }
    }
    assert_eq!(choices[1]["logprobs"]["text_offset"], json!([0, 1, 2, 3]));
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
}

#[tokio::test]
async fn scoring_a_prompt_needs_no_output() {
    let rig = Options::default().start();
    let fields = json!({"echo": true, "logprobs": 0, "max_tokens": 0});
    let answered = rig.post("/v1/completions", &completion(fields)).await;
    let answer = answered.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "hello");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["logprobs"]["token_logprobs"].as_array().unwrap().len(), 5);
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    let scored =
        rig.post("/v1/completions", &completion(json!({"prompt_logprobs": 2}))).await.json();
    let scores = scored["choices"][0]["prompt_logprobs"].as_array().unwrap();
    assert_eq!(scores.len(), 5);
    assert!(scores[0].is_null());
    let entry = scores[1]["101"].as_object().unwrap();
    assert_eq!(entry["decoded_token"], "e");
    assert_eq!(entry["logprob"], choice["logprobs"]["token_logprobs"][1]);
}

#[tokio::test]
async fn chat_logprobs_cover_every_counted_token() {
    let mut options = Options::default();
    options.sim.eos = Some((super::rig::EOS, 0.2));
    let rig = options.start();
    let fields = json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 64});
    let answer = rig.post("/v1/chat/completions", &chat(fields)).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], content.len());
    for entry in content {
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 3);
        let bytes = entry["bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8);
        assert_eq!(entry["token"], String::from_utf8(bytes.collect()).unwrap());
    }
}

#[tokio::test]
async fn errors_have_all_four_keys_and_retry_headers_where_a_retry_helps() {
    let rig = Options::default().start();
    let answered = rig.post("/v1/chat/completions", &chat(json!({"tmperature": 1}))).await;
    assert_eq!(answered.status, 400);
    check(
        &answered.body,
        r#"{"error":{"message":"Unknown parameter: 'tmperature'. Did you mean 'temperature'?",
        "type":"invalid_request_error","param":"tmperature","code":"unknown_parameter"}}"#,
    );
    assert_eq!(answered.header("retry-after"), "");

    rig.state.gate.drain();
    let answered = rig.post("/v1/chat/completions", &chat(json!({}))).await;
    assert_eq!(answered.status, 503);
    assert_eq!(error(&answered)["code"], "draining");
    assert!(error(&answered)["param"].is_null());
    let ms: u64 = answered.header("retry-after-ms").parse().unwrap();
    assert!((750..=1250).contains(&ms), "a second, give or take a quarter: {ms}");
    assert_eq!(answered.header("retry-after"), ms.div_ceil(1000).to_string());
    assert_eq!(answered.header("x-should-retry"), "true");
    assert_eq!(rig.get("/readyz").await.status, 503);
    assert_eq!(rig.get("/livez").await.status, 200);
}

#[tokio::test]
async fn an_over_long_request_is_refused_by_name() {
    let rig = Options::default().start();
    for (path, body, param) in [
        ("/v1/completions", completion(json!({"prompt": "x".repeat(600)})), "prompt"),
        ("/v1/completions", completion(json!({"max_tokens": 600})), "prompt"),
        ("/v1/chat/completions", chat(json!({"max_tokens": 500})), "messages"),
    ] {
        let answered = rig.post(path, &body).await;
        assert_eq!(answered.status, 400, "{}", answered.body);
        let error = error(&answered);
        assert_eq!(error["code"], "context_length_exceeded");
        assert_eq!(error["param"], param);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("maximum context length is 512 tokens"), "{message}");
    }
    // What fits, fits: a default output is made to fit.
    let body = json!({"prompt": "x".repeat(511), "max_tokens": null});
    let answer = rig.post("/v1/completions", &completion(body)).await.json();
    assert_eq!(answer["usage"]["completion_tokens"], 1);
}
