//! `loadtest`: a load generator for OpenAI-compatible servers. It speaks only HTTP.
//!
//! The road of a run: a *profile* and the command line make a [`plan::Plan`], in which every
//! request and its time are drawn from the seed before the start; the driver carries the plan out
//! and writes a [`record::RequestRecord`] for each request; [`summary::Summary`] is computed from
//! the plan and the records alone, and every report from these.
//!
//! | Step | Modules |
//! |---|---|
//! | what is asked for | [`cli`], [`profile`], [`settings`] |
//! | what will be sent | [`arrivals`], [`lengths`], [`traces`], [`schedule`], [`plan`] |
//! | is the server there | [`setup`] |
//! | when it is sent | [`driver`], [`progress`], [`live`] |
//! | one request | [`client`], [`retry`], [`exchange`], [`target`], [`prompt`], [`connection`] |
//! | its answer | [`sse`], [`answer`], [`record`], [`recorder`] |
//! | the figures | [`measure`], [`distribution`], [`validity`], [`summary`], [`report`] |
//! | several runs | [`run`], [`sweep`], [`compare`] |
//!
//! `loadtest/README.md` has the definitions of what is measured.

pub mod answer;
pub mod arrivals;
pub mod cli;
pub mod client;
pub mod clock;
pub mod compare;
pub mod connection;
pub mod distribution;
pub mod driver;
pub mod error;
pub mod exchange;
pub mod lengths;
pub mod live;
pub mod measure;
pub mod plan;
pub mod profile;
pub mod progress;
pub mod prompt;
pub mod randomness;
pub mod record;
pub mod recorder;
pub mod report;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod setup;
pub mod sse;
pub mod summary;
pub mod sweep;
pub mod target;
pub mod traces;
pub mod validity;
