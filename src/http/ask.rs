//! What chat and completions requests ask in common: sampling, stops, streaming. One constructor
//! for both, so that the two endpoints cannot drift apart (R7).

use std::sync::Arc;

use serde_json::Value;

use super::allowance::Allowance;
use super::error::{ApiError, Invalid};
use super::fields::{Fields, integer, number, string, too_many, wrong_type, wrong_value};
use super::parameters::STREAM_OPTIONS;
use super::state::{AppState, ModelCard, Seeds, mix};
use super::terms::Tier;
use crate::config::RequestLimits;
use crate::device::SamplingParams;
use crate::engine::Stops;
use crate::ids::TokenId;
use crate::text::DetokenizerOptions;

const USER_BYTES_MAX: usize = 512;
const SALT_BYTES_MAX: usize = 64;
const LOGIT_BIAS_MAX: f64 = 100.0;

/// The checked part of a request that does not depend on its prompt.
#[derive(Debug)]
pub(super) struct Ask {
    /// How tokens are chosen; every choice has this with a seed of its own.
    pub(super) sampling: SamplingParams,
    /// The request's own seed.
    pub(super) seed: Option<u64>,
    /// Choices for each prompt (`n`).
    pub(super) choices: u32,
    /// `max_tokens` or `max_completion_tokens`.
    pub(super) max_tokens: Option<u32>,
    /// When a choice ends.
    pub(super) stops: Stops,
    /// How tokens become text, and which text ends a choice.
    pub(super) detokenizing: DetokenizerOptions,
    /// How to stream, if at all.
    pub(super) stream: Option<StreamOptions>,
    /// `prompt_logprobs`.
    pub(super) prompt_logprobs: Option<u32>,
    /// `priority`; lower runs first.
    pub(super) priority: i32,
    /// `cache_salt`.
    pub(super) cache_salt: Arc<str>,
    /// `return_token_ids`.
    pub(super) return_token_ids: bool,
    /// `service_tier`.
    pub(super) tier: Option<Tier>,
    /// `user`: the end user behind the tenant, for traces.
    pub(super) user: Option<String>,
}

/// How to stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamOptions {
    /// A last chunk carries the usage.
    pub(super) include_usage: bool,
    /// Every chunk carries the usage so far.
    pub(super) continuous_usage: bool,
    /// Chunks are padded, so that their sizes tell less of their text.
    pub(super) obfuscation: bool,
}

impl Ask {
    /// Reads the shared fields. `max_tokens_min` is 0 where a request may ask for no output.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] and [`ApiError::ModelNotFound`].
    pub(super) fn read(
        fields: &mut Fields,
        allowance: &Allowance,
        max_tokens_min: u32,
    ) -> Result<Self, ApiError> {
        let AppState { limits, model, .. } = allowance.state();
        check_model(fields, allowance)?;
        let stream = stream_options(fields)?;
        let choices = fields.count("n", 1..=limits.choices_max)?.unwrap_or(1);
        allowance.check_choices(choices)?;
        let max_tokens = fields.count("max_tokens", max_tokens_min..=u32::MAX)?;
        let min_tokens = fields.count("min_tokens", 0..=u32::MAX)?.unwrap_or(0);
        let stops = stop_tokens(fields, limits, model, min_tokens)?;
        let detokenizing = detokenizing(fields, limits)?;
        let sampling = sampling(fields, limits, model, &stops)?;
        let prompt_logprobs = fields.count("prompt_logprobs", 0..=limits.logprobs_max)?;
        if prompt_logprobs.is_some() && stream.is_some() {
            let says = "it is not available in a stream; leave out 'stream'";
            return Err(wrong_value("prompt_logprobs".to_owned(), says).into());
        }
        let priority = fields.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX))?;
        let cache_salt = fields.string("cache_salt", SALT_BYTES_MAX)?;
        if cache_salt.as_deref() == Some("") {
            return Err(wrong_value("cache_salt".to_owned(), "it is empty").into());
        }
        Ok(Self {
            sampling,
            // Seeds are 64 bits; a negative one is as good as any.
            seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64),
            choices,
            max_tokens,
            stops,
            detokenizing,
            stream,
            prompt_logprobs,
            priority: priority.map_or(0, |p| i32::try_from(p).expect("the range is that of i32")),
            cache_salt: Arc::from(cache_salt.unwrap_or_default()),
            return_token_ids: fields.boolean("return_token_ids")?.unwrap_or(false),
            tier: Tier::read(fields)?,
            user: fields.string("user", USER_BYTES_MAX)?,
        })
    }

    /// Tokens of output that each choice of a prompt of `prompt_tokens` may have.
    ///
    /// # Errors
    /// [`ApiError::ContextLength`] when what was asked for does not fit; a default is made to fit.
    pub(super) fn output_tokens(
        &self,
        prompt_tokens: usize,
        default: u32,
        allowance: &Allowance,
        param: &'static str,
    ) -> Result<u32, ApiError> {
        let prompt = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        let limit = allowance.context();
        let room = limit.tokens.saturating_sub(prompt);
        let least = self.max_tokens.unwrap_or(1);
        allowance.check_output(least)?;
        if prompt > limit.tokens || least > room {
            return Err(limit.exceeded(prompt, least, param).into());
        }
        let default = allowance.default_output(default).min(room);
        let output = self.max_tokens.unwrap_or(default);
        if self.stops.min_tokens > output {
            let says = format!("it is more than the {output} tokens that the output may have");
            return Err(wrong_value("min_tokens".to_owned(), &says).into());
        }
        Ok(output)
    }

    /// The parameters of each choice: they differ in their seeds alone.
    pub(super) fn params(&self, seeds: &Seeds) -> Vec<Arc<SamplingParams>> {
        let seed = self.seed.unwrap_or_else(|| seeds.next_u64());
        let params = |choice: u32| {
            // The first choice has the request's own seed: it is the same whatever `n` is.
            let seed = if choice == 0 { seed } else { mix(seed ^ mix(u64::from(choice))) };
            Arc::new(SamplingParams { seed, ..self.sampling.clone() })
        };
        (0..self.choices).map(params).collect()
    }
}

/// Checks `model`, which may be left out: there is one.
///
/// # Errors
/// [`ApiError::ModelNotFound`].
pub(super) fn check_model(fields: &mut Fields, allowance: &Allowance) -> Result<(), ApiError> {
    allowance.check_model(fields.string("model", usize::MAX)?.as_deref())
}

/// An array of token ids of the vocabulary.
///
/// # Errors
/// [`Invalid`] naming the entry.
pub(super) fn token_ids(
    items: Vec<Value>,
    path: &str,
    vocab_size: u32,
) -> Result<Vec<TokenId>, Invalid> {
    let token = |(index, item): (usize, Value)| {
        let id = integer(&item, format!("{path}[{index}]"), 0..=i64::from(vocab_size) - 1)?;
        Ok(TokenId(u32::try_from(id).expect("the range is one of u32")))
    };
    items.into_iter().enumerate().map(token).collect()
}

fn stream_options(fields: &mut Fields) -> Result<Option<StreamOptions>, Invalid> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(map) = fields.object("stream_options")? else {
        return Ok(stream.then(StreamOptions::default));
    };
    if !stream {
        let says = "it is only allowed together with 'stream': true";
        return Err(wrong_value("stream_options".to_owned(), says));
    }
    let mut fields = Fields::new(map, "stream_options", &[STREAM_OPTIONS])?;
    let continuous_usage = fields.boolean("continuous_usage_stats")?.unwrap_or(false);
    let options = StreamOptions {
        include_usage: fields.boolean("include_usage")?.unwrap_or(false),
        continuous_usage,
        obfuscation: fields.boolean("include_obfuscation")?.unwrap_or(false),
    };
    fields.finish();
    Ok(Some(options))
}

fn sampling(
    fields: &mut Fields,
    limits: &RequestLimits,
    model: &ModelCard,
    stops: &Stops,
) -> Result<SamplingParams, Invalid> {
    let defaults = &model.defaults;
    let banned = match stops.min_tokens {
        0 => Vec::new(),
        _ => stops.eos.iter().chain(stops.tokens.iter()).copied().collect(),
    };
    // -1 is how vLLM's users say "all".
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    let top_k = top_k.map_or(defaults.top_k, |k| u32::try_from(k.max(0)).unwrap_or(u32::MAX));
    let top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(defaults.top_p);
    Ok(SamplingParams {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(defaults.temperature),
        // The smallest set of tokens that reaches 0 would be empty; one token is meant.
        top_p: top_p.max(f32::MIN_POSITIVE),
        top_k,
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(defaults.min_p),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        // vLLM takes any positive number; beyond these bounds logits overflow.
        repetition_penalty: fields
            .number("repetition_penalty", 0.01..=100.0)?
            .unwrap_or(defaults.repetition_penalty),
        bias: logit_bias(fields, limits, model.vocab_size)?,
        banned,
        min_tokens: stops.min_tokens,
        seed: 0,
        logprobs: None,
    })
}

fn logit_bias(
    fields: &mut Fields,
    limits: &RequestLimits,
    vocab_size: u32,
) -> Result<Vec<(TokenId, f32)>, Invalid> {
    let Some(map) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let param = || "logit_bias".to_owned();
    if map.len() > limits.logit_bias_max {
        return Err(too_many(param(), map.len(), limits.logit_bias_max));
    }
    let mut bias = Vec::with_capacity(map.len());
    for (key, value) in map {
        let token = key.parse::<u32>().ok().filter(|id| *id < vocab_size && id.to_string() == key);
        let Some(token) = token else {
            let key: String = key.chars().take(32).collect();
            let says = format!("'{key}' is not a token id below {vocab_size}");
            return Err(wrong_value(param(), &says));
        };
        let path = format!("logit_bias.{token}");
        bias.push((TokenId(token), number(&value, path, -LOGIT_BIAS_MAX..=LOGIT_BIAS_MAX)?));
    }
    bias.sort_by_key(|(token, _)| *token);
    Ok(bias)
}

fn stop_tokens(
    fields: &mut Fields,
    limits: &RequestLimits,
    model: &ModelCard,
    min_tokens: u32,
) -> Result<Stops, Invalid> {
    let items = fields.array("stop_token_ids", limits.stop_tokens_max)?.unwrap_or_default();
    let tokens = token_ids(items, "stop_token_ids", model.vocab_size)?;
    let ignore_eos = fields.boolean("ignore_eos")?.unwrap_or(false);
    let eos = if ignore_eos { Arc::default() } else { Arc::clone(&model.eos) };
    Ok(Stops { eos, tokens: tokens.into(), min_tokens })
}

fn detokenizing(
    fields: &mut Fields,
    limits: &RequestLimits,
) -> Result<DetokenizerOptions, Invalid> {
    let stop = match fields.any("stop") {
        None => Vec::new(),
        Some(Value::Array(items)) if items.len() > limits.stops_max => {
            return Err(too_many("stop".to_owned(), items.len(), limits.stops_max));
        }
        Some(Value::Array(items)) => {
            let indexed = items.into_iter().enumerate();
            let stop = |(i, item)| stop_string(item, format!("stop[{i}]"), limits);
            indexed.map(stop).collect::<Result<_, _>>()?
        }
        Some(Value::String(text)) => {
            vec![stop_string(Value::String(text), "stop".to_owned(), limits)?]
        }
        Some(other) => {
            return Err(wrong_type("stop".to_owned(), "a string or an array of strings", &other));
        }
    };
    Ok(DetokenizerOptions {
        stop,
        include_stop: fields.boolean("include_stop_str_in_output")?.unwrap_or(false),
        skip_special: fields.boolean("skip_special_tokens")?.unwrap_or(true),
    })
}

fn stop_string(item: Value, path: String, limits: &RequestLimits) -> Result<String, Invalid> {
    let text = string(item, path.clone(), limits.stop_bytes_max)?;
    if text.is_empty() { Err(wrong_value(path, "it is empty")) } else { Ok(text) }
}
