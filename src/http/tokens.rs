//! `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer;
use super::ask::{check_model, token_ids};
use super::error::ApiError;
use super::fields::{Fields, missing, wrong_value};
use super::logprobs::shown;
use super::messages;
use super::parameters::{DETOKENIZE, TOKENIZE};
use super::prompt::{self, Source};
use super::route::{Answer, Call};

/// `POST /tokenize` of a `prompt` or of `messages`: exactly the ids that the generating routes
/// would schedule.
pub(super) async fn tokenize(mut call: Call) -> Answer {
    let (state, allowance) = (Arc::clone(&call.state), call.allowance());
    let mut fields = Fields::new(call.json().await?, "", &[TOKENIZE])?;
    check_model(&mut fields, &allowance)?;
    let with_strings = fields.boolean("return_token_strs")?.unwrap_or(false);
    let add_special_tokens = fields.boolean("add_special_tokens")?;
    let (source, param) = match fields.string("prompt", usize::MAX)? {
        Some(text) => {
            for name in [
                "messages",
                "add_generation_prompt",
                "continue_final_message",
                "chat_template_kwargs",
            ] {
                if fields.any(name).is_some() {
                    let says = "it does not go together with 'prompt'";
                    return Err(wrong_value(name.to_owned(), says).into());
                }
            }
            let add_special_tokens = add_special_tokens.unwrap_or(true);
            (Source::Text { text, add_special_tokens }, "prompt")
        }
        None if add_special_tokens == Some(true) => {
            let says = "the template adds them to messages";
            return Err(wrong_value("add_special_tokens".to_owned(), says).into());
        }
        None => {
            let chat = messages::read(&mut fields, &state.limits, state.clock.unix_s())?;
            (Source::Chat(Box::new(chat)), "messages")
        }
    };
    fields.finish();
    let encoded = prompt::encode(&allowance, vec![source], param).await?.remove(0);
    let tokens: Vec<u32> = encoded.tokens.iter().map(|token| token.0).collect();
    let string = |token| shown(&state.text.token_bytes(token)).into_owned();
    let strings: Option<Vec<String>> =
        with_strings.then(|| encoded.tokens.iter().copied().map(string).collect());
    Ok(answer::json(&json!({
        "count": tokens.len(),
        "max_model_len": allowance.context().tokens,
        "tokens": tokens,
        "token_strs": strings,
    })))
}

/// `POST /detokenize`: the text of `tokens`, special ones included.
pub(super) async fn detokenize(mut call: Call) -> Answer {
    let (state, allowance) = (Arc::clone(&call.state), call.allowance());
    let mut fields = Fields::new(call.json().await?, "", &[DETOKENIZE])?;
    check_model(&mut fields, &allowance)?;
    let items = fields.array("tokens", usize::MAX)?.ok_or_else(|| missing("tokens".to_owned()))?;
    fields.finish();
    let tokens = token_ids(items, "tokens", state.text.vocab_size())?;
    let text = Arc::clone(&state.text);
    let prompt = state.cpu.run(move || text.decode(&tokens, false)).await?;
    let prompt = prompt.map_err(|error| ApiError::Text { param: "tokens", error })?;
    Ok(answer::json(&json!({ "prompt": prompt })))
}

/// `GET /tokenizer_info`: the tokenizer's settings, which hold its chat template.
pub(super) async fn info(call: Call) -> Answer {
    Ok(answer::json(&Value::Object(call.state.text.info())))
}
