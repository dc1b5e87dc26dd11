//! Llama 2 and 3, and Mistral: grouped queries, rotary embeddings, SiLU.

use serde_json::json;

use super::super::error::ModelError;
use super::super::fields::Fields;
use super::super::rope;
use super::super::spec::{Biases, ModelSpec};
use super::{activation, read, window};

/// `LlamaForCausalLM`.
pub(super) fn llama(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({"rms_norm_eps": 1e-6, "hidden_act": "silu"}));
    let mut common = read(fields, "LlamaForCausalLM", max_model_len)?;
    let attention = common.fields.bool("attention_bias", false)?;
    let mlp = common.fields.bool("mlp_bias", false)?;
    common.spec.biases = Biases { qkv: attention, output: attention, mlp };
    plain(common)
}

/// `MistralForCausalLM`: Llama with a window on every layer.
pub(super) fn mistral(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields
        .with_defaults(json!({"rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096}));
    let mut common = read(fields, "MistralForCausalLM", max_model_len)?;
    let window = window(&mut common.fields)?;
    common.spec.layers.iter_mut().for_each(|layer| layer.window_tokens = window);
    plain(common)
}

/// One rope for all layers, and nothing else.
fn plain(common: super::Common) -> Result<ModelSpec, ModelError> {
    let super::Common { mut fields, mut spec, rope: base, .. } = common;
    spec.activation = activation(&mut fields, "hidden_act")?.unwrap_or(spec.activation);
    spec.ropes = vec![rope::from_fields(&mut fields, base, 10_000.0)?];
    fields.finish(spec.architecture)?;
    Ok(spec)
}
