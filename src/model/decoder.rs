//! The forward pass: every supported architecture, on every backend.

use super::parameters::{Layer, Mlp, Parameters};
use super::scratch::Scratch;
use super::spec::ModelSpec;
use crate::backend::Backend;

/// A model: what it is and its weights.
pub(super) struct Decoder<B: Backend> {
    /// What it is.
    pub(super) spec: ModelSpec,
    /// Its weights.
    pub(super) parameters: Parameters<B>,
}

impl<B: Backend> Decoder<B> {
    /// Runs the uploaded rows through all layers. K and V of each row are in `kv` afterwards, and
    /// `scratch.normed [T, H]` holds what the output projection reads.
    pub(super) fn forward(
        &self,
        backend: &B,
        batch: &B::Batch,
        kv: &mut B::Kv,
        s: &mut Scratch<B>,
    ) {
        let (w, kind, eps) = (&self.parameters, self.spec.norm, self.spec.norm_eps);
        backend.embed(batch, &w.embedding, w.embedding_scale, &mut s.residual);
        let norm_after =
            |index: usize| w.layers.get(index).map_or(&w.final_norm, |l| &l.input_norm);
        backend.rms_norm(&s.residual, norm_after(0), kind, eps, &mut s.normed);
        for (index, layer) in w.layers.iter().enumerate() {
            self.attention(backend, layer, batch, kv, s);
            self.add_and_norm(backend, layer.attention_norm.as_ref(), &layer.mlp_norm, s);
            self.feed_forward(backend, layer, s);
            self.add_and_norm(backend, layer.mlp_output_norm.as_ref(), norm_after(index + 1), s);
        }
    }

    /// Logits of the samples `first..first + count` of the uploaded plan, in `s.logits`.
    pub(super) fn logits(
        &self,
        backend: &B,
        batch: &B::Batch,
        first: u32,
        count: u32,
        s: &mut Scratch<B>,
    ) {
        backend.take_rows(batch, first, count, &s.normed, &mut s.sampled);
        backend.linear(&s.sampled, self.parameters.head(), &mut s.logits);
        if let Some(cap) = self.spec.final_softcap {
            backend.softcap(&mut s.logits, cap);
        }
    }

    /// `branch = attention(normed)`.
    fn attention(
        &self,
        backend: &B,
        layer: &Layer<B>,
        batch: &B::Batch,
        kv: &mut B::Kv,
        s: &mut Scratch<B>,
    ) {
        let norms = layer.qk_norms.as_ref().map(|(q, k)| (q, k, self.spec.norm));
        backend.linear(&s.normed, &layer.qkv, &mut s.qkv);
        backend.rope_store_kv(batch, &layer.attention, norms, &mut s.qkv, kv);
        backend.attend(batch, &layer.attention, &s.qkv, kv, &mut s.attended);
        backend.linear(&s.attended, &layer.output, &mut s.branch);
    }

    /// `branch = feed_forward(normed)`.
    fn feed_forward(&self, backend: &B, layer: &Layer<B>, s: &mut Scratch<B>) {
        match &layer.mlp {
            Mlp::Dense { gate_up, down } => {
                let dense = s.dense.as_mut().expect("scratch has what the spec's layers need");
                backend.linear(&s.normed, gate_up, &mut dense.gate_up);
                backend.gated_activation(self.spec.activation, &dense.gate_up, &mut dense.gated);
                backend.linear(&dense.gated, down, &mut s.branch);
            }
            Mlp::Moe { params, weights } => {
                backend.moe(params, weights, &s.normed, &mut s.branch);
            }
        }
    }

    /// `residual += norm_of_output(branch)`, `normed = norm_of_next(residual)`.
    fn add_and_norm(
        &self,
        backend: &B,
        output: Option<&B::Vector>,
        next: &B::Vector,
        s: &mut Scratch<B>,
    ) {
        let (kind, eps) = (self.spec.norm, self.spec.norm_eps);
        let added = match output {
            None => &s.branch,
            Some(weight) => {
                let out = s.sandwiched.as_mut().expect("scratch has what the spec's norms need");
                backend.rms_norm(&s.branch, weight, kind, eps, out);
                out
            }
        };
        backend.add_rms_norm(&mut s.residual, added, next, kind, eps, &mut s.normed);
    }
}
