//! The whole answer is the fold of the stream, whatever is asked.

use serde_json::{Map, Value, json};

use super::rig::{EOS, Options, Rig, chat, completion};

/// Adds up the chunks of a stream as a client would, into the form of a whole answer.
fn fold(chunks: &[Value], is_chat: bool) -> Value {
    let mut choices: Vec<Map<String, Value>> = Vec::new();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        if choices.len() <= index {
            choices.resize_with(index + 1, Map::new);
        }
        let sum = &mut choices[index];
        let text = if is_chat { &choice["delta"]["content"] } else { &choice["text"] };
        let before = sum.get("text").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{before}{}", text.as_str().unwrap_or_default());
        sum.insert("text".into(), json!(text));
        extend(sum, "token_ids", &choice["token_ids"]);
        for name in ["content", "tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            extend(sum, name, &choice["logprobs"][name]);
        }
        if !choice["finish_reason"].is_null() {
            assert!(!sum.contains_key("finish_reason"), "a choice ends once");
            sum.insert("finish_reason".into(), choice["finish_reason"].clone());
        } else {
            assert!(!sum.contains_key("finish_reason"), "nothing comes after a choice's end");
        }
    }
    let usage = chunks.last().map(|chunk| chunk["usage"].clone());
    json!({ "choices": choices, "usage": usage })
}

fn extend(sum: &mut Map<String, Value>, name: &str, items: &Value) {
    if let Some(items) = items.as_array() {
        let all = sum.entry(name).or_insert_with(|| json!([]));
        all.as_array_mut().unwrap().extend(items.iter().cloned());
    }
}

/// A whole answer, reduced to what [`fold`] gives.
fn reduced(answer: &Value, is_chat: bool) -> Value {
    let choice = |choice: &Value| {
        let mut sum = Map::new();
        let text = if is_chat { &choice["message"]["content"] } else { &choice["text"] };
        sum.insert("text".into(), text.clone());
        extend(&mut sum, "token_ids", &choice["token_ids"]);
        for name in ["content", "tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            extend(&mut sum, name, &choice["logprobs"][name]);
        }
        sum.insert("finish_reason".into(), choice["finish_reason"].clone());
        sum
    };
    let choices: Vec<_> = answer["choices"].as_array().unwrap().iter().map(choice).collect();
    json!({ "choices": choices, "usage": answer["usage"] })
}

async fn check(rig: &Rig, path: &str, mut body: Value) {
    let is_chat = path.contains("chat");
    let whole = rig.post(path, &body).await;
    assert_eq!(whole.status, 200, "{body}: {}", whole.body);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let streamed = rig.post(path, &body).await;
    let mut whole = reduced(&whole.json(), is_chat);
    let mut folded = fold(&streamed.chunks(), is_chat);
    // Which part of a prompt was cached depends on what ran before.
    for answer in [&mut whole, &mut folded] {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].take();
    }
    assert_eq!(folded, whole, "{body}");
}

#[tokio::test]
async fn a_whole_answer_is_the_fold_of_its_stream() {
    let mut options = Options::default();
    options.sim.eos = Some((EOS, 0.05));
    // All bytes: text with broken UTF-8 in it.
    options.sim.sampled = 0..256;
    let rig = options.start();
    let wishes = [
        json!({}),
        json!({"n": 3}),
        json!({"stop": ["a", "\u{fffd}"]}),
        json!({"stop": "e", "include_stop_str_in_output": true}),
        json!({"skip_special_tokens": false}),
        json!({"ignore_eos": true, "min_tokens": 5}),
        json!({"return_token_ids": true}),
        json!({"stop_token_ids": [65, 66, 67, 68, 69, 70, 71, 72]}),
    ];
    for seed in 0..8 {
        for wish in &wishes {
            for scored in [false, true] {
                let mut more = wish.clone();
                more["seed"] = json!(seed);
                more["max_tokens"] = json!(24);
                let mut in_chat = more.clone();
                if scored {
                    more["logprobs"] = json!(2);
                    in_chat["logprobs"] = json!(true);
                    in_chat["top_logprobs"] = json!(2);
                }
                check(&rig, "/v1/chat/completions", chat(in_chat)).await;
                more["echo"] = json!(seed % 2 == 0);
                if seed % 3 == 0 {
                    more["prompt"] = json!(["one", "two", "three"]);
                }
                check(&rig, "/v1/completions", completion(more)).await;
            }
        }
    }
}

#[tokio::test]
async fn text_holds_no_stop_string_and_no_half_character() {
    let mut options = Options::default();
    options.sim.sampled = 97..100;
    let rig = options.start();
    for seed in 0..32 {
        let more = json!({"stop": ["abc", "cc"], "seed": seed, "max_tokens": 64, "n": 2});
        let answer = rig.post("/v1/completions", &completion(more)).await.json();
        for choice in answer["choices"].as_array().unwrap() {
            let text = choice["text"].as_str().unwrap();
            assert!(!text.contains("abc") && !text.contains("cc"), "{text}");
            let expected = if text.len() == 64 { "length" } else { "stop" };
            assert_eq!(choice["finish_reason"], expected, "{text}");
        }
    }
}

#[tokio::test]
async fn choices_do_not_depend_on_how_many_there_are() {
    let rig = Options::default().start();
    let one = rig.post("/v1/completions", &completion(json!({}))).await.json();
    let more = json!({"n": 4, "prompt": ["other", "hello"]});
    let many = rig.post("/v1/completions", &completion(more)).await.json();
    assert_eq!(many["choices"].as_array().unwrap().len(), 8);
    assert_eq!(many["choices"][4]["text"], one["choices"][0]["text"]);
    assert_eq!(many["choices"][4]["index"], 4);
    let texts: std::collections::BTreeSet<String> =
        (4..8).map(|i| many["choices"][i]["text"].to_string()).collect();
    assert_eq!(texts.len(), 4, "each choice has a seed of its own");
}

#[tokio::test]
async fn continuous_usage_and_padding_come_when_asked_for() {
    let rig = Options::default().start();
    let more = json!({
        "stream": true,
        "stream_options": {"continuous_usage_stats": true, "include_obfuscation": true},
    });
    let chunks = rig.post("/v1/completions", &completion(more)).await.chunks();
    let mut counts = Vec::new();
    for chunk in &chunks {
        counts.push(chunk["usage"]["completion_tokens"].as_u64().unwrap());
        assert_eq!(chunk["usage"]["prompt_tokens"], 5);
        let text = chunk["choices"][0]["text"].as_str().unwrap();
        if !text.is_empty() {
            let padding = chunk["obfuscation"].as_str().unwrap();
            assert_eq!((text.len() + padding.len()) % 16, 0);
        }
    }
    assert!(counts.is_sorted());
    assert_eq!(counts.last(), Some(&8));
}
