//! From a checked request to tokens: templates and tokenizing in the pool, so that they never
//! hold up a socket.

use std::sync::Arc;

use super::allowance::{Allowance, ContextLimit};
use super::error::ApiError;
use crate::ids::TokenId;
use crate::text::{ChatInput, Text};

/// A prompt as a request gives it.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Messages, for the chat template.
    Chat(Box<ChatInput>),
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Whether the tokenizer adds its special tokens (a BOS, for most).
        add_special_tokens: bool,
    },
    /// Tokens.
    Tokens(Vec<TokenId>),
}

/// A prompt in both forms.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    /// What the model sees, as text.
    pub(super) text: String,
    /// Exactly what is scheduled.
    pub(super) tokens: Arc<[TokenId]>,
}

/// Encodes prompts. `param` names the parameter they came from.
///
/// # Errors
/// [`ApiError::Text`], [`ApiError::ContextLength`] for texts that are too long whatever their
/// tokens, [`ApiError::Pool`].
pub(super) async fn encode(
    allowance: &Allowance,
    sources: Vec<Source>,
    param: &'static str,
) -> Result<Vec<Encoded>, ApiError> {
    let (state, limit) = (allowance.state(), allowance.context());
    let text = Arc::clone(&state.text);
    let work = move || {
        let encode = |source| encode_one(&text, source, &limit, param);
        sources.into_iter().map(encode).collect()
    };
    state.cpu.run(work).await?
}

fn encode_one(
    text: &Text,
    source: Source,
    limit: &ContextLimit,
    param: &'static str,
) -> Result<Encoded, ApiError> {
    let failed = |error| ApiError::Text { param, error };
    // Text that is far too long is refused before time is spent on its tokens (R15).
    let check = |bytes: usize| {
        let prompt = u32::try_from(text.min_tokens(bytes)).unwrap_or(u32::MAX);
        if prompt > limit.tokens {
            Err(ApiError::from(limit.exceeded(prompt, 1, param)))
        } else {
            Ok(())
        }
    };
    let (text, tokens) = match source {
        Source::Chat(chat) => {
            let rendered = text.render(&chat).map_err(failed)?;
            let shown = rendered.text();
            check(shown.len())?;
            (shown, text.encode_rendered(&rendered).map_err(failed)?)
        }
        Source::Text { text: prompt, add_special_tokens } => {
            check(prompt.len())?;
            let tokens = text.encode(&prompt, add_special_tokens).map_err(failed)?;
            (prompt, tokens)
        }
        Source::Tokens(tokens) => {
            // Ids between the tokenizer's vocabulary and the model's rows have no text.
            let known: Vec<TokenId> =
                tokens.iter().copied().filter(|id| id.0 < text.vocab_size()).collect();
            (text.decode(&known, false).map_err(failed)?, tokens)
        }
    };
    Ok(Encoded { text, tokens: tokens.into() })
}
