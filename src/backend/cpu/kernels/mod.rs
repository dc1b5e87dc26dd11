//! Kernels: what runs on one thread, written once over [`simd::Simd`] and compiled for each
//! instruction set that a CPU may have.
#![allow(unsafe_code, reason = "functions that enable instructions may only run where they exist")]

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
mod formats;
mod math;
mod portable;
mod product;
mod simd;

pub(super) use attention::{Softmax, SoftmaxState, WeighValues};
pub(super) use elementwise::{
    Activate, AddInto, Argmax, Largest, Norm, NormWeight, Softcap, SumExp, Weigh,
};
pub(super) use formats::{Format, WithFormat, with_format};
pub(super) use product::{
    DotRows, FillPanel, MultiplyPanel, Out, PANEL_ROWS, PANEL_STRIDE, SECTION, Weights,
};
pub(super) use simd::{CHUNK, Kernel};

/// The instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// AVX-512 F, BW, VL.
    Avx512,
    /// AVX2, FMA, F16C.
    Avx2,
    /// What every CPU of the architecture has.
    Portable,
}

/// An instruction set that this CPU was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSet(Instructions);

impl KernelSet {
    /// All that this CPU has, the best first.
    pub fn available() -> Vec<KernelSet> {
        [Instructions::Avx512, Instructions::Avx2, Instructions::Portable]
            .into_iter()
            .filter(|&i| is_available(i))
            .map(KernelSet)
            .collect()
    }

    /// The best that this CPU has.
    pub fn best() -> KernelSet {
        Self::available().first().copied().unwrap_or(KernelSet(Instructions::Portable))
    }

    /// Which it is.
    pub fn instructions(self) -> Instructions {
        self.0
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a `KernelSet` is only made for instructions that the CPU has.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { avx2::run(kernel) },
            _ => kernel.run(portable::Portable),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_available(instructions: Instructions) -> bool {
    match instructions {
        Instructions::Avx512 => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_available(Instructions::Avx2)
        }
        Instructions::Avx2 => {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        }
        Instructions::Portable => true,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn is_available(instructions: Instructions) -> bool {
    instructions == Instructions::Portable
}
