//! Everything in which decoders differ, as data: one [`ModelSpec`] for each model, checked once.

use super::error::ModelError;
use crate::backend::{Activation, MoeParams, NormKind, RopeSpec};
use crate::ids::TokenId;

/// Largest accepted hidden size; also bounds feed-forward and projection widths at four times it.
pub const HIDDEN_SIZE_MAX: u32 = 65_536;
/// Largest accepted number of layers.
pub const LAYERS_MAX: u32 = 1_024;
/// Largest accepted number of attention heads.
pub const HEADS_MAX: u32 = 1_024;
/// Largest accepted head size.
pub const HEAD_DIM_MAX: u32 = 1_024;
/// Largest accepted vocabulary.
pub const VOCAB_SIZE_MAX: u32 = 4_000_000;
/// Largest accepted number of experts in a layer.
pub const EXPERTS_MAX: u32 = 1_024;
/// Largest accepted context.
pub const CONTEXT_TOKENS_MAX: u32 = 16_777_216;
/// Largest accepted width of a fused projection.
pub const WIDTH_MAX: u32 = 4 * HIDDEN_SIZE_MAX;
/// Most end-of-sequence tokens that a model may name.
pub const EOS_TOKENS_MAX: usize = 64;

/// A decoder-only transformer with RMS norms, rotary embeddings and gated feed-forward blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Name in `architectures` of config.json.
    pub architecture: &'static str,
    /// Rows of the embedding and of the logits.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Positions that the model is made for.
    pub context_tokens: u32,
    /// Query heads of each layer.
    pub heads: u32,
    /// KV heads of each layer; divides `heads`.
    pub kv_heads: u32,
    /// Values of each head.
    pub head_dim: u32,
    /// How norm weights are meant.
    pub norm: NormKind,
    /// Epsilon of all norms.
    pub norm_eps: f32,
    /// Whether queries and keys are normalised by head.
    pub qk_norms: bool,
    /// Whether the outputs of attention and feed-forward are normalised before they are added.
    pub sandwich_norms: bool,
    /// The feed-forward activation.
    pub activation: Activation,
    /// Width of the dense feed-forward blocks; 0 when every layer has experts.
    pub mlp_width: u32,
    /// Which projections have a bias.
    pub biases: Biases,
    /// The kinds of rotary embedding that layers name by index.
    pub ropes: Vec<RopeSpec>,
    /// The layers, in order.
    pub layers: Vec<LayerSpec>,
    /// What embeddings are multiplied by.
    pub embedding_scale: EmbeddingScale,
    /// Whether the output projection is the embedding table.
    pub tied_embeddings: bool,
    /// `Some(c)`: logits become `c * tanh(logit / c)`.
    pub final_softcap: Option<f32>,
    /// How the weight file names and fuses the tensors.
    pub names: TensorNames,
    /// Tokens that end a sequence, ascending.
    pub eos: Vec<TokenId>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Index into [`ModelSpec::ropes`].
    pub rope: u32,
    /// Attention scores are `q · k * scale`.
    pub scale: f32,
    /// `Some(w)`: a query at position `p` sees keys in `(p - w, p]`.
    pub window_tokens: Option<u32>,
    /// `Some(c)`: scores become `c * tanh(score / c)`.
    pub softcap: Option<f32>,
    /// The feed-forward block.
    pub mlp: MlpSpec,
}

/// A layer's feed-forward block.
#[derive(Clone, Debug, PartialEq)]
pub enum MlpSpec {
    /// One gated block of [`ModelSpec::mlp_width`].
    Dense,
    /// Experts, some of which each token uses.
    Moe {
        /// Experts of the layer.
        experts: u32,
        /// Width of each.
        width: u32,
        /// Routing.
        params: MoeParams,
    },
}

/// Which projections have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The attention output.
    pub output: bool,
    /// Gate, up and down.
    pub mlp: bool,
}

/// What embeddings are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingScale {
    /// Nothing.
    One,
    /// The root of the hidden size, rounded to bf16 where the table is stored in bf16: Gemma's
    /// reference holds the factor in the model's element type.
    SqrtHidden,
}

/// How a weight file names the tensors of the families, in Hugging Face terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorNames {
    /// What stands before `embed_tokens`, `layers` and `norm`; the first of these under which the
    /// file has an embedding table.
    pub roots: &'static [&'static str],
    /// One `qkv_proj` instead of `q_proj`, `k_proj` and `v_proj`.
    pub fused_qkv: bool,
    /// One `gate_up_proj` instead of `gate_proj` and `up_proj`.
    pub fused_gate_up: bool,
    /// Names inside a layer with experts.
    pub moe: MoeNames,
}

/// Names inside a layer with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoeNames {
    /// The block that holds `gate` and `experts`.
    pub block: &'static str,
    /// An expert's gate projection.
    pub gate: &'static str,
    /// Its up projection.
    pub up: &'static str,
    /// Its down projection.
    pub down: &'static str,
}

impl TensorNames {
    /// The names that most families use.
    pub const LLAMA: Self = Self {
        roots: &["model."],
        fused_qkv: false,
        fused_gate_up: false,
        moe: MoeNames { block: "mlp", gate: "gate_proj", up: "up_proj", down: "down_proj" },
    };
}

impl ModelSpec {
    /// Width of the fused query, key and value projection.
    pub fn qkv_width(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of the concatenated heads.
    pub fn attention_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Bytes of K and V that one token position of all layers needs, with values of `value_bytes`.
    pub fn kv_bytes_per_token(&self, value_bytes: u64) -> u64 {
        let width = u64::from(self.kv_heads) * u64::from(self.head_dim);
        2 * self.layers.len() as u64 * width * value_bytes
    }

    /// Checks every size and index, so that nothing below has to.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the field's name in config.json.
    pub fn check(&self) -> Result<(), ModelError> {
        bound("vocab_size", self.vocab_size, VOCAB_SIZE_MAX)?;
        bound("hidden_size", self.hidden_size, HIDDEN_SIZE_MAX)?;
        bound("num_attention_heads", self.heads, HEADS_MAX)?;
        bound("num_key_value_heads", self.kv_heads, self.heads)?;
        bound("head_dim", self.head_dim, HEAD_DIM_MAX)?;
        bound("max_position_embeddings", self.context_tokens, CONTEXT_TOKENS_MAX)?;
        let layers = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        bound("num_hidden_layers", layers, LAYERS_MAX)?;
        bound("head_dim times heads", self.qkv_width(), WIDTH_MAX)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv) = (self.heads, self.kv_heads);
            let reason = format!("{kv} does not divide num_attention_heads, which is {heads}");
            return Err(ModelError::config("num_key_value_heads", reason));
        }
        positive("rms_norm_eps", self.norm_eps)?;
        if let Some(cap) = self.final_softcap {
            positive("final_logit_softcapping", cap)?;
        }
        if self.eos.len() > EOS_TOKENS_MAX {
            let reason = format!("{} tokens, at most {EOS_TOKENS_MAX} are taken", self.eos.len());
            return Err(ModelError::config("eos_token_id", reason));
        }
        self.check_ropes()?;
        self.layers.iter().try_for_each(|layer| self.check_layer(layer))
    }

    fn check_ropes(&self) -> Result<(), ModelError> {
        for rope in &self.ropes {
            let pairs = rope.inv_freq.len();
            if pairs == 0 || pairs > self.head_dim as usize / 2 {
                let reason = format!(
                    "{pairs} frequencies, expected 1 to half of head_dim, which is {}",
                    self.head_dim
                );
                return Err(ModelError::config("rope_parameters", reason));
            }
            for &freq in rope.inv_freq.iter().chain([&rope.magnitude]) {
                positive("rope_parameters", freq)?;
            }
        }
        Ok(())
    }

    fn check_layer(&self, layer: &LayerSpec) -> Result<(), ModelError> {
        assert!((layer.rope as usize) < self.ropes.len(), "families name ropes that they made");
        positive("query_pre_attn_scalar", layer.scale)?;
        if let Some(cap) = layer.softcap {
            positive("attn_logit_softcapping", cap)?;
        }
        if layer.window_tokens == Some(0) {
            return Err(ModelError::config("sliding_window", "0, expected at least 1"));
        }
        match &layer.mlp {
            MlpSpec::Dense => bound("intermediate_size", self.mlp_width, WIDTH_MAX / 2),
            MlpSpec::Moe { experts, width, params } => {
                bound("num_experts", *experts, EXPERTS_MAX)?;
                bound("moe_intermediate_size", *width, WIDTH_MAX / 2)?;
                bound("num_experts_per_tok", params.experts_per_token, *experts)
            }
        }
    }
}

fn bound(field: &str, value: u32, max: u32) -> Result<(), ModelError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(ModelError::config(field, format!("{value}, expected 1 to {max}")))
}

fn positive(field: &str, value: f32) -> Result<(), ModelError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(ModelError::config(field, format!("{value}, expected a positive number")))
}
