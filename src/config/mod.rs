//! Settings: raw flags and file in, one checked value out, immutable afterwards.

mod limits;

pub use limits::{ListenerLimits, RequestLimits};
