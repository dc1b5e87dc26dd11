//! Hugging Face tensor names and their GGUF counterparts, for each family. The GGUF names are those
//! of `gguf-py/gguf/tensor_mapping.py` in llama.cpp.

use super::family::Family;

/// Names outside the layers.
const ROOT: Table =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
const ATTENTION: Table = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];
const PLAIN_NORMS: Table = &[("post_attention_layernorm", "ffn_norm")];
const SANDWICH_NORMS: Table = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const GATED: Table =
    &[("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const FUSED_GATED: Table = &[("mlp.gate_up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const QWEN_ROUTER: Table = &[("mlp.gate", "ffn_gate_inp")];
const MIXTRAL_ROUTER: Table = &[("block_sparse_moe.gate", "ffn_gate_inp")];
const QWEN_EXPERTS: Experts = Experts {
    block: "mlp.experts",
    parts: &[("gate_proj", "ffn_gate"), ("up_proj", "ffn_up"), ("down_proj", "ffn_down")],
};
const MIXTRAL_EXPERTS: Experts = Experts {
    block: "block_sparse_moe.experts",
    parts: &[("w1", "ffn_gate"), ("w3", "ffn_up"), ("w2", "ffn_down")],
};

/// Pairs of a Hugging Face and a GGUF module name.
type Table = &'static [(&'static str, &'static str)];

/// How experts are named: `{block}.{expert}.{part}` here, `{part}_exps` there.
struct Experts {
    block: &'static str,
    parts: Table,
}

/// Translates names for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameMap {
    family: Family,
}

/// Where a tensor is in a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The tensor's GGUF name.
    pub tensor: String,
    /// The expert, when that tensor has all experts of a layer along its outermost dimension.
    pub expert: Option<usize>,
}

impl NameMap {
    pub(super) fn new(family: Family) -> Self {
        Self { family }
    }

    /// Where the tensor of this Hugging Face name is; `None` when the family has no such tensor.
    pub fn place(&self, name: &str) -> Option<Place> {
        let (module, part) = split_part(name)?;
        if let Some(gguf) = there(ROOT, module) {
            return Some(Place { tensor: format!("{gguf}.{part}"), expert: None });
        }
        let (layer, inside) = module.strip_prefix("model.layers.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        if let Some(gguf) = self.tables().iter().find_map(|table| there(table, inside)) {
            return Some(Place { tensor: format!("blk.{layer}.{gguf}.{part}"), expert: None });
        }
        let experts = self.experts()?;
        let (expert, inside) =
            inside.strip_prefix(experts.block)?.strip_prefix('.')?.split_once('.')?;
        let gguf = there(experts.parts, inside)?;
        let tensor = format!("blk.{layer}.{gguf}_exps.{part}");
        Some(Place { tensor, expert: Some(expert.parse().ok()?) })
    }

    /// The name of one expert's tensor in files made before experts were stacked (early 2024).
    pub(super) fn single_expert(place: &Place) -> Option<String> {
        let (stacked, part) = place.tensor.rsplit_once("_exps.")?;
        Some(format!("{stacked}.{}.{part}", place.expert?))
    }

    /// The Hugging Face names of what a GGUF tensor holds: one name, or one for each of `outer`
    /// experts; the GGUF name itself when the family has no such tensor.
    pub fn hugging_face(&self, tensor: &str, outer: usize) -> Vec<String> {
        self.back(tensor, outer).unwrap_or_else(|| vec![tensor.to_owned()])
    }

    fn back(&self, tensor: &str, outer: usize) -> Option<Vec<String>> {
        let (module, part) = split_part(tensor)?;
        if let Some(name) = here(ROOT, module) {
            return Some(vec![format!("{name}.{part}")]);
        }
        let (layer, inside) = module.strip_prefix("blk.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        if let Some(name) = self.tables().iter().find_map(|table| here(table, inside)) {
            return Some(vec![format!("model.layers.{layer}.{name}.{part}")]);
        }
        let experts = self.experts()?;
        let block = experts.block;
        let name = |expert: usize, inner: &str| {
            format!("model.layers.{layer}.{block}.{expert}.{inner}.{part}")
        };
        if let Some(stacked) = inside.strip_suffix("_exps") {
            let inner = here(experts.parts, stacked)?;
            return Some((0..outer).map(|expert| name(expert, inner)).collect());
        }
        let (single, expert) = inside.rsplit_once('.')?;
        Some(vec![name(expert.parse().ok()?, here(experts.parts, single)?)])
    }

    fn tables(&self) -> &'static [Table] {
        match self.family {
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => {
                &[ATTENTION, PLAIN_NORMS, GATED]
            }
            Family::Mixtral => &[ATTENTION, PLAIN_NORMS, MIXTRAL_ROUTER],
            Family::Qwen3Moe => &[ATTENTION, PLAIN_NORMS, GATED, QWEN_ROUTER],
            Family::Gemma2 | Family::Gemma3 => &[ATTENTION, SANDWICH_NORMS, GATED],
            Family::Phi3 => &[ATTENTION, PLAIN_NORMS, FUSED_GATED],
        }
    }

    fn experts(&self) -> Option<&'static Experts> {
        match self.family {
            Family::Mixtral => Some(&MIXTRAL_EXPERTS),
            Family::Qwen3Moe => Some(&QWEN_EXPERTS),
            _ => None,
        }
    }
}

/// Splits off the last part, which has to be `weight` or `bias`.
fn split_part(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, part)| matches!(*part, "weight" | "bias"))
}

fn there(table: Table, name: &str) -> Option<&'static str> {
    table.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs)
}

fn here(table: Table, name: &str) -> Option<&'static str> {
    table.iter().find(|(_, theirs)| *theirs == name).map(|(ours, _)| *ours)
}
