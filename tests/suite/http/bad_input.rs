//! Bad input, field by field: each is refused with a 4xx that names the parameter, and streams
//! beside it do not notice.

mod hostile;
mod messages;
mod mutations;

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::rig::{Answered, MODEL, Options, Rig, chat, completion, json_request};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// What a field is documented to be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Number(f64, f64),
    Integer(i64, i64),
    String,
    Array,
    Object,
    StringOrArray,
    /// Known and not obeyed, whatever it is.
    Refused,
}

use Kind::{Array, Bool, Integer, Number, Object, Refused, StringOrArray};

const U32: i64 = u32::MAX as i64;

/// Fields of both endpoints.
const BOTH: &[(&str, Kind)] = &[
    ("model", Kind::String),
    ("frequency_penalty", Number(-2.0, 2.0)),
    ("presence_penalty", Number(-2.0, 2.0)),
    ("logit_bias", Object),
    ("max_tokens", Integer(0, U32)),
    ("n", Integer(1, 8)),
    ("seed", Integer(i64::MIN, i64::MAX)),
    ("stop", StringOrArray),
    ("stream", Bool),
    ("stream_options", Object),
    ("temperature", Number(0.0, 2.0)),
    ("top_p", Number(0.0, 1.0)),
    ("user", Kind::String),
    ("top_k", Integer(-1, U32)),
    ("min_p", Number(0.0, 1.0)),
    ("repetition_penalty", Number(0.01, 100.0)),
    ("min_tokens", Integer(0, U32)),
    ("ignore_eos", Bool),
    ("stop_token_ids", Array),
    ("include_stop_str_in_output", Bool),
    ("skip_special_tokens", Bool),
    ("prompt_logprobs", Integer(0, 20)),
    ("priority", Integer(i32::MIN as i64, i32::MAX as i64)),
    ("cache_salt", Kind::String),
    ("return_token_ids", Bool),
    ("response_format", Refused),
    ("structured_outputs", Refused),
    ("guided_json", Refused),
    ("logits_processors", Refused),
    ("truncate_prompt_tokens", Refused),
];

const CHAT_ONLY: &[(&str, Kind)] = &[
    ("messages", Array),
    ("max_completion_tokens", Integer(1, U32)),
    ("logprobs", Bool),
    ("top_logprobs", Integer(0, 20)),
    ("metadata", Object),
    ("safety_identifier", Kind::String),
    ("prompt_cache_key", Kind::String),
    ("service_tier", Kind::String),
    ("parallel_tool_calls", Bool),
    ("chat_template_kwargs", Object),
    ("add_generation_prompt", Bool),
    ("continue_final_message", Bool),
    ("tools", Refused),
    ("tool_choice", Refused),
    ("functions", Refused),
    ("function_call", Refused),
    ("store", Refused),
    ("reasoning_effort", Refused),
    ("verbosity", Refused),
    ("modalities", Refused),
    ("audio", Refused),
    ("prediction", Refused),
    ("web_search_options", Refused),
    ("prompt_cache_retention", Refused),
    ("moderation", Refused),
    ("chat_template", Refused),
];

const COMPLETIONS_ONLY: &[(&str, Kind)] = &[
    ("prompt", StringOrArray),
    ("echo", Bool),
    ("logprobs", Integer(0, 20)),
    ("best_of", Integer(1, 8)),
    ("add_special_tokens", Bool),
    ("suffix", Refused),
    ("prompt_embeds", Refused),
];

/// A request that must fail.
struct Case {
    path: &'static str,
    body: Value,
    status: u16,
    code: Option<&'static str>,
    /// The start of the named parameter.
    param: String,
}

impl Kind {
    fn wrong_types(self) -> Vec<Value> {
        let all =
            [json!(true), json!(1), json!(1.5), json!("x"), json!([[]]), json!({"x": {"y": 1}})];
        let fine = |value: &Value| match self {
            Bool => value.is_boolean(),
            Number(..) => value.is_number(),
            Integer(..) => value.is_i64(),
            Kind::String => value.is_string(),
            Array => value.is_array(),
            Object => value.is_object(),
            StringOrArray => value.is_string() || value.is_array(),
            Refused => false,
        };
        all.into_iter().filter(|value| !fine(value)).collect()
    }

    fn out_of_range(self) -> Vec<Value> {
        match self {
            Number(low, high) => {
                vec![json!(low - 0.01), json!(high + 0.01), json!(1e300), json!(-1e300)]
            }
            Integer(low, high) => {
                let beyond = [low.checked_sub(1), high.checked_add(1)];
                let mut values = vec![json!(1e300), json!(-1e300), json!(u64::MAX), json!(0.5)];
                values.extend(beyond.into_iter().flatten().map(|n| json!(n)));
                values
            }
            Bool | Kind::String | Array | Object | StringOrArray | Refused => Vec::new(),
        }
    }
}

fn base(path: &str, more: Value) -> Value {
    if path == CHAT { chat(more) } else { completion(more) }
}

fn case(path: &'static str, more: Value, code: &'static str, param: &str) -> Case {
    Case { path, body: base(path, more), status: 400, code: Some(code), param: param.to_owned() }
}

fn systematic() -> Vec<Case> {
    let mut cases = Vec::new();
    for (path, own) in [(CHAT, CHAT_ONLY), (COMPLETIONS, COMPLETIONS_ONLY)] {
        for (field, kind) in BOTH.iter().chain(own) {
            for value in kind.wrong_types().into_iter().chain(kind.out_of_range()) {
                let body = base(path, json!({ *field: value }));
                let code = matches!(kind, Refused).then_some("unsupported_parameter");
                let param = (*field).to_owned();
                cases.push(Case { path, body, status: 400, code, param });
            }
        }
    }
    cases
}

/// Asserts that it is a full error object, and returns its code and parameter.
fn error_of(answered: &Answered, told: &str) -> (String, String) {
    let status = answered.status.as_u16();
    assert!((400..500).contains(&status), "{told}: {status} {}", answered.body);
    let answer = answered.json();
    let keys: BTreeSet<&str> =
        answer["error"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["message", "type", "param", "code"]), "{told}");
    let text = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
    assert!(!text("message").is_empty() && !text("param").is_empty(), "{told}: {}", answered.body);
    assert!(answered.body.len() < 1000, "an error does not echo its request: {told}");
    (text("code"), text("param"))
}

async fn check(rig: &Rig, case: &Case) {
    let told: String = format!("{} {}", case.path, case.body).chars().take(300).collect();
    let answered = rig.post(case.path, &case.body).await;
    let (code, param) = error_of(&answered, &told);
    assert_eq!(answered.status, case.status, "{told}: {}", answered.body);
    assert!(param.starts_with(&case.param), "{told}: {}", answered.body);
    match case.code {
        Some(expected) => assert_eq!(code, expected, "{told}: {}", answered.body),
        None => {
            let known = ["invalid_type", "invalid_value", "unknown_parameter"];
            assert!(known.contains(&code.as_str()), "{told}: {}", answered.body);
        }
    }
}

/// A stream's text, which is the same each time.
async fn healthy(rig: &Rig, seed: u32) -> String {
    let more = json!({"stream": true, "seed": seed, "max_tokens": 100});
    let answered = rig.post(CHAT, &chat(more)).await;
    let chunks = answered.chunks();
    let id = chunks[0]["id"].as_str().unwrap().to_owned();
    answered.body.replace(&id, "ID")
}

#[tokio::test]
async fn every_mistake_is_refused_by_name_and_nobody_else_notices() {
    let rig = Options::default().start();
    let mut alone = Vec::new();
    for seed in 0..8 {
        alone.push(healthy(&rig, seed).await);
    }
    let cases: Vec<Case> =
        systematic().into_iter().chain(messages::cases()).chain(hostile::cases()).collect();
    assert!(cases.len() > 400, "the table has {} cases", cases.len());
    let attack = async {
        for case in &cases {
            check(&rig, case).await;
        }
    };
    let beside = async {
        for round in 0..4 {
            for seed in 0..8 {
                let text = healthy(&rig, seed).await;
                assert_eq!(text, alone[seed as usize], "round {round}, seed {seed}");
            }
        }
    };
    tokio::join!(attack, beside);
}

#[tokio::test]
async fn bodies_that_are_no_request() {
    let rig = Options::default().start();
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let large = format!("{{\"prompt\":\"{}\"}}", "x".repeat(5 << 20));
    for (body, status, code) in [
        ("", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        ("{\"model\": \"sim\",}", 400, "invalid_json"),
        ("{'model': 1}", 400, "invalid_json"),
        ("{\"n\": 1e999}", 400, "invalid_json"),
        ("{\"n\": 1, \"n\": 2}", 400, "invalid_json"),
        ("{\"n\": 1} {\"n\": 2}", 400, "invalid_json"),
        ("{\"prompt\": \"\\ud800\"}", 400, "invalid_json"),
        ("{\"prompt\": NaN}", 400, "invalid_json"),
        (deep.as_str(), 400, "invalid_json"),
        ("[]", 400, "invalid_type"),
        ("\"hello\"", 400, "invalid_type"),
        ("null", 400, "invalid_type"),
        (large.as_str(), 413, "request_too_large"),
    ] {
        for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
            let told: String = body.chars().take(80).collect();
            let answered = rig.post_text(path, body.to_owned()).await;
            let (got, param) = error_of(&answered, &told);
            assert_eq!((answered.status.as_u16(), got.as_str()), (status, code), "{told}");
            assert_eq!(param, "body");
        }
    }
    let raw = rig.post_text(CHAT, vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}']).await;
    assert_eq!(error_of(&raw, "not UTF-8").0, "invalid_json");
}

#[tokio::test]
async fn bodies_that_are_declared_as_something_else() {
    let rig = Options::default().start();
    let ask = |media: Option<&'static str>| {
        let mut request = Request::post(CHAT);
        if let Some(media) = media {
            request = request.header("content-type", media);
        }
        request.body(Body::from(chat(json!({})).to_string())).unwrap()
    };
    for media in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/jsonx"),
        Some(""),
    ] {
        let answered = Answered::read(rig.send(ask(media)).await).await;
        assert_eq!(error_of(&answered, "media type").0, "unsupported_media_type", "{media:?}");
        assert_eq!(answered.status, 415);
    }
    for media in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
        assert_eq!(rig.send(ask(Some(media))).await.status(), 200, "{media}");
    }
}

#[tokio::test]
async fn what_means_nothing_is_accepted() {
    let rig = Options::default().start();
    let nothing = json!({
        "frequency_penalty": null, "logit_bias": {}, "n": 1, "stop": [], "stream": false,
        "stream_options": null, "top_p": 1, "user": "u", "top_k": -1, "stop_token_ids": [],
        "response_format": {"type": "text"}, "spaces_between_special_tokens": true,
        "use_beam_search": false, "length_penalty": 1.0, "truncate_prompt_tokens": null,
        "seed": -9_007_199_254_740_991_i64, "logprobs": null, "model": MODEL,
    });
    let in_chat = json!({
        "tools": [], "tool_choice": "none", "functions": [], "function_call": "none",
        "store": false, "modalities": ["text"], "verbosity": "medium", "metadata": {},
        "parallel_tool_calls": true, "prompt_cache_key": "k", "service_tier": "auto",
        "top_logprobs": 0, "prompt_cache_retention": "in_memory", "audio": null,
        "max_completion_tokens": 8, "safety_identifier": "s", "reasoning_effort": null,
        "messages": [
            {"role": "user", "content": "x", "name": "ann"},
            {"role": "assistant", "content": "y", "refusal": null, "annotations": [],
             "audio": null, "function_call": null, "tool_calls": null},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function",
             "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "z"}]},
        ],
    });
    let in_completions = json!({"suffix": "", "best_of": 1, "echo": false, "prompt": [104, 105]});
    for (path, more) in [(CHAT, in_chat), (COMPLETIONS, in_completions)] {
        let mut body = base(path, nothing.clone());
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answered = rig.post(path, &body).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
    }
    // Requests come with names of the model, or without any.
    for model in [json!("org/sim"), json!(null)] {
        let body = chat(json!({"model": model}));
        assert_eq!(rig.send(json_request(CHAT, body.to_string())).await.status(), 200);
    }
}
