//! The conformance suite for every instruction set that this machine has, and what only the CPU
//! backend promises.

use std::num::NonZeroUsize;

use super::*;
use crate::backend::conformance::{attention, elementwise, matrix, sampling};

fn backend(kernels: KernelSet, threads: usize) -> CpuBackend {
    let threads = NonZeroUsize::new(threads).expect("not zero");
    CpuBackend::new(&CpuOptions { threads, kernels, ..CpuOptions::default() }).expect("a backend")
}

/// Runs a check with every instruction set, each with its own number of threads.
fn each(check: impl Fn(&CpuBackend)) {
    for (kernels, threads) in KernelSet::available().into_iter().zip([2, 3, 1]) {
        check(&backend(kernels, threads));
    }
}

macro_rules! conforms {
    ($($name:ident: $check:path;)*) => {
        $(#[test]
        fn $name() {
            each($check);
        })*
    };
}

conforms! {
    embed: matrix::embed;
    blocks_are_what_gguf_says: matrix::blocks_are_what_gguf_says;
    linear: matrix::linear;
    linear_is_batch_invariant: matrix::linear_is_batch_invariant;
    weights_of_a_wrong_shape_are_refused: matrix::weights_of_a_wrong_shape_are_refused;
    moe: matrix::moe;
    norms: elementwise::norms;
    activations: elementwise::activations;
    softcap: elementwise::softcap;
    take_rows: elementwise::take_rows;
    attention: attention::attention;
    long_contexts: attention::long_contexts;
    copy_blocks: attention::copy_blocks;
    greedy: sampling::greedy;
    not_finite: sampling::not_finite;
    distributions: sampling::distributions;
    draws_are_batch_invariant: sampling::draws_are_batch_invariant;
    logprobs: sampling::logprobs;
    scores: sampling::scores;
    slots_remember: sampling::slots_remember;
}

#[test]
fn what_exceeds_memory_is_refused_with_a_remedy() {
    let kernels = KernelSet::best();
    let available_bytes: fn() -> Option<u64> = || Some(1 << 20);
    let threads = NonZeroUsize::MIN;
    let backend =
        CpuBackend::new(&CpuOptions { threads, kernels, available_bytes }).expect("a backend");
    let shape = KvShape {
        layers: 2,
        blocks: 16,
        block_size_tokens: 16,
        kv_heads: 2,
        head_dim: 64,
        dtype: crate::backend::DType::F16,
    };
    assert!(backend.kv_cache(&shape).is_ok());
    let large = KvShape { blocks: 65_536, ..shape };
    let impossible =
        KvShape { layers: u32::MAX, blocks: u32::MAX, block_size_tokens: u32::MAX, ..shape };
    for shape in [large, impossible] {
        let error = backend.kv_cache(&shape).expect_err("too large");
        assert!(matches!(error, BackendError::Memory { .. }), "{error}");
        assert!(error.to_string().contains("--kv-cache-dtype"), "{error}");
    }
    assert!(matches!(backend.rows(u32::MAX, u32::MAX), Err(BackendError::Memory { .. })));
    assert!(backend.rows(4, 4).is_ok());
}
