//! The deterministic simulator: gate, ledger, scheduler and clients in one thread, from a seed.

pub mod chance;
pub mod overload;
pub mod tally;
pub mod traffic;
pub mod world;
