//! The metadata of a GGUF file as the config.json that the same model has in Hugging Face form, so
//! that one reader of configurations serves both. Keys: `docs/gguf.md` of ggml.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::contents::Contents;
use super::family::Family;
use crate::model::ModelError;

/// Keys of an architecture that change nothing in a forward pass, or that say what the shapes of
/// tensors say already.
const HARMLESS: [&str; 4] =
    ["vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "attention.causal"];
/// Most layers whose tensors are looked at; the reader of configurations takes fewer.
const LAYERS_MAX: u32 = 4096;
/// Longest name of a rope scaling.
const NAME_BYTES_MAX: u64 = 64;
/// The layers of the 27B sizes, by which llama.cpp tells that the attention scale of these two
/// comes from hidden size over heads.
const GEMMA2_27B_LAYERS: u32 = 46;
const GEMMA3_27B_LAYERS: u32 = 62;
/// Every how many layers Gemma 2 and 3 have a global one, where the file does not say.
const GEMMA2_PATTERN: u32 = 2;
const GEMMA3_PATTERN: u32 = 6;
/// The rope base of Gemma 3's local layers, where the file does not say.
const GEMMA3_LOCAL_THETA: f64 = 10_000.0;
/// `expert_gating_func` of softmax.
const GATING_SOFTMAX: u32 = 1;

/// Sizes that several keys need.
#[derive(Clone, Copy)]
struct Sizes {
    layers: u32,
    hidden: u32,
    heads: u32,
    head_dim: u32,
}

/// The keys of the file's architecture, read one by one so that none is passed over in silence.
struct Keys<'a> {
    contents: &'a Contents,
    prefix: &'a str,
    read: BTreeSet<String>,
}

/// The configuration of a model of this family, whose keys begin with `prefix`.
///
/// # Errors
/// [`ModelError`] naming the key that is missing, of the wrong type, or not understood.
pub(super) fn of(
    contents: &Contents,
    family: Family,
    prefix: &str,
    end_tokens: &[u32],
) -> Result<Value, ModelError> {
    let mut keys = Keys { contents, prefix, read: BTreeSet::new() };
    let mut map = Map::new();
    let (class, model_type) = family.hugging_face();
    map.insert("architectures".into(), json!([class]));
    map.insert("model_type".into(), json!(model_type));
    let sizes = common(&mut keys, &mut map)?;
    if !end_tokens.is_empty() {
        map.insert("eos_token_id".into(), json!(end_tokens));
    }
    if let Some(id) = contents.metadata.u32("tokenizer.ggml.bos_token_id")? {
        map.insert("bos_token_id".into(), json!(id));
    }
    rope(&mut keys, &mut map, family, sizes)?;
    window(&mut keys, &mut map)?;
    biases(contents, &mut map, family);
    match family {
        Family::Llama => {
            keys.u32("expert_count")?;
            keys.u32("expert_used_count")?;
        }
        Family::Mixtral => mixtral(&mut keys, &mut map)?,
        Family::Qwen3Moe => qwen3_moe(&mut keys, &mut map, sizes)?,
        Family::Gemma2 => gemma2(&mut keys, &mut map, sizes)?,
        Family::Gemma3 => gemma3(&mut keys, &mut map, sizes)?,
        Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Phi3 => {}
    }
    keys.finish()?;
    Ok(Value::Object(map))
}

fn common(keys: &mut Keys<'_>, map: &mut Map<String, Value>) -> Result<Sizes, ModelError> {
    let layers = keys.needed("block_count")?;
    let hidden = keys.needed("embedding_length")?;
    let heads = keys.needed("attention.head_count")?;
    let kv_heads = match keys.uniform("attention.head_count_kv")? {
        Some(0) => return Err(keys.fail("attention.head_count_kv", "is 0, expected at least 1")),
        given => given.unwrap_or(heads),
    };
    let head_dim = match keys.u32("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let reason = format!("is missing, and {heads} heads do not divide {hidden}");
            return Err(keys.fail("attention.key_length", reason));
        }
    };
    if let Some(other) = keys.u32("attention.value_length")?.filter(|&other| other != head_dim) {
        let reason = format!("is {other}, expected the {head_dim} of attention.key_length");
        return Err(keys.fail("attention.value_length", reason));
    }
    let Some(vocab_size) = keys.contents.shape("token_embd.weight").and_then(<[usize]>::first)
    else {
        return Err(keys.contents.fail("token_embd.weight", "is missing"));
    };
    let Some(eps) = keys.f32("attention.layer_norm_rms_epsilon")? else {
        return Err(keys.fail("attention.layer_norm_rms_epsilon", "is missing"));
    };
    map.insert("vocab_size".into(), json!(vocab_size));
    map.insert("hidden_size".into(), json!(hidden));
    map.insert("intermediate_size".into(), json!(keys.needed("feed_forward_length")?));
    map.insert("num_hidden_layers".into(), json!(layers));
    map.insert("num_attention_heads".into(), json!(heads));
    map.insert("num_key_value_heads".into(), json!(kv_heads));
    map.insert("head_dim".into(), json!(head_dim));
    map.insert("max_position_embeddings".into(), json!(keys.needed("context_length")?));
    map.insert("rms_norm_eps".into(), json!(eps));
    let tied = keys.contents.shape("output.weight").is_none();
    map.insert("tie_word_embeddings".into(), json!(tied));
    Ok(Sizes { layers, hidden, heads, head_dim })
}

fn rope(
    keys: &mut Keys<'_>,
    map: &mut Map<String, Value>,
    family: Family,
    sizes: Sizes,
) -> Result<(), ModelError> {
    if let Some(theta) = keys.f32("rope.freq_base")? {
        map.insert("rope_theta".into(), json!(theta));
    }
    let rotated = keys.u32("rope.dimension_count")?.filter(|&count| count != sizes.head_dim);
    if let Some(count) = rotated {
        let mut fraction = f64::from(count) / f64::from(sizes.head_dim);
        // Readers multiply and round down; the quotient must not fall just short.
        if (fraction * f64::from(sizes.head_dim)) as u32 != count {
            fraction = fraction.next_up();
        }
        map.insert("partial_rotary_factor".into(), json!(fraction));
    }
    let name = keys.string("rope.scaling.type")?.filter(|name| name != "none");
    let factor = keys.f32("rope.scaling.factor")?;
    let original = keys.u32("rope.scaling.original_context_length")?;
    let magnitude = keys.f32("rope.scaling.attn_factor")?;
    let short = keys.contents.floats("rope_factors_short.weight")?;
    let long = keys.contents.floats("rope_factors_long.weight")?;
    if family == Family::Phi3
        && let Some(original) = original
    {
        map.insert("original_max_position_embeddings".into(), json!(original));
    }
    let mut scaling = Map::new();
    if let (Some(short), Some(long)) = (short, long) {
        scaling.insert("rope_type".into(), json!("longrope"));
        scaling.insert("short_factor".into(), json!(short));
        scaling.insert("long_factor".into(), json!(long));
    } else if let Some(name) = name {
        scaling.insert("rope_type".into(), json!(name));
        if let Some(factor) = factor {
            scaling.insert("factor".into(), json!(factor));
        }
        if let Some(original) = original.filter(|_| name != "linear") {
            scaling.insert("original_max_position_embeddings".into(), json!(original));
        }
    }
    if let Some(magnitude) = magnitude.filter(|&magnitude| magnitude != 1.0) {
        if scaling.get("rope_type") != Some(&json!("longrope")) {
            let reason = format!("is {magnitude}, expected 1 unless the scaling is longrope");
            return Err(keys.fail("rope.scaling.attn_factor", reason));
        }
        scaling.insert("attention_factor".into(), json!(magnitude));
    }
    if !scaling.is_empty() {
        map.insert("rope_scaling".into(), Value::Object(scaling));
    }
    Ok(())
}

/// A window of 0 is none.
fn window(keys: &mut Keys<'_>, map: &mut Map<String, Value>) -> Result<(), ModelError> {
    let window = keys.u32("attention.sliding_window")?.filter(|&window| window > 0);
    map.insert("sliding_window".into(), json!(window));
    Ok(())
}

/// Biases show in the tensors alone. Qwen2 has those of q, k and v without saying so.
fn biases(contents: &Contents, map: &mut Map<String, Value>, family: Family) {
    if family != Family::Qwen2 && contents.shape("blk.0.attn_q.bias").is_some() {
        map.insert("attention_bias".into(), json!(true));
    }
    if contents.shape("blk.0.ffn_down.bias").is_some() {
        map.insert("mlp_bias".into(), json!(true));
    }
}

fn mixtral(keys: &mut Keys<'_>, map: &mut Map<String, Value>) -> Result<(), ModelError> {
    map.insert("num_local_experts".into(), json!(keys.needed("expert_count")?));
    map.insert("num_experts_per_tok".into(), json!(keys.needed("expert_used_count")?));
    if let Some(width) = keys.u32("expert_feed_forward_length")? {
        map.insert("intermediate_size".into(), json!(width));
    }
    Ok(())
}

fn qwen3_moe(
    keys: &mut Keys<'_>,
    map: &mut Map<String, Value>,
    sizes: Sizes,
) -> Result<(), ModelError> {
    map.insert("num_experts".into(), json!(keys.needed("expert_count")?));
    map.insert("num_experts_per_tok".into(), json!(keys.needed("expert_used_count")?));
    map.insert("moe_intermediate_size".into(), json!(keys.needed("expert_feed_forward_length")?));
    // llama.cpp scales the weights of the chosen experts to sum 1 where the file does not say.
    let normalise = keys.bool("expert_weights_norm")?.unwrap_or(true);
    map.insert("norm_topk_prob".into(), json!(normalise));
    if let Some(scale) = keys.f32("expert_weights_scale")?.filter(|&s| s != 0.0 && s != 1.0) {
        return Err(keys.fail("expert_weights_scale", format!("is {scale}, expected 1")));
    }
    if let Some(other) = keys.u32("expert_gating_func")?.filter(|&f| f != GATING_SOFTMAX) {
        let reason = format!("is {other}, expected {GATING_SOFTMAX}, which is softmax");
        return Err(keys.fail("expert_gating_func", reason));
    }
    let dense: Vec<u32> = (0..sizes.layers)
        .filter(|layer| keys.contents.shape(&format!("blk.{layer}.ffn_gate_inp.weight")).is_none())
        .collect();
    map.insert("decoder_sparse_step".into(), json!(1));
    map.insert("mlp_only_layers".into(), json!(dense));
    Ok(())
}

fn gemma2(
    keys: &mut Keys<'_>,
    map: &mut Map<String, Value>,
    sizes: Sizes,
) -> Result<(), ModelError> {
    if let Some(cap) = keys.f32("attn_logit_softcapping")? {
        map.insert("attn_logit_softcapping".into(), json!(cap));
    }
    gemma(keys, map, sizes, GEMMA2_27B_LAYERS, GEMMA2_PATTERN)
}

fn gemma3(
    keys: &mut Keys<'_>,
    map: &mut Map<String, Value>,
    sizes: Sizes,
) -> Result<(), ModelError> {
    let theta = keys.f32("rope.freq_base_swa")?.unwrap_or(GEMMA3_LOCAL_THETA);
    map.insert("rope_local_base_freq".into(), json!(theta));
    gemma(keys, map, sizes, GEMMA3_27B_LAYERS, GEMMA3_PATTERN)
}

fn gemma(
    keys: &mut Keys<'_>,
    map: &mut Map<String, Value>,
    sizes: Sizes,
    large_layers: u32,
    pattern: u32,
) -> Result<(), ModelError> {
    if let Some(cap) = keys.f32("final_logit_softcapping")? {
        map.insert("final_logit_softcapping".into(), json!(cap));
    }
    let scalar = match sizes {
        Sizes { layers, hidden, heads, .. } if layers == large_layers => hidden / heads,
        Sizes { head_dim, .. } => head_dim,
    };
    map.insert("query_pre_attn_scalar".into(), json!(scalar));
    let types: Vec<&str> = keys
        .local_layers(sizes.layers, pattern)?
        .into_iter()
        .map(|local| if local { "sliding_attention" } else { "full_attention" })
        .collect();
    map.insert("layer_types".into(), json!(types));
    Ok(())
}

impl Keys<'_> {
    fn key(&mut self, name: &str) -> String {
        self.read.insert(name.to_owned());
        format!("{}.{name}", self.prefix)
    }

    fn fail(&self, name: &str, reason: impl std::fmt::Display) -> ModelError {
        self.contents.metadata.fail(&format!("{}.{name}", self.prefix), reason)
    }

    fn u32(&mut self, name: &str) -> Result<Option<u32>, ModelError> {
        let key = self.key(name);
        self.contents.metadata.u32(&key)
    }

    fn bool(&mut self, name: &str) -> Result<Option<bool>, ModelError> {
        let key = self.key(name);
        self.contents.metadata.bool(&key)
    }

    fn string(&mut self, name: &str) -> Result<Option<String>, ModelError> {
        let key = self.key(name);
        self.contents.metadata.string(&key, NAME_BYTES_MAX)
    }

    /// A finite float as the shortest decimal that is this `f32`: 0.00001, not 0.0000099999997.
    fn f32(&mut self, name: &str) -> Result<Option<f64>, ModelError> {
        let key = self.key(name);
        let Some(value) = self.contents.metadata.f32(&key)? else { return Ok(None) };
        let shortest = value.to_string().parse().ok().filter(|value: &f64| value.is_finite());
        let refuse = || self.fail(name, format!("is {value}, expected a finite number"));
        shortest.map(Some).ok_or_else(refuse)
    }

    /// A number, or one for each layer when they are all the same.
    fn uniform(&mut self, name: &str) -> Result<Option<u32>, ModelError> {
        let key = self.key(name);
        if !self.contents.metadata.is_list(&key) {
            return self.contents.metadata.u32(&key);
        }
        let values = self.contents.metadata.i32s(&key)?.unwrap_or_default();
        let first = values.first().copied().and_then(|first| u32::try_from(first).ok());
        match first {
            Some(first) if values.iter().all(|&value| i64::from(value) == i64::from(first)) => {
                Ok(Some(first))
            }
            _ => Err(self.fail(name, "differs between layers, expected one number for all")),
        }
    }

    /// A size, which has to be there and not 0.
    fn needed(&mut self, name: &str) -> Result<u32, ModelError> {
        match self.uniform(name)? {
            Some(0) => Err(self.fail(name, "is 0, expected at least 1")),
            Some(value) => Ok(value),
            None => Err(self.fail(name, "is missing")),
        }
    }

    /// Which layers are local: by the file's pattern, a list or a number, else by `pattern`.
    fn local_layers(&mut self, layers: u32, pattern: u32) -> Result<Vec<bool>, ModelError> {
        let name = "attention.sliding_window_pattern";
        let key = self.key(name);
        if layers > LAYERS_MAX {
            return Err(self.fail("block_count", format!("is {layers}, at most {LAYERS_MAX}")));
        }
        if self.contents.metadata.is_list(&key) {
            let local = self.contents.metadata.bools(&key)?.unwrap_or_default();
            if local.len() != layers as usize {
                let reason = format!("has {} values, expected {layers}", local.len());
                return Err(self.fail(name, reason));
            }
            return Ok(local);
        }
        let pattern = self.contents.metadata.u32(&key)?.unwrap_or(pattern);
        if pattern == 0 {
            return Err(self.fail(name, "is 0, expected at least 1"));
        }
        Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(pattern)).collect())
    }

    /// Refuses keys of the architecture that were not read and are not switched off.
    fn finish(self) -> Result<(), ModelError> {
        for key in self.contents.metadata.keys() {
            let Some(name) = key.strip_prefix(self.prefix).and_then(|key| key.strip_prefix('.'))
            else {
                continue;
            };
            let known = self.read.contains(name) || HARMLESS.contains(&name);
            if !known && !self.contents.metadata.is_off(key) {
                return Err(self.fail(name, "is not supported; expected 0 or no such key"));
            }
        }
        Ok(())
    }
}
