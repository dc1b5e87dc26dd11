//! The suite: tests through the rooms' public boundaries, one binary.
#![allow(clippy::unwrap_used)]

mod engine;
mod fuzz;
mod golden;
mod http;
mod ledger;
mod live;
mod rng;
mod sim;
mod simulation;
mod source;
mod text;
mod weights;
