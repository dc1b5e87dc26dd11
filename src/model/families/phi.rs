//! Phi-3 and Phi-4: Llama with fused projections and, in some sizes, partly rotated heads.

use serde_json::json;

use super::super::error::ModelError;
use super::super::fields::Fields;
use super::super::rope;
use super::super::spec::ModelSpec;
use super::{Common, activation, read, window};

/// `Phi3ForCausalLM`.
pub(super) fn phi3(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({"rms_norm_eps": 1e-5, "hidden_act": "silu"}));
    let common = read(fields, "Phi3ForCausalLM", max_model_len)?;
    let Common { mut fields, mut spec, rope: base, .. } = common;
    spec.activation = activation(&mut fields, "hidden_act")?.unwrap_or(spec.activation);
    spec.names.fused_qkv = true;
    spec.names.fused_gate_up = true;
    for name in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        fields.only(name, false)?;
    }
    // Phi-4-mini carries these; the reference has no code for them and 1 means off.
    for name in ["full_attn_mod", "interpolation_factor"] {
        fields.u32(name, 1..=1)?;
    }
    let window = window(&mut fields)?;
    spec.layers.iter_mut().for_each(|layer| layer.window_tokens = window);
    spec.ropes = vec![rope::from_fields(&mut fields, base, 10_000.0)?];
    fields.finish(spec.architecture)?;
    Ok(spec)
}
