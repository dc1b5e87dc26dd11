//! What a server answers, read for what is measured and no more: a chunk's text is looked at, not
//! kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A streamed chunk, or a whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// What the choices hold together.
    #[serde(deserialize_with = "or_default")]
    pub choices: Choices,
    /// Counts; in a stream usually in the last chunk only.
    pub usage: Option<Usage>,
    /// Present when this is an error.
    pub error: Option<ErrorBody>,
}

/// What the choices of an answer hold together.
#[derive(Debug, Default)]
pub struct Choices {
    /// Some content, reasoning or tool text that is not empty.
    pub has_text: bool,
    /// The first choice's.
    pub finish_reason: Option<String>,
}

/// `usage`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u32>,
    /// More about the prompt's.
    pub prompt_tokens_details: Option<PromptDetails>,
}

/// `usage.prompt_tokens_details`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PromptDetails {
    /// Of the prompt's tokens from a cache.
    pub cached_tokens: Option<u32>,
}

/// An error's code and sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// `code`, else `type`.
    pub code: Option<String>,
    /// `message`.
    pub message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    #[serde(deserialize_with = "or_default")]
    delta: Delta,
    #[serde(deserialize_with = "or_default")]
    message: Delta,
    text: Text,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Text,
    reasoning_content: Text,
    reasoning: Text,
    refusal: Text,
    tool_calls: Text,
}

/// Whether a value is a string, or a list, with something in it.
#[derive(Clone, Copy, Default)]
struct Text(bool);

impl Delta {
    fn has_text(&self) -> bool {
        [self.content, self.reasoning_content, self.reasoning, self.refusal, self.tool_calls]
            .iter()
            .any(|text| text.0)
    }
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fold;
        impl<'de> Visitor<'de> for Fold {
            type Value = Choices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices, A::Error> {
                let mut all = Choices::default();
                while let Some(choice) = seq.next_element::<Choice>()? {
                    all.has_text |=
                        choice.text.0 || choice.delta.has_text() || choice.message.has_text();
                    all.finish_reason = all.finish_reason.or(choice.finish_reason);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Fold)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list, or null")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(!text.is_empty()))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text(false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                let mut some = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    some = true;
                }
                Ok(Text(some))
            }
        }
        deserializer.deserialize_any(Look)
    }
}

impl<'de> Deserialize<'de> for ErrorBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = ErrorBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error object or sentence")
            }

            fn visit_str<E>(self, text: &str) -> Result<ErrorBody, E> {
                Ok(ErrorBody { code: None, message: Some(text.to_owned()) })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ErrorBody, A::Error> {
                let mut body = ErrorBody::default();
                let mut kind = None;
                while let Some(key) = map.next_key::<String>()? {
                    let value: serde_json::Value = map.next_value()?;
                    match key.as_str() {
                        "code" => body.code = word(&value),
                        "type" => kind = word(&value),
                        "message" => body.message = word(&value),
                        _ => {}
                    }
                }
                body.code = body.code.or(kind);
                Ok(body)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The error that a body tells, in any of the shapes that servers use.
pub fn error_of(body: &[u8]) -> ErrorBody {
    #[derive(Deserialize)]
    struct Wrapped {
        error: ErrorBody,
    }
    if let Ok(wrapped) = serde_json::from_slice::<Wrapped>(body) {
        return wrapped.error;
    }
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(bare) if bare != ErrorBody::default() => bare,
        _ => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
            ErrorBody { code: None, message: (!text.is_empty()).then_some(text) }
        }
    }
}

fn word(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_text(json: &str) -> bool {
        serde_json::from_str::<Answer>(json).unwrap().choices.has_text
    }

    #[test]
    fn content_reasoning_and_tool_text_count_and_empty_ones_do_not() {
        assert!(has_text(r#"{"choices":[{"index":0,"delta":{"content":" a"}}]}"#));
        assert!(has_text(
            r#"{"choices":[{"delta":{"content":null,"reasoning_content":"\u00e9"}}]}"#
        ));
        assert!(has_text(r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#));
        assert!(has_text(r#"{"choices":[{"text":"x","logprobs":null}]}"#));
        assert!(has_text(r#"{"choices":[{"message":{"role":"assistant","content":"x"}}]}"#));
        assert!(!has_text(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#));
        assert!(!has_text(r#"{"choices":[{"delta":null,"text":null}],"usage":null}"#));
        assert!(!has_text(r#"{"choices":null}"#));
        assert!(!has_text(r#"{"choices":[]}"#));
    }

    #[test]
    fn usage_and_finish_reason_are_read() {
        let json = r#"{"choices":[{"delta":{},"finish_reason":"length"}],"usage":{"prompt_tokens":7,
            "completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
        let answer: Answer = serde_json::from_str(json).unwrap();
        assert_eq!(answer.choices.finish_reason.as_deref(), Some("length"));
        let usage = answer.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (Some(7), Some(3)));
        assert_eq!(usage.prompt_tokens_details.unwrap().cached_tokens, Some(4));
    }

    #[test]
    fn errors_come_in_many_shapes() {
        let told = |code: Option<&str>, message: &str| ErrorBody {
            code: code.map(str::to_owned),
            message: Some(message.to_owned()),
        };
        let openai = br#"{"error":{"message":"full","type":"t","param":null,"code":"queue_full"}}"#;
        assert_eq!(error_of(openai), told(Some("queue_full"), "full"));
        let without_code = br#"{"error":{"message":"full","type":"overloaded","code":null}}"#;
        assert_eq!(error_of(without_code), told(Some("overloaded"), "full"));
        let vllm_old = br#"{"object":"error","message":"too long","type":"BadRequest","code":400}"#;
        assert_eq!(error_of(vllm_old), told(Some("400"), "too long"));
        assert_eq!(error_of(br#"{"error":"down"}"#), told(None, "down"));
        assert_eq!(error_of(b"<html>Bad Gateway"), told(None, "<html>Bad Gateway"));
    }
}
