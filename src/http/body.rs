//! Request bodies: capped, declared as JSON, and parsed into a tree that has one reading only.

use std::fmt;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::BodyError;
use super::listener::SlowBody;
use crate::config::RequestLimits;

/// Values in one body: a tree takes some forty times the bytes of its text at worst.
const VALUES_MAX: u32 = 1 << 20;

/// Checks the declared type and collects the body.
///
/// # Errors
/// [`BodyError`].
pub(super) async fn collect(
    headers: &HeaderMap,
    mut body: Body,
    limits: &RequestLimits,
) -> Result<Bytes, BodyError> {
    check_media_type(headers)?;
    let limit = limits.body_bytes_max;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > limit as u64) {
        return Err(BodyError::TooLarge { limit });
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        // Most bodies come in one piece, which is then used as it is.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Parses a body into the fields of a JSON object. Keys that occur twice are refused: which of
/// two values counts differs from reader to reader, and a proxy in front may check the other one.
///
/// # Errors
/// [`BodyError`].
pub(super) fn parse(bytes: &[u8], limits: &RequestLimits) -> Result<Map<String, Value>, BodyError> {
    let mut values_left = VALUES_MAX;
    let tree = Tree { depth_left: limits.json_depth_max, values_left: &mut values_left };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = tree
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| BodyError::Json(error.to_string()))?;
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(BodyError::NotObject(type_name(&other))),
    }
}

/// The JSON type of a value, for messages.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), BodyError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(BodyError::MediaType("absent".to_owned()));
    };
    let value = value.to_str().unwrap_or("unreadable");
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media == "application/json"
        || (media.starts_with("application/") && media.ends_with("+json"));
    if is_json { Ok(()) } else { Err(BodyError::MediaType(media.chars().take(100).collect())) }
}

fn broken(error: &axum::Error) -> BodyError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<SlowBody>() {
            return BodyError::Slow;
        }
        source = error.source();
    }
    BodyError::Broken
}

/// Builds a [`Value`] with bounds on depth and number of values, and without repeated keys.
struct Tree<'a> {
    depth_left: usize,
    values_left: &'a mut u32,
}

impl Tree<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<Tree<'_>, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Tree { depth_left, values_left: self.values_left }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.values_left.checked_sub(1) {
            Some(left) => *self.values_left = left,
            None => return Err(D::Error::custom(format!("more than {VALUES_MAX} values"))),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(value) = items.next_element_seed(inner.again())? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format!("the key `{key}` occurs twice")));
            }
            let value = entries.next_value_seed(inner.again())?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

impl Tree<'_> {
    fn again(&mut self) -> Tree<'_> {
        Tree { depth_left: self.depth_left, values_left: self.values_left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Map<String, Value>, BodyError> {
        parse(text.as_bytes(), &RequestLimits { json_depth_max: 3, ..RequestLimits::default() })
    }

    #[test]
    fn a_tree_equals_serde_jsons_own() {
        let text = r#"{"a":[1,-2,3.5,"x",null,true],"b":{"c":18446744073709551615}}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(parsed(text).unwrap()), expected);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, says) in [
            (r#"{"n":1,"n":2}"#, "`n` occurs twice"),
            (r#"{"a":{"b":1,"b":1}}"#, "`b` occurs twice"),
            (r#"{"a":[[[1]]]}"#, "nested too deeply"),
            (r#"{"a":1} x"#, "line 1 column 9"),
            ("{\"a\":\n 1,}", "line 2 column 4"),
            ("", "line 1 column 0"),
            ("{\"a\":\"\u{1}\"}", "control character"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert_eq!(parsed("[1]"), Err(BodyError::NotObject("an array")));
    }

    #[test]
    fn a_tree_has_a_bounded_number_of_values() {
        let text = format!("{{\"a\":[{}0]}}", "0,".repeat(VALUES_MAX as usize));
        let error = parsed(&text).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }
}
