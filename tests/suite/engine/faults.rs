//! Device faults and panics.
