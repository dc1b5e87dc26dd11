"""A lean Llama for training on a CPU: the same arithmetic as `LlamaForCausalLM`, with fused
projections and bf16 activations, and a writer to the Hugging Face layout.

`transformers` is the oracle: `reference.py` loads what `save` writes and answers with it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn


@dataclass(frozen=True)
class Shape:
    """The sizes of the model; the names are those of `config.json`."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


def rope_tables(shape, length):
    """Cosines and sines, each [length, head_dim], in the half-split layout of Llama."""
    half = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    angles = torch.outer(torch.arange(length).float(), shape.rope_theta ** -half)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Apply the rotary embedding to x [batch, heads, tokens, head_dim]."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def attend(q, k, v):
    """Causal attention, q [batch, heads, tokens, head_dim], k and v with fewer heads.

    Spelt out, because for short rows its backward pass in bf16 is several times faster on a CPU
    than that of `scaled_dot_product_attention`.
    """
    batch, heads, tokens, size = q.shape
    groups = heads // k.shape[1]
    q = (q * size ** -0.5).reshape(batch * k.shape[1], groups * tokens, size)
    k, v = k.reshape(-1, tokens, size), v.reshape(-1, tokens, size)
    hidden = torch.full((tokens, tokens), float("-inf"), dtype=q.dtype).triu(1)
    scores = torch.bmm(q, k.transpose(1, 2)).view(-1, groups, tokens, tokens) + hidden
    weights = F.softmax(scores, dim=-1).view(-1, groups * tokens, tokens)
    return torch.bmm(weights, v).view(batch, heads, tokens, size)


class Layer(nn.Module):
    """One decoder layer: attention and gated MLP, each behind an RMS norm."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.q_size = s.num_attention_heads * s.head_dim
        self.kv_size = s.num_key_value_heads * s.head_dim
        self.norm1 = nn.Parameter(torch.ones(s.hidden_size))
        self.norm2 = nn.Parameter(torch.ones(s.hidden_size))
        self.qkv = nn.Linear(s.hidden_size, self.q_size + 2 * self.kv_size, bias=False)
        self.out = nn.Linear(self.q_size, s.hidden_size, bias=False)
        self.gate_up = nn.Linear(s.hidden_size, 2 * s.intermediate_size, bias=False)
        self.down = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x, cos, sin):
        s, (batch, tokens, _) = self.s, x.shape
        h = F.rms_norm(x, x.shape[-1:], self.norm1, s.rms_norm_eps)
        q, k, v = self.qkv(h).split((self.q_size, self.kv_size, self.kv_size), dim=-1)
        q, k, v = (t.view(batch, tokens, -1, s.head_dim).transpose(1, 2) for t in (q, k, v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(batch, tokens, self.q_size))
        h = F.rms_norm(x, x.shape[-1:], self.norm2, s.rms_norm_eps)
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Network(nn.Module):
    """Token ids [batch, tokens] to hidden states [batch, tokens, hidden_size]."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))
        residual = 0.02 / (2 * shape.num_hidden_layers) ** 0.5
        for name, p in self.named_parameters():
            if p.dim() == 2:
                narrow = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=residual if narrow else 0.02)

    def forward(self, ids):
        cos, sin = rope_tables(self.shape, ids.shape[1])
        x = self.embed(ids)
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.rms_norm(x, x.shape[-1:], self.norm, self.shape.rms_norm_eps)

    def loss(self, hidden, targets, weights):
        """Weighted cross entropy. targets and weights [batch, tokens]; zero weights cost
        nothing."""
        chosen = weights.reshape(-1).nonzero().squeeze(1)
        rows = hidden.reshape(-1, hidden.shape[-1])[chosen]
        logits = F.linear(rows, self.embed.weight).float()
        each = F.cross_entropy(logits, targets.reshape(-1)[chosen], reduction="none")
        w = weights.reshape(-1)[chosen]
        return (each * w).sum() / w.sum()

    def save(self, folder, eos_ids, pad_id):
        """config.json, generation_config.json and bf16 model.safetensors as Llama has them."""
        s, tensors = self.shape, {}
        tensors["model.embed_tokens.weight"] = self.embed.weight
        tensors["model.norm.weight"] = self.norm
        for i, layer in enumerate(self.layers):
            p = f"model.layers.{i}."
            q, k, v = layer.qkv.weight.split((layer.q_size, layer.kv_size, layer.kv_size))
            gate, up = layer.gate_up.weight.chunk(2)
            tensors |= {
                p + "input_layernorm.weight": layer.norm1,
                p + "post_attention_layernorm.weight": layer.norm2,
                p + "self_attn.q_proj.weight": q, p + "self_attn.k_proj.weight": k,
                p + "self_attn.v_proj.weight": v, p + "self_attn.o_proj.weight": layer.out.weight,
                p + "mlp.gate_proj.weight": gate, p + "mlp.up_proj.weight": up,
                p + "mlp.down_proj.weight": layer.down.weight}
        tensors = {k: t.detach().to(torch.bfloat16).contiguous().clone()
                   for k, t in tensors.items()}
        folder = Path(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(s),
            "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
            "hidden_act": "silu", "initializer_range": 0.02, "rope_scaling": None,
            "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
            "bos_token_id": pad_id, "eos_token_id": eos_ids[0], "pad_token_id": pad_id}
        generation = {
            "bos_token_id": pad_id, "eos_token_id": eos_ids, "pad_token_id": pad_id,
            "do_sample": True, "temperature": 0.7, "top_p": 0.95}
        for name, value in (("config", config), ("generation_config", generation)):
            (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
