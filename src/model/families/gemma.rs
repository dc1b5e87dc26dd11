//! Gemma 2 and the text part of Gemma 3: `1 + w` norms before and after each block, scaled
//! embeddings, local and global layers.

use serde_json::json;

use super::super::error::ModelError;
use super::super::fields::Fields;
use super::super::rope;
use super::super::spec::{Biases, EmbeddingScale, ModelSpec};
use super::{Common, activation, local_layers, read, window};
use crate::backend::{Activation, NormKind, RopeSpec};

/// `Gemma2ForCausalLM`: soft caps on scores and logits, every other layer local.
pub(super) fn gemma2(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let fields = fields.with_defaults(json!({
        "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256,
        "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    }));
    let mut common = shared(fields, "Gemma2ForCausalLM", max_model_len)?;
    let cap = common.fields.positive("attn_logit_softcapping")?.map(|cap| cap as f32);
    common.spec.layers.iter_mut().for_each(|layer| layer.softcap = cap);
    let window = window(&mut common.fields)?;
    let local = local_layers(&mut common.fields, common.layers, |i| i.is_multiple_of(2))?;
    for (layer, local) in common.spec.layers.iter_mut().zip(local) {
        layer.window_tokens = window.filter(|_| local);
    }
    let Common { mut fields, mut spec, rope: base, .. } = common;
    spec.ropes = vec![rope::from_fields(&mut fields, base, 10_000.0)?];
    fields.finish(spec.architecture)?;
    Ok(spec)
}

/// `Gemma3ForCausalLM`: norms on queries and keys, a rope of its own for local layers.
pub(super) fn gemma3(fields: Fields, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    // Published text_config objects leave out whatever equals the class default, sizes included.
    let fields = fields.with_defaults(json!({
        "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256,
        "tie_word_embeddings": true, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4,
        "num_hidden_layers": 26, "hidden_size": 2304, "intermediate_size": 9216,
        "max_position_embeddings": 131_072, "eos_token_id": 1,
    }));
    let mut common = shared(fields, "Gemma3ForCausalLM", max_model_len)?;
    common.spec.qk_norms = true;
    let fields = &mut common.fields;
    fields.only("use_bidirectional_attention", false)?;
    if fields.has("attn_logit_softcapping") {
        // The reference reads this field for Gemma 3 and does not apply it.
        let what = "config.json: attn_logit_softcapping for Gemma3ForCausalLM";
        return Err(ModelError::unsupported(what, &["null"]));
    }
    let pattern = fields.u32("sliding_window_pattern", 1..=u32::MAX)?;
    // transformers 4 also writes the pattern under this name.
    let pattern = fields.u32("_sliding_window_pattern", 1..=u32::MAX)?.or(pattern).unwrap_or(6);
    let window = window(fields)?;
    let local = local_layers(fields, common.layers, |i| !(i + 1).is_multiple_of(pattern))?;
    for (layer, local) in common.spec.layers.iter_mut().zip(local) {
        layer.window_tokens = window.filter(|_| local);
        layer.rope = u32::from(local);
    }
    let Common { mut fields, mut spec, rope: base, .. } = common;
    spec.ropes = ropes(&mut fields, base)?;
    fields.finish(spec.architecture)?;
    Ok(spec)
}

/// `Gemma3ForConditionalGeneration`: the text part of a model that also takes images, which are
/// refused elsewhere. Weights of the vision tower are not read.
pub(super) fn gemma3_with_vision(
    mut fields: Fields,
    max_model_len: Option<u32>,
) -> Result<ModelSpec, ModelError> {
    let eos = fields.u32s("eos_token_id", u32::MAX)?;
    let Some(text) = fields.object("text_config")? else {
        return Err(fields.wrong("text_config", "missing, expected the text part's fields"));
    };
    let text = match eos.as_slice() {
        [] => text,
        some => text.with_defaults(json!({ "eos_token_id": some })),
    };
    let mut spec = gemma3(text, max_model_len)?;
    spec.names.roots = &["language_model.model.", "model.language_model.", "model."];
    Ok(spec)
}

/// Gemma 3's ropes: 0 for global layers, 1 for local ones, which are never scaled.
fn ropes(fields: &mut Fields, base: rope::RopeBase) -> Result<Vec<RopeSpec>, ModelError> {
    let theta = fields.positive("rope_theta")?.unwrap_or(1_000_000.0);
    let local_theta = fields.positive("rope_local_base_freq")?.unwrap_or(10_000.0);
    if let Some(mut kinds) = fields.object("rope_parameters")? {
        // transformers 5: one object for each kind of layer.
        let global = kinds.object("full_attention")?;
        let local = kinds.object("sliding_attention")?;
        let (Some(global), Some(local)) = (global, local) else {
            let reason = "expected full_attention and sliding_attention";
            return Err(fields.wrong("rope_parameters", reason));
        };
        kinds.finish("Gemma3ForCausalLM")?;
        return Ok(vec![
            rope::from_object(global, base, theta, None, None)?,
            rope::from_object(local, base, local_theta, None, None)?,
        ]);
    }
    let local = rope::plain(fields, base, local_theta, None)?;
    let global = match fields.object("rope_scaling")? {
        Some(scaling) => rope::from_object(scaling, base, theta, None, None)?,
        None => rope::plain(fields, base, theta, None)?,
    };
    Ok(vec![global, local])
}

fn shared(
    fields: Fields,
    architecture: &'static str,
    max_model_len: Option<u32>,
) -> Result<Common, ModelError> {
    let mut common = read(fields, architecture, max_model_len)?;
    let Common { fields, spec, .. } = &mut common;
    spec.norm = NormKind::UnitOffset;
    spec.sandwich_norms = true;
    spec.embedding_scale = EmbeddingScale::SqrtHidden;
    let bias = fields.bool("attention_bias", false)?;
    spec.biases = Biases { qkv: bias, output: bias, mlp: false };
    spec.activation = activation(fields, "hidden_activation")?.unwrap_or(Activation::GeluTanh);
    if activation(fields, "hidden_act")?.is_some_and(|old| old != spec.activation) {
        return Err(fields.wrong("hidden_act", "differs from hidden_activation"));
    }
    spec.final_softcap = fields.positive("final_logit_softcapping")?.map(|cap| cap as f32);
    let scale = fields.number("query_pre_attn_scalar")?.sqrt().recip() as f32;
    spec.layers.iter_mut().for_each(|layer| layer.scale = scale);
    Ok(common)
}
