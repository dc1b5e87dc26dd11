//! What a tenant may ask, and that refusals name its limit.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use weir::config::{Tenancy, TenantSettings};

use super::rig::{Answered, Options, Rig, chat, completion, json_request};

/// The tenant "default" has these settings, and there are no keys.
fn rig(default: TenantSettings) -> Rig {
    Options { tenancy: Tenancy { default, ..Tenancy::default() }, ..Options::default() }.start()
}

async fn refused(rig: &Rig, path: &str, body: &Value) -> (u16, Value) {
    let answered = rig.post(path, body).await;
    (answered.status.as_u16(), answered.json()["error"].clone())
}

#[tokio::test]
async fn only_allowed_models_are_listed_and_served() {
    let models = Some(vec!["org/sim".to_owned(), "elsewhere".to_owned()]);
    let rig = rig(TenantSettings { models, ..TenantSettings::default() });
    let listed = rig.get("/v1/models").await.json();
    let names: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(names, ["org/sim"]);
    assert_eq!(rig.get("/v1/models/org/sim").await.status, 200);
    for name in ["sim", "elsewhere", "nothing"] {
        let (status, error) =
            refused(&rig, "/v1/chat/completions", &chat(json!({"model": name}))).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")), "{name}");
        let says = error["message"].as_str().unwrap();
        assert!(says.ends_with("the tenant `default` may use `org/sim`"), "{says}");
        assert_eq!(rig.get(&format!("/v1/models/{name}")).await.status, 404);
    }
    let answered = rig.post("/v1/chat/completions", &chat(json!({"model": "org/sim"}))).await;
    assert_eq!(answered.status, 200);
    let mut unnamed = chat(json!({}));
    unnamed.as_object_mut().unwrap().remove("model");
    assert_eq!(rig.post("/v1/chat/completions", &unnamed).await.status, 200);
}

#[tokio::test]
async fn a_tenant_without_models_gets_none() {
    let models = Some(vec!["elsewhere".to_owned()]);
    let rig = rig(TenantSettings { models, ..TenantSettings::default() });
    assert_eq!(rig.get("/v1/models").await.json()["data"], json!([]));
    let mut unnamed = chat(json!({}));
    unnamed.as_object_mut().unwrap().remove("model");
    let (status, error) = refused(&rig, "/v1/chat/completions", &unnamed).await;
    assert_eq!(status, 404);
    assert!(error["message"].as_str().unwrap().ends_with("may use none"), "{error}");
}

#[tokio::test]
async fn lengths_and_choices_are_the_tenants() {
    let rig = rig(TenantSettings {
        context_tokens_max: Some(100),
        output_tokens_max: Some(20),
        output_tokens_default: Some(5),
        choices_max: Some(2),
        ..TenantSettings::default()
    });
    for (path, body, param, says) in [
        (
            "/v1/chat/completions",
            chat(json!({"n": 3})),
            "n",
            "`default` may ask for 2 (max-choices)",
        ),
        ("/v1/completions", completion(json!({"n": 3})), "n", "may ask for 2 (max-choices)"),
        (
            "/v1/chat/completions",
            chat(json!({"max_tokens": 21})),
            "max_tokens",
            "(max-output-tokens)",
        ),
        ("/v1/completions", completion(json!({"max_tokens": 21})), "max_tokens", "may ask for 20"),
    ] {
        let (status, error) = refused(&rig, path, &body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        assert_eq!(error["code"], "invalid_value");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    let long = completion(json!({"prompt": "x".repeat(90), "max_tokens": 20}));
    let (status, error) = refused(&rig, "/v1/completions", &long).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("context_length_exceeded")));
    let says = error["message"].as_str().unwrap();
    // LiteLLM finds context errors by the sentence's beginning.
    let begins = "This model's maximum context length is 100 tokens for the tenant `default`";
    assert!(says.starts_with(begins), "{says}");
    for (path, mut body) in
        [("/v1/chat/completions", chat(json!({}))), ("/v1/completions", completion(json!({})))]
    {
        body.as_object_mut().unwrap().remove("max_tokens");
        let answer = rig.post(path, &body).await.json();
        assert_eq!(answer["usage"]["completion_tokens"], 5, "{answer}");
    }
    assert_eq!(rig.get("/v1/models").await.json()["data"][0]["max_model_len"], 100);
}

#[tokio::test]
async fn a_draining_server_sends_clients_to_another_one() {
    let rig = Options::default().start();
    rig.state.gate.drain();
    let request = json_request("/v1/chat/completions", Body::from(chat(json!({})).to_string()));
    let ready = Request::get("/readyz").body(Body::empty()).unwrap();
    for request in [request, ready] {
        let answered = Answered::read(rig.send(request).await).await;
        assert_eq!((answered.status.as_u16(), answered.header("connection")), (503, "close"));
        assert_eq!(answered.header("x-should-retry"), "true");
    }
}
