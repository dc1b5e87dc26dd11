//! A JSON object that is read field by field and whose unread fields are accounted for.
//!
//! Policy for config.json, so that nothing which changes the arithmetic is passed over in silence:
//! a family reads the fields that it obeys and names the values that it refuses. What it did not
//! read is accepted only when it is on the list of fields that mean nothing to inference
//! ([`HARMLESS`]), when its name starts with one of [`HARMLESS_PREFIXES`], or when its value
//! switches it off (null, false, or an empty list, object or string). Everything else is refused
//! by name.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ModelError;

/// Fields that change nothing in a forward pass: names, versions, training, generation defaults
/// (those that serve requests are read from `generation_config.json`), and outputs that are not
/// asked for.
const HARMLESS: &[&str] = &[
    // Names, versions, storage.
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "architectures",
    "attn_implementation",
    "auto_map",
    "dtype",
    "finetuning_task",
    "id2label",
    "is_llama_config",
    "label2id",
    "license",
    "model_name",
    "model_type",
    "name_or_path",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    // Training.
    "attention_dropout",
    "classifier_dropout",
    "embd_pdrop",
    "embedding_dropout",
    "ffn_dropout",
    "gradient_checkpointing",
    "hidden_dropout",
    "initializer_range",
    "pretraining_tp",
    "resid_pdrop",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "router_z_loss_coef",
    // Special tokens and generation defaults; eos_token_id is read.
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "prefix",
    "repetition_penalty",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "unk_token_id",
    // How the reference runs and what it returns.
    "cache_implementation",
    "chunk_size_feed_forward",
    "is_decoder",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "return_dict",
    "return_dict_in_generate",
    "use_cache",
    "use_return_dict",
];

/// Marks that tools leave.
const HARMLESS_PREFIXES: &[&str] = &["unsloth_"];

/// See the module's head.
#[derive(Debug)]
pub(super) struct Fields {
    /// With a dot at its end when this is a nested object.
    path: String,
    map: Map<String, Value>,
    read: BTreeSet<String>,
}

impl Fields {
    /// Reads `value`, which has to be an object.
    ///
    /// # Errors
    /// [`ModelError::Config`] when it is not.
    pub(super) fn new(value: &Value) -> Result<Self, ModelError> {
        match value {
            Value::Object(map) => Ok(Self::over(String::new(), map.clone())),
            other => Err(ModelError::config("the file", expected("an object", other))),
        }
    }

    fn over(path: String, map: Map<String, Value>) -> Self {
        Self { path, map, read: BTreeSet::new() }
    }

    /// Adds what the reference assumes for fields that are absent; a field that is null stays null.
    pub(super) fn with_defaults(mut self, defaults: Value) -> Self {
        if let Value::Object(defaults) = defaults {
            for (name, value) in defaults {
                self.map.entry(name).or_insert(value);
            }
        }
        self
    }

    /// Whether the field is there and not null, without reading it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A whole number in `range`; `None` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn u32(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ModelError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        // Some writers store whole numbers as 4096.0.
        let number = value.as_f64().filter(|n| n.fract() == 0.0);
        let inside =
            number.filter(|&n| n >= f64::from(*range.start()) && n <= f64::from(*range.end()));
        match inside {
            Some(number) => Ok(Some(number as u32)),
            None => {
                let what = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.wrong(name, expected(&what, &value)))
            }
        }
    }

    /// As [`Fields::u32`], from 1, for a field that has to be there.
    ///
    /// # Errors
    /// [`ModelError::Config`].
    pub(super) fn size(&mut self, name: &str, max: u32) -> Result<u32, ModelError> {
        let missing = format!("missing, expected a whole number from 1 to {max}");
        self.u32(name, 1..=max)?.ok_or_else(|| self.wrong(name, missing))
    }

    /// A positive finite number; `None` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn positive(&mut self, name: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value.as_f64().filter(|n| n.is_finite() && *n > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, expected("a positive number", &value))),
        }
    }

    /// As [`Fields::positive`], for a field that has to be there.
    ///
    /// # Errors
    /// [`ModelError::Config`].
    pub(super) fn number(&mut self, name: &str) -> Result<f64, ModelError> {
        self.positive(name)?
            .ok_or_else(|| self.wrong(name, "missing, expected a positive number".to_owned()))
    }

    /// A boolean; `otherwise` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn bool(&mut self, name: &str, otherwise: bool) -> Result<bool, ModelError> {
        match self.value(name) {
            None => Ok(otherwise),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(self.wrong(name, expected("true or false", &other))),
        }
    }

    /// A string; `None` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, ModelError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(name, expected("a string", &other))),
        }
    }

    /// A list of strings; `None` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, ModelError> {
        let what = "a list of strings";
        let Some(value) = self.value(name) else { return Ok(None) };
        let list = value.as_array().map(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        list.flatten().map(Some).ok_or_else(|| self.wrong(name, expected(what, &value)))
    }

    /// A whole number or a list of them, all at most `max`; empty when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn u32s(&mut self, name: &str, max: u32) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let one = |item: &Value| {
            item.as_u64().filter(|&n| n <= u64::from(max)).and_then(|n| u32::try_from(n).ok())
        };
        let all: Option<Vec<u32>> = match &value {
            Value::Array(items) => items.iter().map(one).collect(),
            single => one(single).map(|n| vec![n]),
        };
        let what = format!("whole numbers from 0 to {max}");
        all.ok_or_else(|| self.wrong(name, expected(&what, &value)))
    }

    /// A list of positive numbers; `None` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn numbers(&mut self, name: &str) -> Result<Option<Vec<f64>>, ModelError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let one = |item: &Value| item.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        let all = value.as_array().map(|items| items.iter().map(one).collect::<Option<Vec<_>>>());
        all.flatten()
            .map(Some)
            .ok_or_else(|| self.wrong(name, expected("a list of positive numbers", &value)))
    }

    /// A nested object, to be read and finished on its own; `None` when absent or null.
    ///
    /// # Errors
    /// [`ModelError::Config`] for anything else.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Fields>, ModelError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Fields::over(format!("{}{name}.", self.path), map)))
            }
            Some(other) => Err(self.wrong(name, expected("an object", &other))),
        }
    }

    /// Refuses the model when the boolean is not `only`, because no other value is implemented.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`].
    pub(super) fn only(&mut self, name: &str, only: bool) -> Result<(), ModelError> {
        if self.bool(name, only)? == only {
            return Ok(());
        }
        let what = format!("config.json: {}{name} = {}", self.path, !only);
        Err(ModelError::unsupported(what, &[if only { "true" } else { "false" }]))
    }

    /// An error about a field of this object.
    pub(super) fn wrong(&self, name: &str, reason: impl Into<String>) -> ModelError {
        ModelError::config(format!("{}{name}", self.path), reason.into())
    }

    /// Refuses the first field that nobody read and that may matter.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the field's name.
    pub(super) fn finish(self, architecture: &str) -> Result<(), ModelError> {
        let unread = |name: &&String| {
            !self.read.contains(*name)
                && !HARMLESS.contains(&name.as_str())
                && !HARMLESS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                && !switched_off(&self.map[*name])
        };
        match self.map.keys().find(unread) {
            None => Ok(()),
            Some(name) => {
                let reason = format!(
                    "this field is not known for {architecture} and may change what the model \
                     computes; remove it if it does not"
                );
                Err(self.wrong(name, reason))
            }
        }
    }

    fn value(&mut self, name: &str) -> Option<Value> {
        let value = self.map.get(name)?.clone();
        self.read.insert(name.to_owned());
        Some(value).filter(|value| !value.is_null())
    }
}

fn switched_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// "found …, expected …", with a long value cut.
fn expected(what: &str, found: &Value) -> String {
    const SHOWN_CHARS: usize = 60;
    let text = found.to_string();
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown}{dots}, expected {what}")
}
