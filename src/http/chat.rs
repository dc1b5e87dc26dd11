//! `POST /v1/chat/completions` and its `render`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::allowance::Allowance;
use super::answer;
use super::ask::Ask;
use super::error::{ApiError, Invalid};
use super::fields::{Fields, string, too_many, wrong_value};
use super::form::{Shape, Wishes};
use super::generation::{Detail, Prompt};
use super::messages;
use super::parameters::{CHAT, COMMON};
use super::prompt::{self, Source};
use super::route::{Answer, Call};
use crate::text::ChatInput;

const METADATA_KEY_CHARS_MAX: usize = 64;
const METADATA_VALUE_BYTES_MAX: usize = 512;

/// A checked chat request.
struct Chat {
    ask: Ask,
    input: ChatInput,
    logprobs: Option<u32>,
    metadata: Vec<(String, String)>,
}

/// `POST /v1/chat/completions`.
pub(super) async fn create(mut call: Call) -> Answer {
    let (state, allowance) = (Arc::clone(&call.state), call.allowance());
    state.gate.precheck(call.tenant(), &state.engine.load(), state.clock.moment())?;
    let chat = Chat::read(call.json().await?, &allowance)?;
    let terms = call.terms(chat.ask.tier)?;
    tracing::debug!(user = ?chat.ask.user, metadata = chat.metadata.len(), "chat request");
    let source = Source::Chat(Box::new(chat.input));
    let encoded = prompt::encode(&allowance, vec![source], "messages").await?;
    let mut prompts = Vec::with_capacity(1);
    for encoded in encoded {
        let tokens = encoded.tokens;
        let default = state.limits.default_output_tokens;
        let max_tokens = chat.ask.output_tokens(tokens.len(), default, &allowance, "messages")?;
        prompts.push(Prompt { tokens, max_tokens, echo: None });
    }
    let detail = Detail {
        with_tokens: chat.logprobs.is_some() || chat.ask.return_token_ids,
        with_prompt_tokens: false,
        score_prompt: chat.ask.prompt_logprobs,
    };
    let wishes = Wishes {
        shape: Shape::Chat,
        logprobs: chat.logprobs,
        prompt_logprobs: chat.ask.prompt_logprobs,
        return_token_ids: chat.ask.return_token_ids,
        stream: chat.ask.stream,
        tier: chat.ask.tier,
        skip_special: chat.ask.detokenizing.skip_special,
    };
    answer::generate(call, &chat.ask, terms, prompts, detail, wishes).await
}

/// `POST /v1/chat/completions/render`: the prompt that [`create`] would schedule for this body, as
/// text and as tokens, without scheduling it.
pub(super) async fn render(mut call: Call) -> Answer {
    let allowance = call.allowance();
    let chat = Chat::read(call.json().await?, &allowance)?;
    let source = Source::Chat(Box::new(chat.input));
    let encoded = prompt::encode(&allowance, vec![source], "messages").await?;
    let mut rendered: Vec<Value> =
        encoded.iter().map(|encoded| answer::rendered(encoded, &allowance)).collect();
    Ok(answer::json(&rendered.pop()))
}

impl Chat {
    fn read(body: Map<String, Value>, allowance: &Allowance) -> Result<Self, ApiError> {
        let state = allowance.state();
        let limits = &state.limits;
        let mut fields = Fields::new(body, "", &[COMMON, CHAT])?;
        let mut ask = Ask::read(&mut fields, allowance, 1)?;
        let newer = fields.count("max_completion_tokens", 1..=u32::MAX)?;
        if let (Some(newer), Some(older)) = (newer, ask.max_tokens)
            && newer != older
        {
            let says = format!("it is {older}, but 'max_completion_tokens' is {newer}; send one");
            return Err(wrong_value("max_tokens".to_owned(), &says).into());
        }
        ask.max_tokens = newer.or(ask.max_tokens);
        let input = messages::read(&mut fields, limits, state.clock.unix_s())?;
        let logprobs = logprobs(&mut fields, limits.logprobs_max)?;
        ask.sampling.logprobs = logprobs;
        let metadata = metadata(&mut fields, limits.metadata_max)?;
        let user = fields.string("safety_identifier", METADATA_VALUE_BYTES_MAX)?;
        ask.user = ask.user.or(user);
        fields.string("prompt_cache_key", METADATA_VALUE_BYTES_MAX)?;
        fields.boolean("parallel_tool_calls")?;
        fields.finish();
        Ok(Self { ask, input, logprobs, metadata })
    }
}

/// `logprobs` and `top_logprobs`: how many alternatives to tell, if any at all.
fn logprobs(fields: &mut Fields, max: u32) -> Result<Option<u32>, Invalid> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0..=max)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        let says = "it needs 'logprobs': true";
        return Err(wrong_value("top_logprobs".to_owned(), says));
    }
    Ok(wanted.then_some(top.unwrap_or(0)))
}

fn metadata(fields: &mut Fields, max: usize) -> Result<Vec<(String, String)>, Invalid> {
    let map = fields.object("metadata")?.unwrap_or_default();
    if map.len() > max {
        return Err(too_many("metadata".to_owned(), map.len(), max));
    }
    let entry = |(key, value): (String, Value)| {
        if key.chars().count() > METADATA_KEY_CHARS_MAX {
            let says = format!("a key has more than {METADATA_KEY_CHARS_MAX} characters");
            return Err(wrong_value("metadata".to_owned(), &says));
        }
        let path = format!("metadata.{key}");
        Ok((key, string(value, path, METADATA_VALUE_BYTES_MAX)?))
    };
    map.into_iter().map(entry).collect()
}
