//! `POST /v1/completions` and its `render`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::allowance::Allowance;
use super::answer;
use super::ask::{Ask, token_ids};
use super::error::{ApiError, Invalid};
use super::fields::{Fields, missing, string, too_many, wrong_type, wrong_value};
use super::form::{Shape, Wishes};
use super::generation::{Detail, Prompt};
use super::parameters::{COMMON, COMPLETIONS};
use super::prompt::{self, Encoded, Source};
use super::route::{Answer, Call};
use super::state::AppState;

/// OpenAI's documented default of `max_tokens` for this endpoint.
const DEFAULT_OUTPUT_TOKENS: u32 = 16;

/// A checked completions request.
struct Completion {
    ask: Ask,
    sources: Vec<Source>,
    logprobs: Option<u32>,
    echo: bool,
}

/// `POST /v1/completions`. An array of prompts is answered as so many independent requests;
/// choice `i` of prompt `p` has the index `p * n + i`.
pub(super) async fn create(mut call: Call) -> Answer {
    let (state, allowance) = (Arc::clone(&call.state), call.allowance());
    state.gate.precheck(call.tenant(), &state.engine.load(), state.clock.moment())?;
    let Completion { ask, sources, logprobs, echo } =
        Completion::read(call.json().await?, &allowance)?;
    let terms = call.terms(ask.tier)?;
    tracing::debug!(user = ?ask.user, "completions request");
    let mut prompts = Vec::with_capacity(sources.len());
    for encoded in encode(&allowance, sources).await? {
        let count = encoded.tokens.len();
        let max_tokens = ask.output_tokens(count, DEFAULT_OUTPUT_TOKENS, &allowance, "prompt")?;
        let echo = echo.then_some(encoded.text);
        prompts.push(Prompt { tokens: encoded.tokens, max_tokens, echo });
    }
    // Scores are needed for an echo with log-probabilities, and for requests that ask for nothing
    // else: the engine then ends when the prompt is computed.
    let echo_scores = if echo { logprobs } else { None };
    let no_output = (ask.max_tokens == Some(0)).then_some(0);
    let detail = Detail {
        with_tokens: logprobs.is_some() || ask.return_token_ids,
        with_prompt_tokens: echo_scores.is_some(),
        score_prompt: ask.prompt_logprobs.max(echo_scores).max(no_output),
    };
    let wishes = Wishes {
        shape: Shape::Completion,
        logprobs,
        prompt_logprobs: ask.prompt_logprobs,
        return_token_ids: ask.return_token_ids,
        stream: ask.stream,
        tier: ask.tier,
        skip_special: ask.detokenizing.skip_special,
    };
    answer::generate(call, &ask, terms, prompts, detail, wishes).await
}

/// `POST /v1/completions/render`: the prompts that [`create`] would schedule for this body, as
/// text and as tokens, without scheduling them. An array, one entry for each prompt.
pub(super) async fn render(mut call: Call) -> Answer {
    let allowance = call.allowance();
    let completion = Completion::read(call.json().await?, &allowance)?;
    let encoded = encode(&allowance, completion.sources).await?;
    let rendered: Vec<Value> =
        encoded.iter().map(|encoded| answer::rendered(encoded, &allowance)).collect();
    Ok(answer::json(&rendered))
}

async fn encode(allowance: &Allowance, sources: Vec<Source>) -> Result<Vec<Encoded>, ApiError> {
    let several = sources.len() > 1;
    let encoded = prompt::encode(allowance, sources, "prompt").await?;
    if let Some(index) = encoded.iter().position(|encoded| encoded.tokens.is_empty()) {
        let param = if several { format!("prompt[{index}]") } else { "prompt".to_owned() };
        return Err(wrong_value(param, "it is empty: it has no tokens").into());
    }
    Ok(encoded)
}

impl Completion {
    fn read(body: Map<String, Value>, allowance: &Allowance) -> Result<Self, ApiError> {
        let state = allowance.state();
        let mut fields = Fields::new(body, "", &[COMMON, COMPLETIONS])?;
        let echo = fields.boolean("echo")?.unwrap_or(false);
        let mut ask = Ask::read(&mut fields, allowance, 0)?;
        if ask.max_tokens == Some(0) && !echo && ask.prompt_logprobs.is_none() {
            let says = "0 is only possible together with 'echo' or 'prompt_logprobs'";
            return Err(wrong_value("max_tokens".to_owned(), says).into());
        }
        let best_of = fields.count("best_of", 1..=state.limits.choices_max)?;
        if best_of.is_some_and(|best_of| best_of != ask.choices) {
            let says = "it has to be equal to 'n': choices are not ranked here";
            return Err(wrong_value("best_of".to_owned(), says).into());
        }
        let add_special_tokens = fields.boolean("add_special_tokens")?.unwrap_or(true);
        let prompt = fields.any("prompt").ok_or_else(|| missing("prompt".to_owned()))?;
        let sources = sources(prompt, add_special_tokens, state)?;
        let logprobs = fields.count("logprobs", 0..=state.limits.logprobs_max)?;
        ask.sampling.logprobs = logprobs;
        fields.finish();
        Ok(Self { ask, sources, logprobs, echo })
    }
}

/// A string, an array of strings, an array of token ids, or an array of such arrays.
fn sources(
    prompt: Value,
    add_special_tokens: bool,
    state: &AppState,
) -> Result<Vec<Source>, Invalid> {
    let vocab_size = state.model.vocab_size;
    let text = |text| Source::Text { text, add_special_tokens };
    let items = match prompt {
        Value::String(prompt) => return Ok(vec![text(prompt)]),
        Value::Array(items) => items,
        other => {
            let expected = "a string, an array of strings, of token ids or of arrays of those";
            return Err(wrong_type("prompt".to_owned(), expected, &other));
        }
    };
    let Some(first) = items.first() else {
        return Err(wrong_value("prompt".to_owned(), "it is empty"));
    };
    if first.is_number() {
        return Ok(vec![Source::Tokens(token_ids(items, "prompt", vocab_size)?)]);
    }
    let max = state.limits.prompts_max;
    if items.len() > max {
        return Err(too_many("prompt".to_owned(), items.len(), max));
    }
    let are_texts = first.is_string();
    let source = |(index, item): (usize, Value)| {
        let path = format!("prompt[{index}]");
        match item {
            Value::Array(ids) if !are_texts => {
                Ok(Source::Tokens(token_ids(ids, &path, vocab_size)?))
            }
            other if are_texts => Ok(text(string(other, path, usize::MAX)?)),
            other => Err(wrong_type(path, "an array of token ids", &other)),
        }
    };
    items.into_iter().enumerate().map(source).collect()
}
