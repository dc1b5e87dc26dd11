//! config.json → [`ModelSpec`], one file for each group of architectures.
//!
//! A family starts from `read`, which reads what all families have, and then states its own
//! fields. Defaults for absent fields are those of the family's configuration class in
//! transformers, because that is what the file's writer relied on.

mod gemma;
mod llama;
mod mixtral;
mod phi;
mod qwen;

use serde_json::Value;

use super::error::ModelError;
use super::fields::Fields;
use super::rope::RopeBase;
use super::spec::{
    Biases, CONTEXT_TOKENS_MAX, EXPERTS_MAX, EmbeddingScale, HEAD_DIM_MAX, HEADS_MAX,
    HIDDEN_SIZE_MAX, LAYERS_MAX, LayerSpec, MlpSpec, ModelSpec, TensorNames, VOCAB_SIZE_MAX,
    WIDTH_MAX,
};
use crate::backend::{Activation, NormKind};
use crate::ids::TokenId;

/// Reads one architecture: the fields, and the longest context that will be run.
type Reader = fn(Fields, Option<u32>) -> Result<ModelSpec, ModelError>;

/// The supported architectures, `model_type` of each, and who reads them.
const ARCHITECTURES: &[(&str, &str, Reader)] = &[
    ("LlamaForCausalLM", "llama", llama::llama),
    ("MistralForCausalLM", "mistral", llama::mistral),
    ("Qwen2ForCausalLM", "qwen2", qwen::qwen2),
    ("Qwen3ForCausalLM", "qwen3", qwen::qwen3),
    ("Qwen3MoeForCausalLM", "qwen3_moe", qwen::qwen3_moe),
    ("Gemma2ForCausalLM", "gemma2", gemma::gemma2),
    ("Gemma3ForCausalLM", "gemma3_text", gemma::gemma3),
    ("Gemma3ForConditionalGeneration", "gemma3", gemma::gemma3_with_vision),
    ("Phi3ForCausalLM", "phi3", phi::phi3),
    ("MixtralForCausalLM", "mixtral", mixtral::mixtral),
];

/// What [`read`] found besides the skeleton of the spec.
#[derive(Debug)]
struct Common {
    fields: Fields,
    spec: ModelSpec,
    layers: u32,
    rope: RopeBase,
}

/// Names of the architectures that [`spec`] takes.
pub fn supported() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, ..)| *name).collect()
}

/// Reads config.json. `max_model_len` is the longest context that will be run, where it is less
/// than what the model is made for.
///
/// # Errors
/// [`ModelError::Config`] for a missing, malformed or unknown field, [`ModelError::Unsupported`]
/// for an architecture or a value that is not implemented.
pub fn spec(config: &Value, max_model_len: Option<u32>) -> Result<ModelSpec, ModelError> {
    let mut fields = Fields::new(config)?;
    let names = fields.strings("architectures")?.unwrap_or_default();
    let model_type = fields.string("model_type")?;
    let found = match names.as_slice() {
        [] => ARCHITECTURES.iter().find(|(_, kind, _)| Some(*kind) == model_type.as_deref()),
        [name] => ARCHITECTURES.iter().find(|(known, ..)| known == name),
        _ => None,
    };
    let Some((_, _, reader)) = found else {
        let what = match names.first() {
            Some(_) => format!("config.json: architecture {}", names.join(", ")),
            None => format!("config.json: model_type {}", model_type.as_deref().unwrap_or("none")),
        };
        return Err(ModelError::unsupported(what, &supported()));
    };
    if fields.object("quantization_config")?.is_some() {
        let what = "config.json: quantization_config";
        return Err(ModelError::unsupported(
            what,
            &["safetensors of f32, f16 or bf16", "GGUF (Q8_0, Q4_0, Q4_K, Q5_K, Q6_K)"],
        ));
    }
    let spec = reader(fields, max_model_len)?;
    spec.check()?;
    Ok(spec)
}

/// The end-of-sequence tokens that generation_config.json names.
///
/// # Errors
/// [`ModelError::Config`] when they are no token ids.
pub fn eos(generation_config: &Value) -> Result<Vec<TokenId>, ModelError> {
    let ids = Fields::new(generation_config)?.u32s("eos_token_id", VOCAB_SIZE_MAX)?;
    Ok(ids.into_iter().map(TokenId).collect())
}

/// Reads the fields that all families share. The layers are dense with full attention, the scale
/// is that of the head size, and there is no rope yet.
fn read(
    mut fields: Fields,
    architecture: &'static str,
    max_model_len: Option<u32>,
) -> Result<Common, ModelError> {
    let hidden_size = fields.size("hidden_size", HIDDEN_SIZE_MAX)?;
    let heads = fields.size("num_attention_heads", HEADS_MAX)?;
    let kv_heads = fields.u32("num_key_value_heads", 1..=HEADS_MAX)?.unwrap_or(heads);
    let head_dim = match fields.u32("head_dim", 1..=HEAD_DIM_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let reason = format!("missing, and {heads} heads do not divide {hidden_size}");
            return Err(fields.wrong("head_dim", reason));
        }
    };
    let layers = fields.size("num_hidden_layers", LAYERS_MAX)?;
    let context_tokens = fields.size("max_position_embeddings", CONTEXT_TOKENS_MAX)?;
    let layer = LayerSpec {
        rope: 0,
        scale: (f64::from(head_dim).sqrt().recip()) as f32,
        window_tokens: None,
        softcap: None,
        mlp: MlpSpec::Dense,
    };
    let mut eos: Vec<TokenId> =
        fields.u32s("eos_token_id", VOCAB_SIZE_MAX)?.into_iter().map(TokenId).collect();
    eos.sort_unstable();
    eos.dedup();
    let spec = ModelSpec {
        architecture,
        vocab_size: fields.size("vocab_size", VOCAB_SIZE_MAX)?,
        hidden_size,
        context_tokens,
        heads,
        kv_heads,
        head_dim,
        norm: NormKind::Plain,
        norm_eps: fields.number("rms_norm_eps")? as f32,
        qk_norms: false,
        sandwich_norms: false,
        activation: Activation::Silu,
        mlp_width: fields.size("intermediate_size", WIDTH_MAX / 2)?,
        biases: Biases::default(),
        ropes: Vec::new(),
        layers: vec![layer; layers as usize],
        embedding_scale: EmbeddingScale::One,
        tied_embeddings: fields.bool("tie_word_embeddings", false)?,
        final_softcap: None,
        names: TensorNames::LLAMA,
        eos,
    };
    let run_tokens = max_model_len.unwrap_or(context_tokens).min(context_tokens);
    let rope = RopeBase { head_dim, context_tokens, run_tokens };
    Ok(Common { fields, spec, layers, rope })
}

/// The activation that a field names.
fn activation(fields: &mut Fields, name: &str) -> Result<Option<Activation>, ModelError> {
    let Some(value) = fields.string(name)? else { return Ok(None) };
    match value.as_str() {
        "silu" | "swish" => Ok(Some(Activation::Silu)),
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Some(Activation::GeluTanh)),
        "gelu" => Ok(Some(Activation::GeluErf)),
        other => {
            let what = format!("config.json: {name} {other:?}");
            let known = ["silu", "gelu", "gelu_pytorch_tanh"];
            Err(ModelError::unsupported(what, &known))
        }
    }
}

/// Which layers are local: `layer_types` where it is given, else `local(index)`.
fn local_layers(
    fields: &mut Fields,
    layers: u32,
    local: impl Fn(u32) -> bool,
) -> Result<Vec<bool>, ModelError> {
    let Some(types) = fields.strings("layer_types")? else {
        return Ok((0..layers).map(local).collect());
    };
    if types.len() != layers as usize {
        let reason = format!("{} entries, expected {layers}, one for each layer", types.len());
        return Err(fields.wrong("layer_types", reason));
    }
    let one = |kind: String| match kind.as_str() {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        other => {
            let what = format!("config.json: layer type {other:?}");
            Err(ModelError::unsupported(what, &["full_attention", "sliding_attention"]))
        }
    };
    types.into_iter().map(one).collect()
}

/// The number of experts: `num_local_experts` everywhere in transformers 5, in earlier releases
/// `num_experts` for some families.
fn experts(fields: &mut Fields) -> Result<u32, ModelError> {
    let old = fields.u32("num_experts", 1..=EXPERTS_MAX)?;
    let new = fields.u32("num_local_experts", 1..=EXPERTS_MAX)?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            Err(fields.wrong("num_experts", format!("{old}, but num_local_experts is {new}")))
        }
        (None, None) => Err(fields.wrong("num_experts", "missing, expected a whole number")),
        (old, new) => Ok(new.or(old).unwrap_or_default()),
    }
}

/// The window of local layers, where a model may have none.
fn window(fields: &mut Fields) -> Result<Option<u32>, ModelError> {
    fields.u32("sliding_window", 1..=u32::MAX)
}

#[cfg(test)]
mod tests;
