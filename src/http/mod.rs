//! Bytes to typed requests and back: HTTP and OpenAI's JSON; nothing of tensors.
