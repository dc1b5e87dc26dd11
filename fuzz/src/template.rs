//! Chat templates, which come with models and are as untrusted as they are.

use serde_json::Value;
use weir::text::{ChatInput, Text, TextError, TextLimits, TokenizerSource};

/// Small limits, so that hostile templates end soon.
const LIMITS: TextLimits = TextLimits { template_fuel: 20_000, rendered_bytes_max: 1 << 16 };
const VOCAB_SIZE: u32 = 300;

/// Renders a template over messages: the bytes before the first NUL are the template, those after
/// it are JSON, a list of messages or an object with `messages`, `tools` and more variables.
pub fn template(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let template = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let chat = chat(serde_json::from_slice(parts.next().unwrap_or_default()).ok());
    let source = TokenizerSource::Bytes { vocab_size: VOCAB_SIZE };
    let text = match Text::open(source, Some(template), LIMITS) {
        Ok(text) => text,
        Err(TextError::Template(reason)) => return assert!(!reason.is_empty()),
        Err(other) => panic!("a template can only fail as one: {other}"),
    };
    match text.render(&chat) {
        Ok(rendered) => {
            assert!(rendered.text().len() as u64 <= LIMITS.rendered_bytes_max);
            let tokens = text.encode_rendered(&rendered).expect("bytes encode any text");
            assert!(tokens.iter().all(|token| token.0 < VOCAB_SIZE));
            let decoded = text.decode(&tokens, false).expect("these ids exist");
            assert_eq!(decoded, rendered.text());
        }
        Err(TextError::Template(_) | TextError::TemplateLimit { .. }) => {}
        Err(other) => panic!("rendering can only fail as such: {other}"),
    }
}

fn chat(json: Option<Value>) -> ChatInput {
    let mut chat = ChatInput { add_generation_prompt: true, ..ChatInput::default() };
    match json {
        Some(Value::Array(messages)) => chat.messages = messages,
        Some(Value::Object(mut variables)) => {
            if let Some(Value::Array(messages)) = variables.remove("messages") {
                chat.messages = messages;
            }
            if let Some(Value::Array(tools)) = variables.remove("tools") {
                chat.tools = Some(tools);
            }
            chat.kwargs = variables;
        }
        _ => {}
    }
    chat
}
