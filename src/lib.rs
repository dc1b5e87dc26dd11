#![doc = include_str!("ARCHITECTURE.md")]

// The rooms, top to bottom. A room uses only rooms below it; `tests/tidy.rs` holds the table.
pub mod serve;

pub mod http;
pub mod text;

pub mod gate;

pub mod engine;

pub mod model;

pub mod device;

pub mod backend;

// Base: settings, names of things, time, counters. Every room may use these, and they use no room.
pub mod clock;
pub mod config;
pub mod ids;
pub mod metrics;
