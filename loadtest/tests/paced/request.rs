//! What a request asks for, as far as this server cares.

use serde_json::Value;

use super::settings::Settings;

/// Which of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

/// A request that can be answered.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Model, repeated in the answer.
    pub model: String,
    /// Words of the prompt and the overhead.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// `length` when `max_tokens` ends it, else `stop`.
    pub finish_reason: &'static str,
    /// Streamed.
    pub stream: bool,
    /// With usage: asked for, or not streamed; and allowed by the settings.
    pub usage: bool,
}

/// Why a request cannot be answered: status, `error.code`, message.
pub type Refusal = (u16, &'static str, String);

impl Ask {
    /// Reads a body.
    pub fn read(endpoint: Endpoint, body: &[u8], settings: &Settings) -> Result<Self, Refusal> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| (400, "invalid_json", format!("the body is no JSON: {error}")))?;
        let model = body["model"].as_str().unwrap_or_default();
        if model != settings.model {
            let message = format!("there is no model `{model}`, but `{}`", settings.model);
            return Err((404, "model_not_found", message));
        }
        let words = match endpoint {
            Endpoint::Chat => body["messages"]
                .as_array()
                .map(|messages| messages.iter().map(|message| words(&message["content"])).sum()),
            Endpoint::Completions => body.get("prompt").map(words),
        };
        let missing = || (400, "missing_prompt", "there is no prompt".to_owned());
        let words: u32 = words.ok_or_else(missing)?;
        let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|k| body[k].as_u64());
        let limit = limit.map(|limit| limit.clamp(1, u64::from(u32::MAX)) as u32);
        let ignore_eos = body["ignore_eos"].as_bool().unwrap_or(false);
        let own = settings.tokens.max(1);
        let output_tokens = match limit {
            Some(limit) if ignore_eos => limit,
            Some(limit) => limit.min(own),
            None => own,
        };
        let stream = body["stream"].as_bool().unwrap_or(false) && !settings.whole_only;
        let asked = body["stream_options"]["include_usage"].as_bool().unwrap_or(false);
        Ok(Self {
            endpoint,
            model: model.to_owned(),
            prompt_tokens: words + settings.prompt_overhead_tokens,
            output_tokens,
            finish_reason: if limit == Some(output_tokens) { "length" } else { "stop" },
            stream,
            usage: !settings.no_usage && (asked || !stream),
        })
    }
}

/// Words of a text, of the text parts of a list, or entries of a list of token ids.
fn words(content: &Value) -> u32 {
    match content {
        Value::String(text) => text.split_whitespace().count() as u32,
        Value::Array(parts) => {
            parts.iter().map(|part| if part.is_number() { 1 } else { words(&part["text"]) }).sum()
        }
        _ => 0,
    }
}
