//! Sizes and combinations that would cost memory or mean nothing, and names that do not exist.

use serde_json::{Map, Value, json};

use super::{CHAT, COMPLETIONS, Case, base, case};

const VALUE: &str = "invalid_value";

pub fn cases() -> Vec<Case> {
    let in_both = in_both().into_iter().flat_map(|(more, code, param)| {
        [CHAT, COMPLETIONS].map(|path| case(path, more.clone(), code, param))
    });
    let other_model = [CHAT, COMPLETIONS].map(|path| Case {
        path,
        body: base(path, json!({"model": "other"})),
        status: 404,
        code: Some("model_not_found"),
        param: "model".to_owned(),
    });
    in_both.chain(in_chat()).chain(in_completions()).chain(other_model).collect()
}

fn in_both() -> Vec<(Value, &'static str, &'static str)> {
    let bias: Map<String, Value> =
        (0..1025).map(|i| (format!("{}", i % 300 + i / 300 * 1000), json!(0))).collect();
    let ids: Vec<u32> = vec![1; 257];
    vec![
        (json!({"n": 1_000_000}), VALUE, "n"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), VALUE, "stop"),
        (json!({"stop": ["a", 7]}), "invalid_type", "stop[1]"),
        (json!({"stop": ["a", "b", ""]}), VALUE, "stop[2]"),
        (json!({"stop": "x".repeat(257)}), VALUE, "stop"),
        (json!({"stop_token_ids": ids}), VALUE, "stop_token_ids"),
        (json!({"stop_token_ids": [1, 300]}), VALUE, "stop_token_ids[1]"),
        (json!({"stop_token_ids": [-1]}), VALUE, "stop_token_ids[0]"),
        (json!({"logit_bias": bias}), VALUE, "logit_bias"),
        (json!({"logit_bias": {"foo": 0}}), VALUE, "logit_bias"),
        (json!({"logit_bias": {"300": 0}}), VALUE, "logit_bias"),
        (json!({"logit_bias": {"01": 0}}), VALUE, "logit_bias"),
        (json!({"logit_bias": {"-1": 0}}), VALUE, "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), VALUE, "logit_bias.1"),
        (json!({"logit_bias": {"1": "x"}}), "invalid_type", "logit_bias.1"),
        (json!({"user": "x".repeat(513)}), VALUE, "user"),
        (json!({"cache_salt": "x".repeat(65)}), VALUE, "cache_salt"),
        (json!({"cache_salt": ""}), VALUE, "cache_salt"),
        (json!({"min_tokens": 9}), VALUE, "min_tokens"),
        (json!({"stream_options": {}}), VALUE, "stream_options"),
        (json!({"stream": true, "prompt_logprobs": 1}), VALUE, "prompt_logprobs"),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "invalid_type",
            "stream_options.include_usage",
        ),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            "unknown_parameter",
            "stream_options.usage",
        ),
        (json!({"tempratur": 1}), "unknown_parameter", "tempratur"),
        (json!({"x".repeat(10_000): 1}), "unknown_parameter", "xxx"),
        (json!({"response_format": {"type": "json_object"}}), "unsupported_parameter", "response"),
        (json!({"use_beam_search": true}), "unsupported_parameter", "use_beam_search"),
        (json!({"max_tokens": 4_000_000_000_u32}), "context_length_exceeded", ""),
    ]
}

fn in_chat() -> Vec<Case> {
    let metadata: Map<String, Value> = (0..17).map(|i| (i.to_string(), json!("x"))).collect();
    vec![
        case(CHAT, json!({"metadata": metadata}), VALUE, "metadata"),
        case(CHAT, json!({"metadata": {"a": "x".repeat(513)}}), VALUE, "metadata.a"),
        case(CHAT, json!({"metadata": {"a": 1}}), "invalid_type", "metadata.a"),
        case(CHAT, json!({"top_logprobs": 1}), VALUE, "top_logprobs"),
        case(CHAT, json!({"service_tier": "priority"}), VALUE, "service_tier"),
        case(CHAT, json!({"max_completion_tokens": 9}), VALUE, "max_tokens"),
        case(CHAT, json!({"chat_template_kwargs": {"tokenize": true}}), VALUE, "chat_template"),
        case(
            CHAT,
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            VALUE,
            "continue_final_message",
        ),
    ]
}

fn in_completions() -> Vec<Case> {
    let prompts: Vec<&str> = vec!["x"; 257];
    vec![
        case(COMPLETIONS, json!({"prompt": null}), "missing_required_parameter", "prompt"),
        case(COMPLETIONS, json!({"prompt": ""}), VALUE, "prompt"),
        case(COMPLETIONS, json!({"prompt": []}), VALUE, "prompt"),
        case(COMPLETIONS, json!({"prompt": ["x", ""]}), VALUE, "prompt[1]"),
        case(COMPLETIONS, json!({"prompt": prompts}), VALUE, "prompt"),
        case(COMPLETIONS, json!({"prompt": ["x", 1]}), "invalid_type", "prompt[1]"),
        case(COMPLETIONS, json!({"prompt": [1, "x"]}), "invalid_type", "prompt[1]"),
        case(COMPLETIONS, json!({"prompt": [[1], "x"]}), "invalid_type", "prompt[1]"),
        case(COMPLETIONS, json!({"prompt": [1, 300]}), VALUE, "prompt[1]"),
        case(COMPLETIONS, json!({"prompt": [[1, -1]]}), VALUE, "prompt[0][1]"),
        case(COMPLETIONS, json!({"prompt": [{}]}), "invalid_type", "prompt[0]"),
        case(COMPLETIONS, json!({"best_of": 2}), VALUE, "best_of"),
        case(COMPLETIONS, json!({"max_tokens": 0}), VALUE, "max_tokens"),
        case(
            COMPLETIONS,
            json!({"prompt": "x".repeat(100_000)}),
            "context_length_exceeded",
            "prompt",
        ),
    ]
}
