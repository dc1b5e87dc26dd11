//! Architectures, written once: specs, weights, the forward, the runner.
