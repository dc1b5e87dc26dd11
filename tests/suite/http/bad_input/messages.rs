//! Mistakes inside messages.

use serde_json::{Value, json};

use super::{CHAT, Case, case};

const CONTENT: &str = "messages[0].content";
const VALUE: &str = "invalid_value";
const TYPE: &str = "invalid_type";
const MISSING: &str = "missing_required_parameter";
const UNSUPPORTED: &str = "unsupported_parameter";

type Row = (Value, &'static str, &'static str);

pub fn cases() -> Vec<Case> {
    let rows = in_contents().into_iter().chain(in_roles());
    rows.map(|(more, code, param)| case(CHAT, more, code, param)).collect()
}

fn in_contents() -> Vec<Row> {
    let part = |part: Value| user(json!([{"type": "text", "text": "x"}, part]));
    let many: Vec<Value> = vec![json!({"role": "user", "content": "x"}); 2049];
    vec![
        (json!({"messages": []}), VALUE, "messages"),
        (json!({"messages": null}), MISSING, "messages"),
        (json!({"messages": many}), VALUE, "messages"),
        (json!({"messages": ["x"]}), TYPE, "messages[0]"),
        (user(json!(null)), MISSING, CONTENT),
        (user(json!(7)), TYPE, CONTENT),
        (user(json!({"text": "x"})), TYPE, CONTENT),
        (user(json!(["x"])), TYPE, "messages[0].content[0]"),
        (part(json!({"text": "x"})), MISSING, "messages[0].content[1].type"),
        (part(json!({"type": 1})), TYPE, "messages[0].content[1].type"),
        (part(json!({"type": "text"})), MISSING, "messages[0].content[1].text"),
        (part(json!({"type": "text", "text": 1})), TYPE, "messages[0].content[1].text"),
        (
            part(json!({"type": "text", "text": "x", "size": 1})),
            "unknown_parameter",
            "messages[0].content[1].size",
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": "data:,"}})),
            UNSUPPORTED,
            "messages[0].content[1]",
        ),
        (
            part(json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})),
            UNSUPPORTED,
            "messages[0].content[1]",
        ),
        (part(json!({"type": "file", "file": {}})), UNSUPPORTED, "messages[0].content[1]"),
        (part(json!({"type": "video_url"})), UNSUPPORTED, "messages[0].content[1]"),
    ]
}

fn in_roles() -> Vec<Row> {
    vec![
        (message(json!({"content": "x"})), MISSING, "messages[1].role"),
        (message(json!({"role": 1, "content": "x"})), TYPE, "messages[1].role"),
        (message(json!({"role": "boss", "content": "x"})), VALUE, "messages[1].role"),
        (message(json!({"role": "function", "content": "x"})), UNSUPPORTED, "messages[1].role"),
        (message(json!({"role": "assistant"})), MISSING, "messages[1].content"),
        (message(json!({"role": "tool", "content": "x"})), MISSING, "messages[1].tool_call_id"),
        (
            message(json!({"role": "user", "content": "x", "tool_call_id": "a"})),
            VALUE,
            "messages[1].tool_call_id",
        ),
        (
            message(json!({"role": "user", "content": "x", "nmae": "a"})),
            "unknown_parameter",
            "messages[1].nmae",
        ),
        (
            message(json!({"role": "user", "content": "x", "tool_calls": [{"id": "a",
                "function": {"name": "f", "arguments": "{}"}}]})),
            VALUE,
            "messages[1].tool_calls",
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]})),
            VALUE,
            "messages[1].tool_calls[0].type",
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [{"id": "a",
                "function": {"name": 7}}]})),
            TYPE,
            "messages[1].tool_calls[0].function.name",
        ),
    ]
}

fn user(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

fn message(message: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}, message]})
}
