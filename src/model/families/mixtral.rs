//! Mixtral: Mistral with experts in every layer, whose weights are scaled to sum 1.

use serde_json::json;

use super::super::error::ModelError;
use super::super::fields::Fields;
use super::super::rope;
use super::super::spec::{MlpSpec, ModelSpec, MoeNames};
use super::{Common, activation, read, window};
use crate::backend::MoeParams;

/// `MixtralForCausalLM`.
pub(super) fn mixtral(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "num_experts_per_tok": 2,
    }));
    let common = read(fields, "MixtralForCausalLM", max_model_len)?;
    let Common { mut fields, mut spec, rope: base, .. } = common;
    spec.activation = activation(&mut fields, "hidden_act")?.unwrap_or(spec.activation);
    let experts = super::experts(&mut fields)?;
    let experts_per_token = fields.size("num_experts_per_tok", experts)?;
    let params = MoeParams { experts_per_token, normalise: true, activation: spec.activation };
    let width = spec.mlp_width;
    let window = window(&mut fields)?;
    for layer in &mut spec.layers {
        layer.window_tokens = window;
        layer.mlp = MlpSpec::Moe { experts, width, params };
    }
    spec.names.moe = MoeNames { block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2" };
    spec.ropes = vec![rope::from_fields(&mut fields, base, 1_000_000.0)?];
    fields.finish(spec.architecture)?;
    Ok(spec)
}
