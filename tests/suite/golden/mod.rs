//! Every model family against the reference's logits and greedy tokens, through the real paged
//! path: the runner as a [`weir::device::Device`], steps as the scheduler would make them.
//!
//! "Relative" means: the largest |found - expected| of a row over the largest |expected| of the
//! matrix, as the fixtures' README defines it.

mod batch;
mod demo;
mod driver;
mod fixture;
mod gguf;
mod greedy;
mod logits;
mod opening;
mod scheduled;
