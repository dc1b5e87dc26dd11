//! The deterministic simulator: gate, ledger, scheduler and clients in one thread, from a seed.
#![allow(dead_code, reason = "the suite and the bench each use a part of it")]

pub mod books;
pub mod chance;
pub mod client;
pub mod overload;
pub mod setup;
pub mod swarm;
pub mod tally;
pub mod traffic;
pub mod world;
