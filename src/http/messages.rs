//! The messages of a chat request, checked and brought into the form that chat templates expect.

use serde_json::{Map, Value, json};

use super::error::{Fault, Invalid};
use super::fields::{Fields, missing, too_many, wrong_type, wrong_value};
use super::parameters::{FUNCTION, MESSAGE, PART, TOOL_CALL};
use crate::config::RequestLimits;
use crate::text::ChatInput;

/// Template variables that are the server's own.
const RESERVED: &[&str] = &[
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "tokenize",
];

/// Reads `messages` and the template settings into the template's input.
///
/// # Errors
/// [`Invalid`].
pub(super) fn read(
    fields: &mut Fields,
    limits: &RequestLimits,
    unix_s: u64,
) -> Result<ChatInput, Invalid> {
    let items = fields.array("messages", limits.messages_max)?;
    let items = items.ok_or_else(|| missing("messages".to_owned()))?;
    if items.is_empty() {
        return Err(wrong_value("messages".to_owned(), "it is empty, at least one is needed"));
    }
    let indexed = items.into_iter().enumerate();
    let messages = indexed.map(|(i, item)| message(item, &format!("messages[{i}]"), limits));
    let messages = messages.collect::<Result<Vec<Value>, Invalid>>()?;
    let continue_final_message = fields.boolean("continue_final_message")?.unwrap_or(false);
    let add_generation_prompt = fields.boolean("add_generation_prompt")?;
    if continue_final_message && add_generation_prompt == Some(true) {
        let says = "it excludes 'add_generation_prompt': true";
        return Err(wrong_value("continue_final_message".to_owned(), says));
    }
    let kwargs = fields.object("chat_template_kwargs")?.unwrap_or_default();
    if let Some(name) = kwargs.keys().find(|name| RESERVED.contains(&name.as_str())) {
        let says = "this variable is the server's own";
        return Err(wrong_value(format!("chat_template_kwargs.{name}"), says));
    }
    Ok(ChatInput {
        messages,
        tools: None,
        add_generation_prompt: add_generation_prompt.unwrap_or(!continue_final_message),
        continue_final_message,
        kwargs,
        unix_s,
    })
}

/// One message as the template sees it: `role`, `content` and what else the role may have.
fn message(item: Value, path: &str, limits: &RequestLimits) -> Result<Value, Invalid> {
    let Value::Object(map) = item else { return Err(wrong_type(path.into(), "an object", &item)) };
    let mut fields = Fields::new(map, path, &[MESSAGE])?;
    let role = fields.string("role", usize::MAX)?.ok_or_else(|| missing(fields.path("role")))?;
    let mut out = Map::new();
    // Templates know "system"; "developer" is OpenAI's newer word for it.
    let template_role = match role.as_str() {
        "system" | "developer" => "system",
        "user" | "assistant" | "tool" => role.as_str(),
        "function" => return Err(refused_role(&fields)),
        _ => {
            let says = "the roles are system, developer, user, assistant and tool";
            return Err(wrong_value(fields.path("role"), says));
        }
    };
    out.insert("role".to_owned(), json!(template_role));
    let content_path = fields.path("content");
    let content = fields.any("content").map(|c| content(c, &content_path, limits)).transpose()?;
    let is_assistant = template_role == "assistant";
    let tool_calls = tool_calls(&mut fields, limits)?;
    let refusal = fields.string("refusal", usize::MAX)?;
    let reasoning = fields.string("reasoning_content", usize::MAX)?;
    let reasoning = reasoning.or(fields.string("reasoning", usize::MAX)?);
    for (name, is_there) in [
        ("tool_calls", !tool_calls.is_empty()),
        ("refusal", refusal.is_some()),
        ("reasoning_content", reasoning.is_some()),
    ] {
        if is_there && !is_assistant {
            return Err(wrong_value(fields.path(name), "only an assistant's message has it"));
        }
    }
    match content.or(refusal.map(Value::String)) {
        Some(content) => out.insert("content".to_owned(), content),
        None if !tool_calls.is_empty() => out.insert("content".to_owned(), Value::Null),
        None => return Err(missing(content_path)),
    };
    if !tool_calls.is_empty() {
        out.insert("tool_calls".to_owned(), Value::Array(tool_calls));
    }
    if let Some(reasoning) = reasoning {
        out.insert("reasoning_content".to_owned(), Value::String(reasoning));
    }
    tool_result(&mut fields, template_role, &mut out)?;
    if let Some(name) = fields.string("name", 256)? {
        out.insert("name".to_owned(), Value::String(name));
    }
    fields.finish();
    Ok(Value::Object(out))
}

/// `tool_call_id`: required in a tool's message, and nowhere else.
fn tool_result(
    fields: &mut Fields,
    role: &str,
    out: &mut Map<String, Value>,
) -> Result<(), Invalid> {
    let path = fields.path("tool_call_id");
    match (fields.string("tool_call_id", 256)?, role == "tool") {
        (Some(id), true) => {
            out.insert("tool_call_id".to_owned(), Value::String(id));
            Ok(())
        }
        (None, true) => Err(missing(path)),
        (Some(_), false) => Err(wrong_value(path, "only a tool's message has it")),
        (None, false) => Ok(()),
    }
}

/// Text, or text parts; templates that read strings only get the parts joined, by the text room.
fn content(value: Value, path: &str, limits: &RequestLimits) -> Result<Value, Invalid> {
    let parts = match value {
        Value::String(_) => return Ok(value),
        Value::Array(parts) => parts,
        other => {
            return Err(wrong_type(path.into(), "a string or an array of text parts", &other));
        }
    };
    if parts.len() > limits.messages_max {
        return Err(too_many(path.to_owned(), parts.len(), limits.messages_max));
    }
    let indexed = parts.into_iter().enumerate();
    let texts = indexed.map(|(i, part)| text_part(part, &format!("{path}[{i}]")));
    Ok(Value::Array(texts.collect::<Result<_, Invalid>>()?))
}

fn text_part(part: Value, path: &str) -> Result<Value, Invalid> {
    let Value::Object(map) = part else { return Err(wrong_type(path.into(), "an object", &part)) };
    let kind = match map.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(other) => return Err(wrong_type(format!("{path}.type"), "a string", other)),
        None => return Err(missing(format!("{path}.type"))),
    };
    if !matches!(kind.as_str(), "text" | "refusal") {
        let kind: String = kind.chars().take(32).collect();
        let message = format!(
            "Unsupported parameter: '{path}' has the type '{kind}'. This server takes text only."
        );
        return Err(Invalid { param: path.to_owned(), fault: Fault::Unsupported, message });
    }
    let mut fields = Fields::new(map, path, &[PART])?;
    fields.any("type");
    let (text, refusal) =
        (fields.string("text", usize::MAX)?, fields.string("refusal", usize::MAX)?);
    let path = fields.path(&kind);
    fields.finish();
    let text = text.or(refusal).ok_or_else(|| missing(path))?;
    Ok(json!({ "type": "text", "text": text }))
}

/// An assistant's earlier tool calls. Arguments that are a JSON object are given to the template
/// as one, since templates write them with `tojson`.
fn tool_calls(fields: &mut Fields, limits: &RequestLimits) -> Result<Vec<Value>, Invalid> {
    let path = fields.path("tool_calls");
    let calls = fields.array("tool_calls", limits.tools_max)?.unwrap_or_default();
    let indexed = calls.into_iter().enumerate();
    indexed.map(|(i, call)| tool_call(call, &format!("{path}[{i}]"))).collect()
}

fn tool_call(call: Value, path: &str) -> Result<Value, Invalid> {
    let Value::Object(map) = call else { return Err(wrong_type(path.into(), "an object", &call)) };
    let mut fields = Fields::new(map, path, &[TOOL_CALL])?;
    let id = fields.string("id", 256)?.ok_or_else(|| missing(fields.path("id")))?;
    let kind = fields.string("type", 64)?.unwrap_or_else(|| "function".to_owned());
    if kind != "function" {
        return Err(wrong_value(fields.path("type"), "only 'function' is known"));
    }
    fields.integer("index", 0..=i64::from(u32::MAX))?;
    let function = fields.object("function")?.ok_or_else(|| missing(fields.path("function")))?;
    let mut function = Fields::new(function, &fields.path("function"), &[FUNCTION])?;
    fields.finish();
    let name = function.string("name", 256)?.ok_or_else(|| missing(function.path("name")))?;
    let arguments = match function.any("arguments") {
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(arguments)) => Value::Object(arguments),
            // A model may have written arguments that are no JSON; the template shows them as is.
            Ok(_) | Err(_) => Value::String(text),
        },
        Some(Value::Object(arguments)) => Value::Object(arguments),
        Some(other) => {
            return Err(wrong_type(function.path("arguments"), "a string", &other));
        }
        None => json!({}),
    };
    function.finish();
    Ok(json!({
        "id": id, "type": "function", "function": { "name": name, "arguments": arguments }
    }))
}

fn refused_role(fields: &Fields) -> Invalid {
    let param = fields.path("role");
    let message = format!("Unsupported parameter: '{param}' is 'function'. Use the role 'tool'.");
    Invalid { param, fault: Fault::Unsupported, message }
}
