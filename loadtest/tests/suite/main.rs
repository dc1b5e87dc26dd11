//! What `loadtest` promises, held against a server that knows the truth.
#![allow(
    dead_code,
    unused_imports,
    reason = "the example uses parts of the paced server that no test does"
)]
#![allow(unreachable_pub, reason = "modules of a test are public to each other only")]
#![allow(clippy::unwrap_used, reason = "a test may end with a panic")]

#[path = "../paced/mod.rs"]
mod paced;

mod accuracy;
mod bad_input;
mod generator;
mod paced_server;
mod readme;
mod retries;
