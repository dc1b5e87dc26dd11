//! The deterministic simulator: gate, ledger, scheduler and clients in one thread, from a seed.

pub mod books;
pub mod chance;
pub mod client;
pub mod overload;
pub mod setup;
pub mod swarm;
pub mod tally;
pub mod traffic;
pub mod world;
