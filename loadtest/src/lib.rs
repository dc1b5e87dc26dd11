//! `loadtest`: a load generator for OpenAI-compatible servers. It speaks only HTTP.
//!
//! The road of a run: a *profile* and the command line make a [`plan::Plan`], in which every
//! request and its time are drawn from the seed before the start; the driver carries the plan out
//! and writes a [`record::RequestRecord`] for each request; [`summary::Summary`] is computed from
//! the plan and the records alone, and every report from these.
//!
//! `loadtest/README.md` has the definitions of what is measured.

pub mod clock;
pub mod live;
pub mod plan;
pub mod record;
pub mod report;
pub mod summary;
