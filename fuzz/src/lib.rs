//! What is fuzzed: one plain function for each target, which takes any bytes and must neither
//! panic nor break what it says. `cargo fuzz` calls them through `fuzz_targets/`, and
//! `tests/suite/fuzz.rs` calls them with seeded mutations of good inputs.

#![allow(missing_docs)]

pub mod chat_request;
pub mod ledger;
pub mod model_files;
#[allow(dead_code)]
#[path = "../../tests/suite/http/rig.rs"]
mod rig;
pub mod template;
