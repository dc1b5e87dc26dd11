//! Cancellation in every state.
