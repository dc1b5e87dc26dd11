//! Who may use which route, what is no route, and the headers that every answer has.

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::rig::{Answered, Options, Rig, chat, json_request};

const OPEN: &[&str] = &["/livez", "/readyz", "/health", "/ping"];
const GET: &[&str] = &[
    "/v1/models",
    "/models",
    "/v1/models/sim",
    "/v1/models/org/sim",
    "/models/org%2Fsim",
    "/tokenizer_info",
    "/metrics",
    "/load",
    "/version",
];
const POST: &[&str] = &[
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/completions",
    "/completions",
    "/v1/chat/completions/render",
    "/v1/completions/render",
    "/tokenize",
    "/v1/tokenize",
    "/detokenize",
    "/v1/detokenize",
];

async fn with_key(rig: &Rig, method: &str, path: &str, authorization: Option<&str>) -> Answered {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let request = request.header("content-type", "application/json");
    Answered::read(rig.send(request.body(Body::from("{}")).unwrap()).await).await
}

#[tokio::test]
async fn without_the_key_only_health_is_open() {
    let rig = Options { keys: vec!["secret".into()], ..Options::default() }.start();
    let wrong = [
        None,
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer Secret"),
        Some("Bearer secret2"),
        Some("Basic secret"),
        Some("secret"),
        Some("Bearer secret secret"),
    ];
    let routes = GET.iter().map(|path| ("GET", path)).chain(POST.iter().map(|p| ("POST", p)));
    for (method, path) in routes {
        for authorization in wrong {
            let answered = with_key(&rig, method, path, authorization).await;
            assert_eq!(answered.status, 401, "{method} {path} {authorization:?}");
            let code = answered.json()["error"]["code"].clone();
            let has_token = authorization.is_some_and(|a| a.len() > 7 && a.starts_with("Bearer"));
            let expected = if has_token { "invalid_api_key" } else { "missing_api_key" };
            assert_eq!(code, expected, "{authorization:?}");
            assert_eq!(answered.header("www-authenticate"), "Bearer");
        }
        for authorization in ["Bearer secret", "bearer secret", "BEARER  secret"] {
            let answered = with_key(&rig, method, path, Some(authorization)).await;
            assert_ne!(answered.status, 401, "{method} {path}");
            assert_ne!(answered.status, 404, "{method} {path}: {}", answered.body);
        }
    }
    for path in OPEN {
        assert_eq!(with_key(&rig, "GET", path, None).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn tricks_with_paths_and_hosts_open_nothing() {
    let rig = Options { keys: vec!["secret".into()], ..Options::default() }.start();
    for path in [
        "/livez/../v1/models",
        "/livez/v1/models",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/V1/models",
        "/v1/models;/livez",
        "/v1/models?/livez",
        "/%76%31/models",
        "/metrics%2f..%2flivez",
        "http://localhost/livez/../metrics",
        "http://evil/metrics",
    ] {
        for (header, value) in [
            ("host", "livez"),
            ("x-forwarded-prefix", "/livez"),
            ("x-original-url", "/livez"),
            ("x-http-method-override", "GET"),
        ] {
            let request = Request::get(path).header(header, value).body(Body::empty()).unwrap();
            let answered = Answered::read(rig.send(request).await).await;
            let status = answered.status.as_u16();
            assert!(status == 401 || status == 404, "{path} {header}: {status}");
        }
    }
}

#[tokio::test]
async fn without_keys_any_authorization_is_fine() {
    let rig = Options::default().start();
    for authorization in [None, Some("Bearer"), Some("Bearer "), Some("Bearer x"), Some("\u{7f}")] {
        let mut request = json_request("/v1/chat/completions", chat(json!({})).to_string());
        if let Some(value) = authorization
            && let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes())
        {
            request.headers_mut().insert("authorization", value);
        }
        assert_eq!(rig.send(request).await.status(), 200, "{authorization:?}");
    }
}

#[tokio::test]
async fn what_is_no_route_is_answered_in_json_too() {
    let rig = Options::default().start();
    let answered = rig.get("/v1/embeddings").await;
    assert_eq!(answered.status, 404);
    assert_eq!(answered.json()["error"]["code"], "unknown_route");
    for (method, path, allow) in
        [("GET", "/v1/completions", "POST"), ("DELETE", "/v1/models", "GET,HEAD")]
    {
        let answered = with_key(&rig, method, path, None).await;
        assert_eq!(answered.status, 405);
        assert_eq!(answered.header("allow"), allow);
        assert_eq!(answered.json()["error"]["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn a_request_id_comes_back_when_it_is_sane() {
    let rig = Options::default().start();
    let long = "x".repeat(129);
    for (sent, echoed) in
        [("abc-123", true), (&long[..128], true), (&long, false), ("a b", false), ("", false)]
    {
        let request =
            Request::get("/nope").header("x-request-id", sent).body(Body::empty()).unwrap();
        let answered = Answered::read(rig.send(request).await).await;
        let id = answered.header("x-request-id");
        assert_eq!(id == sent, echoed, "{sent}: {id}");
        assert!(echoed || id.starts_with("req_"));
        assert!(!answered.header("openai-processing-ms").is_empty());
    }
}

#[tokio::test]
async fn tokenizing_gives_what_is_scheduled() {
    let rig = Options::default().start();
    let messages = json!([{"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "héllo"}]}]);
    let body = json!({"messages": messages, "return_token_strs": true});
    let tokenized = rig.post("/tokenize", &body).await.json();
    let asked = json!({"model": "sim", "messages": messages, "return_token_ids": true});
    let answer = rig.post("/v1/chat/completions", &asked).await.json();
    assert_eq!(answer["prompt_token_ids"], tokenized["tokens"]);
    assert_eq!(tokenized["count"], tokenized["tokens"].as_array().unwrap().len());
    assert_eq!(tokenized["max_model_len"], 512);
    assert_eq!(tokenized["token_strs"][0], "s");

    let rendered = rig.post("/v1/chat/completions/render", &asked).await.json();
    assert_eq!(rendered["token_ids"], tokenized["tokens"]);
    assert_eq!(rendered["prompt"], "system: be brief\nuser: héllo\nassistant: ");
    let body = json!({"tokens": tokenized["tokens"]});
    let text = rig.post("/detokenize", &body).await.json();
    assert_eq!(text["prompt"], rendered["prompt"]);

    let plain = rig.post("/tokenize", &json!({"prompt": "hi", "add_special_tokens": false})).await;
    assert_eq!(plain.json()["tokens"], json!([104, 105]));
    let body = json!({"prompt": ["hi", "yo"], "max_tokens": 1});
    let rendered = rig.post("/completions/render", &body).await.json();
    assert_eq!(rendered[1]["token_ids"], json!([121, 111]));
}

#[tokio::test]
async fn requests_are_counted_by_how_they_ended() {
    let rig = Options::default().start();
    let path = "/v1/chat/completions";
    assert_eq!(rig.post(path, &chat(json!({}))).await.status, 200);
    assert_eq!(rig.post(path, &chat(json!({"n": 0}))).await.status, 400);
    let mut request = json_request(path, chat(json!({"stream": true})).to_string());
    request.headers_mut().insert("x-stainless-retry-count", "2".parse().unwrap());
    assert!(Answered::read(rig.send(request).await).await.body.ends_with("data: [DONE]\n\n"));
    let text = rig.get("/metrics").await.body;
    for line in [
        "weir_requests_total{endpoint=\"/v1/chat/completions\",outcome=\"ok\",code=\"\"} 2",
        "weir_requests_total{endpoint=\"/v1/chat/completions\",outcome=\"invalid\",\
         code=\"invalid_value\"} 1",
        "weir_tokens_total{kind=\"output\"} 16",
        "weir_sdk_retries_total 1",
        "weir_ttft_seconds_count 2",
        "weir_itl_seconds_count 14",
        "vllm:request_success_total{model_name=\"sim\",engine=\"0\",finished_reason=\"length\"} 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
}
