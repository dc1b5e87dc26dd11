//! The thread around the engine.
