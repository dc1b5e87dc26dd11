//! A decoder's weights on a backend: which tensors a [`ModelSpec`] asks for, under which names, in
//! which shapes.

use std::collections::BTreeSet;

use super::checkpoint::ROPE_FACTORS;
use super::error::ModelError;
use super::spec::{EmbeddingScale, MlpSpec, ModelSpec};
use super::weights::WeightSource;
use crate::backend::{AttentionParams, Backend, DType, HostTensor, MoeParams, MoeWeights};

/// All weights of a decoder.
pub(super) struct Parameters<B: Backend> {
    /// `[V, H]`.
    pub(super) embedding: B::Weight,
    /// What embeddings are multiplied by.
    pub(super) embedding_scale: f32,
    /// The layers, in order.
    pub(super) layers: Vec<Layer<B>>,
    /// `[H]`.
    pub(super) final_norm: B::Vector,
    /// `[V, H]`; `None` when it is the embedding.
    pub(super) head: Option<B::Weight>,
}

/// One layer's weights.
pub(super) struct Layer<B: Backend> {
    /// What its attention is computed with.
    pub(super) attention: AttentionParams,
    /// `[H]`, before attention.
    pub(super) input_norm: B::Vector,
    /// `[(Q + 2K)·D, H]`.
    pub(super) qkv: B::Weight,
    /// `[D]` each, for queries and keys.
    pub(super) qk_norms: Option<(B::Vector, B::Vector)>,
    /// `[H, Q·D]`.
    pub(super) output: B::Weight,
    /// `[H]`, on the attention's output.
    pub(super) attention_norm: Option<B::Vector>,
    /// `[H]`, before the feed-forward block.
    pub(super) mlp_norm: B::Vector,
    /// The feed-forward block.
    pub(super) mlp: Mlp<B>,
    /// `[H]`, on the feed-forward block's output.
    pub(super) mlp_output_norm: Option<B::Vector>,
}

/// A feed-forward block's weights.
pub(super) enum Mlp<B: Backend> {
    /// `gate_up [2F, H]`, gate rows first, and `down [H, F]`.
    Dense { gate_up: B::Weight, down: B::Weight },
    /// Routing, and the experts.
    Moe { params: MoeParams, weights: MoeWeights<B::Weight> },
}

/// What was read besides the weights themselves.
#[derive(Debug)]
pub(super) struct Inventory {
    /// Number of weights.
    pub(super) values: u64,
    /// Their bytes as stored.
    pub(super) bytes: u64,
    /// Type of the embedding table: what the model is said to be stored in.
    pub(super) dtype: DType,
    /// Tensors of the file that no part of the model uses, sorted.
    pub(super) unused: Vec<String>,
}

/// Reads tensors and keeps account of them.
struct Loader<'a, B: Backend> {
    backend: &'a B,
    source: &'a WeightSource,
    spec: &'a ModelSpec,
    root: &'static str,
    taken: BTreeSet<String>,
    values: u64,
    bytes: u64,
}

impl<B: Backend> Parameters<B> {
    /// Takes every tensor that `spec` asks for, after checking its shape.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] naming the tensor, what was expected and what was found;
    /// [`ModelError::Backend`] when the backend cannot take it.
    pub(super) fn load(
        backend: &B,
        spec: &ModelSpec,
        source: &WeightSource,
    ) -> Result<(Self, Inventory), ModelError> {
        let mut loader = Loader::new(backend, spec, source);
        let table = loader.tensor(loader.name("embed_tokens.weight"), &loader.table_shape())?;
        let dtype = table.dtype();
        let embedding = backend.weight(&[table], &[])?;
        let layers = (0..spec.layers.len()).map(|i| loader.layer(i)).collect::<Result<_, _>>()?;
        let final_norm = loader.norm(loader.name("norm.weight"))?;
        let head = if spec.tied_embeddings { None } else { Some(loader.head()?) };
        let parameters =
            Self { embedding, embedding_scale: scale_of(spec, dtype), layers, final_norm, head };
        let unused = loader.unused();
        let inventory = Inventory { values: loader.values, bytes: loader.bytes, dtype, unused };
        Ok((parameters, inventory))
    }

    /// The output projection.
    pub(super) fn head(&self) -> &B::Weight {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

impl<'a, B: Backend> Loader<'a, B> {
    fn new(backend: &'a B, spec: &'a ModelSpec, source: &'a WeightSource) -> Self {
        let roots = spec.names.roots;
        let root = roots
            .iter()
            .find(|root| source.contains(&format!("{root}embed_tokens.weight")))
            .unwrap_or(&roots[0]);
        Self { backend, source, spec, root, taken: BTreeSet::new(), values: 0, bytes: 0 }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}{rest}", self.root)
    }

    fn table_shape(&self) -> [usize; 2] {
        [self.spec.vocab_size as usize, self.spec.hidden_size as usize]
    }

    fn tensor(&mut self, name: String, shape: &[usize]) -> Result<HostTensor, ModelError> {
        let tensor = self.source.get(&name, shape)?;
        self.values += shape.iter().map(|&d| d as u64).product::<u64>();
        self.bytes += tensor.data().len() as u64;
        self.taken.insert(name);
        Ok(tensor)
    }

    fn vector(&mut self, name: String, len: u32) -> Result<B::Vector, ModelError> {
        let tensor = self.tensor(name, &[len as usize])?;
        Ok(self.backend.vector(&tensor)?)
    }

    /// A norm over the residual stream.
    fn norm(&mut self, name: String) -> Result<B::Vector, ModelError> {
        self.vector(name, self.spec.hidden_size)
    }

    /// A projection made of parts, each `(name without ".weight", output rows)`.
    fn linear(
        &mut self,
        parts: &[(String, u32)],
        input: u32,
        bias: bool,
    ) -> Result<B::Weight, ModelError> {
        let mut weights = Vec::with_capacity(parts.len());
        let mut biases = Vec::new();
        for (name, rows) in parts {
            let shape = [*rows as usize, input as usize];
            weights.push(self.tensor(format!("{name}.weight"), &shape)?);
            if bias {
                biases.push(self.tensor(format!("{name}.bias"), &[*rows as usize])?);
            }
        }
        Ok(self.backend.weight(&weights, &biases)?)
    }

    fn head(&mut self) -> Result<B::Weight, ModelError> {
        // Beside the root: `lm_head` for `model.`, `language_model.lm_head` for files with vision.
        let name = match self.root {
            "language_model.model." => "language_model.lm_head",
            _ => "lm_head",
        };
        self.linear(&[(name.to_owned(), self.spec.vocab_size)], self.spec.hidden_size, false)
    }

    fn layer(&mut self, index: usize) -> Result<Layer<B>, ModelError> {
        let spec = self.spec;
        let at = self.name(&format!("layers.{index}."));
        let inside = |rest: &str| format!("{at}{rest}");
        // Families with norms on outputs call the norm before the feed-forward block by its own
        // name; the others call it after what it follows.
        let (before_mlp, outputs) = if spec.sandwich_norms {
            let outputs = ["post_attention_layernorm.weight", "post_feedforward_layernorm.weight"];
            ("pre_feedforward_layernorm.weight", Some(outputs))
        } else {
            ("post_attention_layernorm.weight", None)
        };
        let output_norm = |this: &mut Self, which: usize| {
            outputs.map(|names| this.norm(inside(names[which]))).transpose()
        };
        let qk_norms = if spec.qk_norms {
            let queries = self.vector(inside("self_attn.q_norm.weight"), spec.head_dim)?;
            Some((queries, self.vector(inside("self_attn.k_norm.weight"), spec.head_dim)?))
        } else {
            None
        };
        let output = [(inside("self_attn.o_proj"), spec.hidden_size)];
        Ok(Layer {
            attention: attention_params(spec, index),
            input_norm: self.norm(inside("input_layernorm.weight"))?,
            qkv: self.qkv(&at)?,
            qk_norms,
            output: self.linear(&output, spec.attention_width(), spec.biases.output)?,
            attention_norm: output_norm(self, 0)?,
            mlp_norm: self.norm(inside(before_mlp))?,
            mlp: self.mlp(&at, &spec.layers[index].mlp)?,
            mlp_output_norm: output_norm(self, 1)?,
        })
    }

    fn qkv(&mut self, at: &str) -> Result<B::Weight, ModelError> {
        let spec = self.spec;
        let kv_width = spec.kv_heads * spec.head_dim;
        let parts = if spec.names.fused_qkv {
            vec![(format!("{at}self_attn.qkv_proj"), spec.qkv_width())]
        } else {
            vec![
                (format!("{at}self_attn.q_proj"), spec.attention_width()),
                (format!("{at}self_attn.k_proj"), kv_width),
                (format!("{at}self_attn.v_proj"), kv_width),
            ]
        };
        self.linear(&parts, spec.hidden_size, spec.biases.qkv)
    }

    fn mlp(&mut self, at: &str, mlp: &MlpSpec) -> Result<Mlp<B>, ModelError> {
        let spec = self.spec;
        let (hidden, width, bias) = (spec.hidden_size, spec.mlp_width, spec.biases.mlp);
        match mlp {
            MlpSpec::Dense => {
                let parts = if spec.names.fused_gate_up {
                    vec![(format!("{at}mlp.gate_up_proj"), 2 * width)]
                } else {
                    vec![(format!("{at}mlp.gate_proj"), width), (format!("{at}mlp.up_proj"), width)]
                };
                let gate_up = self.linear(&parts, hidden, bias)?;
                let down = [(format!("{at}mlp.down_proj"), hidden)];
                Ok(Mlp::Dense { gate_up, down: self.linear(&down, width, bias)? })
            }
            MlpSpec::Moe { experts, width, params } => {
                let block = format!("{at}{}", spec.names.moe.block);
                let router = self.linear(&[(format!("{block}.gate"), *experts)], hidden, false)?;
                let [gate_up, down] = self.experts(&block, *experts, *width)?;
                let weights = MoeWeights { router, gate_up, down };
                Ok(Mlp::Moe { params: *params, weights })
            }
        }
    }

    /// `gate_up` and `down` of every expert.
    fn experts(
        &mut self,
        block: &str,
        experts: u32,
        width: u32,
    ) -> Result<[Vec<B::Weight>; 2], ModelError> {
        let (names, hidden) = (self.spec.names.moe, self.spec.hidden_size);
        let mut gate_up = Vec::with_capacity(experts as usize);
        let mut down = Vec::with_capacity(experts as usize);
        for expert in 0..experts {
            let part = |name: &str| format!("{block}.experts.{expert}.{name}");
            let parts = [(part(names.gate), width), (part(names.up), width)];
            gate_up.push(self.linear(&parts, hidden, false)?);
            down.push(self.linear(&[(part(names.down), hidden)], width, false)?);
        }
        Ok([gate_up, down])
    }

    /// Tensors that nobody took and that are not known to be redundant.
    fn unused(&self) -> Vec<String> {
        let redundant = |name: &str| {
            // Frequencies follow from the configuration or were read with it; a tied head repeats
            // the embedding; images are refused where requests are read.
            name.ends_with("rotary_emb.inv_freq")
                || name == ROPE_FACTORS
                || (self.spec.tied_embeddings && name.ends_with("lm_head.weight"))
                || (self.spec.names.roots.len() > 1
                    && (name.contains("vision_tower.") || name.contains("multi_modal_projector.")))
        };
        let mut names = self.source.names();
        names.retain(|name| !self.taken.contains(name) && !redundant(name));
        names
    }
}

fn attention_params(spec: &ModelSpec, index: usize) -> AttentionParams {
    let layer = &spec.layers[index];
    AttentionParams {
        layer: index as u32,
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        rope: layer.rope,
        scale: layer.scale,
        window_tokens: layer.window_tokens,
        softcap: layer.softcap,
        norm_eps: spec.norm_eps,
    }
}

/// See [`EmbeddingScale`].
fn scale_of(spec: &ModelSpec, stored: DType) -> f32 {
    match (spec.embedding_scale, stored) {
        (EmbeddingScale::One, _) => 1.0,
        (EmbeddingScale::SqrtHidden, DType::BF16) => {
            half::bf16::from_f32((spec.hidden_size as f32).sqrt()).to_f32()
        }
        (EmbeddingScale::SqrtHidden, _) => (spec.hidden_size as f32).sqrt(),
    }
}
