//! Qwen 2 and 2.5 (biases on queries, keys and values), Qwen 3 (norms on queries and keys), and
//! Qwen 3 with experts.

use serde_json::json;

use super::super::error::ModelError;
use super::super::fields::Fields;
use super::super::rope;
use super::super::spec::{Biases, LAYERS_MAX, MlpSpec, ModelSpec, WIDTH_MAX};
use super::{Common, activation, local_layers, read, window};
use crate::backend::MoeParams;

/// `Qwen2ForCausalLM`.
pub(super) fn qwen2(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096,
        "max_window_layers": 28,
    }));
    let mut common = read(fields, "Qwen2ForCausalLM", max_model_len)?;
    common.spec.biases = Biases { qkv: true, ..Biases::default() };
    windows_from_layer(&mut common)?;
    finish(common)
}

/// `Qwen3ForCausalLM`.
pub(super) fn qwen3(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096,
        "max_window_layers": 28, "head_dim": 128,
    }));
    let mut common = read(fields, "Qwen3ForCausalLM", max_model_len)?;
    attention_of_qwen3(&mut common)?;
    windows_from_layer(&mut common)?;
    finish(common)
}

/// `Qwen3MoeForCausalLM`. Its window, where there is one, is on every layer.
pub(super) fn qwen3_moe(
    fields: Fields,
    max_model_len: Option<u32>,
) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096,
        "decoder_sparse_step": 1, "norm_topk_prob": false, "num_experts_per_tok": 8,
    }));
    let mut common = read(fields, "Qwen3MoeForCausalLM", max_model_len)?;
    attention_of_qwen3(&mut common)?;
    let used = common.fields.bool("use_sliding_window", false)?;
    let window = window(&mut common.fields)?.filter(|_| used);
    // The reference has this field and does not use it for this family.
    common.fields.u32("max_window_layers", 0..=u32::MAX)?;
    common.spec.layers.iter_mut().for_each(|layer| layer.window_tokens = window);
    experts(&mut common)?;
    finish(common)
}

fn attention_of_qwen3(common: &mut Common) -> Result<(), ModelError> {
    common.spec.qk_norms = true;
    let bias = common.fields.bool("attention_bias", false)?;
    common.spec.biases = Biases { qkv: bias, output: bias, mlp: false };
    Ok(())
}

/// Layers from `max_window_layers` on are local, unless `layer_types` says otherwise.
fn windows_from_layer(common: &mut Common) -> Result<(), ModelError> {
    let fields = &mut common.fields;
    let used = fields.bool("use_sliding_window", false)?;
    let window = window(fields)?.filter(|_| used);
    let first = fields.u32("max_window_layers", 0..=u32::MAX)?.unwrap_or(u32::MAX);
    let local = local_layers(fields, common.layers, |i| window.is_some() && i >= first)?;
    if window.is_none() && local.contains(&true) {
        let reason = "names sliding_attention, but use_sliding_window or sliding_window is off";
        return Err(fields.wrong("layer_types", reason));
    }
    for (layer, local) in common.spec.layers.iter_mut().zip(local) {
        layer.window_tokens = window.filter(|_| local);
    }
    Ok(())
}

/// Every `decoder_sparse_step`-th layer has experts, except those in `mlp_only_layers`.
fn experts(common: &mut Common) -> Result<(), ModelError> {
    let fields = &mut common.fields;
    let activation = activation(fields, "hidden_act")?.unwrap_or(common.spec.activation);
    let experts = super::experts(fields)?;
    let width = fields.size("moe_intermediate_size", WIDTH_MAX / 2)?;
    let params = MoeParams {
        experts_per_token: fields.size("num_experts_per_tok", experts)?,
        normalise: fields.bool("norm_topk_prob", false)?,
        activation,
    };
    let step = fields.size("decoder_sparse_step", LAYERS_MAX)?;
    let dense = fields.u32s("mlp_only_layers", LAYERS_MAX)?;
    for (index, layer) in (0_u32..).zip(&mut common.spec.layers) {
        if !dense.contains(&index) && (index + 1).is_multiple_of(step) {
            layer.mlp = MlpSpec::Moe { experts, width, params };
        }
    }
    Ok(())
}

fn finish(common: Common) -> Result<ModelSpec, ModelError> {
    let Common { mut fields, mut spec, rope: base, .. } = common;
    spec.activation = activation(&mut fields, "hidden_act")?.unwrap_or(spec.activation);
    spec.ropes = vec![rope::from_fields(&mut fields, base, 10_000.0)?];
    fields.finish(spec.architecture)?;
    Ok(spec)
}
