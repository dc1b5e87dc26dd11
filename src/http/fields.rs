//! Reading a JSON object field by field: lenient in what means nothing (null, defaults), exact in
//! what it refuses. Every mistake names the parameter's path.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::body::type_name;
use super::error::{Fault, Invalid};

/// A documented field and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// It has its documented effect.
    Obeyed,
    /// Only values that ask for nothing are taken.
    Refused {
        /// These.
        unless: Unless,
        /// Why it is refused and what to do instead; ends the message.
        why: &'static str,
    },
}

/// Values of a refused field that ask for nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unless {
    /// Only null.
    Null,
    /// An empty array, object or string.
    Empty,
    /// This boolean.
    Bool(bool),
    /// This integer.
    Integer(i64),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An object whose `type` is this.
    Type(&'static str),
    /// An array of this one string.
    Only(&'static str),
}

/// An object's fields that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Path of the object inside the body; empty for the body itself.
    path: String,
}

/// A field that is obeyed.
pub(super) const fn obeyed(name: &'static str) -> Field {
    Field { name, rule: Rule::Obeyed }
}

/// A field that is refused unless it asks for nothing.
pub(super) const fn refused(name: &'static str, unless: Unless, why: &'static str) -> Field {
    Field { name, rule: Rule::Refused { unless, why } }
}

impl Fields {
    /// The fields of an object at `path`, with nulls (which mean absent), unknown fields and
    /// refused fields already seen to.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is not in `known` or is refused.
    pub(super) fn new(
        mut map: Map<String, Value>,
        path: &str,
        known: &[&[Field]],
    ) -> Result<Self, Invalid> {
        let all = || known.iter().copied().flatten();
        for (name, value) in &map {
            let path = join(path, name);
            let Some(field) = all().find(|field| field.name == name) else {
                return Err(unknown(path, name, all().map(|field| field.name)));
            };
            if let Rule::Refused { unless, why } = field.rule
                && !value.is_null()
                && !unless.holds(value)
            {
                let message = format!("Unsupported parameter: '{path}' is not obeyed here. {why}");
                return Err(Invalid { param: path, fault: Fault::Unsupported, message });
            }
        }
        map.retain(|name, value| {
            let is_obeyed =
                || all().any(|f| f.name == name.as_str() && matches!(f.rule, Rule::Obeyed));
            !value.is_null() && is_obeyed()
        });
        Ok(Self { map, path: path.to_owned() })
    }

    /// The path of one of its fields.
    pub(super) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A field's value, whatever its type.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        self.map.swap_remove(name)
    }

    /// A boolean.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        match self.any(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(self.path(name), "a boolean", &other)),
        }
    }

    /// A string of at most `bytes_max` bytes.
    pub(super) fn string(
        &mut self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<String>, Invalid> {
        self.any(name).map(|value| string(value, self.path(name), bytes_max)).transpose()
    }

    /// A number.
    pub(super) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, Invalid> {
        let Some(value) = self.any(name) else { return Ok(None) };
        number(&value, self.path(name), range).map(Some)
    }

    /// An integer; numbers like 3.0 are one.
    pub(super) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Invalid> {
        let Some(value) = self.any(name) else { return Ok(None) };
        integer(&value, self.path(name), range).map(Some)
    }

    /// An integer that is a `u32`.
    pub(super) fn count(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, Invalid> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        let value = self.integer(name, range)?;
        Ok(value.map(|value| u32::try_from(value).expect("the range is one of u32")))
    }

    /// An array of at most `items_max` items.
    pub(super) fn array(
        &mut self,
        name: &str,
        items_max: usize,
    ) -> Result<Option<Vec<Value>>, Invalid> {
        let path = self.path(name);
        match self.any(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= items_max => Ok(Some(items)),
            Some(Value::Array(items)) => Err(too_many(path, items.len(), items_max)),
            Some(other) => Err(wrong_type(path, "an array", &other)),
        }
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Invalid> {
        match self.any(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong_type(self.path(name), "an object", &other)),
        }
    }

    /// Checks that the caller has read every field that its table calls obeyed: a field that
    /// nobody reads would be ignored in silence.
    pub(super) fn finish(self) {
        debug_assert!(self.map.is_empty(), "nobody reads {:?}", self.map.keys());
    }
}

impl Unless {
    fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (Unless::Empty, Value::Array(items)) => items.is_empty(),
            (Unless::Empty, Value::Object(map)) => map.is_empty(),
            (Unless::Empty, Value::String(text)) => text.is_empty(),
            (Unless::Bool(fine), Value::Bool(value)) => fine == *value,
            (Unless::Integer(fine), Value::Number(value)) => value.as_f64() == Some(fine as f64),
            (Unless::OneOf(fine), Value::String(value)) => fine.contains(&value.as_str()),
            (Unless::Type(fine), Value::Object(map)) => {
                map.get("type").and_then(Value::as_str) == Some(fine)
            }
            (Unless::Only(fine), Value::Array(items)) => {
                items.len() == 1 && items[0].as_str() == Some(fine)
            }
            _ => false,
        }
    }
}

/// A string value of at most `bytes_max` bytes.
pub(super) fn string(value: Value, path: String, bytes_max: usize) -> Result<String, Invalid> {
    match value {
        Value::String(text) if text.len() <= bytes_max => Ok(text),
        Value::String(text) => {
            let says = format!("it has {} bytes, at most {bytes_max} are allowed", text.len());
            Err(wrong_value(path, &says))
        }
        other => Err(wrong_type(path, "a string", &other)),
    }
}

/// An integer value in `range`.
pub(super) fn integer(
    value: &Value,
    path: String,
    range: RangeInclusive<i64>,
) -> Result<i64, Invalid> {
    let number = match value {
        Value::Number(number) => number,
        other => return Err(wrong_type(path, "an integer", other)),
    };
    let fraction = number.as_f64().map_or(0.0, f64::fract);
    if fraction != 0.0 {
        return Err(wrong_type(path, "an integer", value));
    }
    // Beyond the range of i64 lies every number that only fits a u64 or a float.
    let float = number.as_f64().filter(|f| f.abs() < 9.0e18).map(|f| f as i64);
    match number.as_i64().or(float).filter(|n| range.contains(n)) {
        Some(number) => Ok(number),
        None => {
            let (low, high) = range.into_inner();
            Err(wrong_value(path, &format!("{number} is not between {low} and {high}")))
        }
    }
}

/// A number value in `range`.
pub(super) fn number(
    value: &Value,
    path: String,
    range: RangeInclusive<f64>,
) -> Result<f32, Invalid> {
    let Some(number) = value.as_f64().filter(|_| value.is_number()) else {
        return Err(wrong_type(path, "a number", value));
    };
    if range.contains(&number) {
        return Ok(number as f32);
    }
    let (low, high) = range.into_inner();
    Err(wrong_value(path, &format!("{number} is not between {low} and {high}")))
}

/// `name` inside `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    // A hostile name may be as long as a body.
    let name: String = name.chars().take(64).collect();
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// A value of another type.
pub(super) fn wrong_type(param: String, expected: &str, got: &Value) -> Invalid {
    let got = type_name(got);
    let message = format!("Invalid type for '{param}': expected {expected}, but got {got}.");
    Invalid { param, fault: Fault::Type, message }
}

/// A value that is not possible; `says` completes "Invalid value for 'x': ".
pub(super) fn wrong_value(param: String, says: &str) -> Invalid {
    let message = format!("Invalid value for '{param}': {says}.");
    Invalid { param, fault: Fault::Value, message }
}

/// More entries than allowed.
pub(super) fn too_many(param: String, has: usize, max: usize) -> Invalid {
    wrong_value(param, &format!("it has {has} entries, at most {max} are allowed"))
}

/// A required field that is not there.
pub(super) fn missing(param: String) -> Invalid {
    let message = format!("Missing required parameter: '{param}'.");
    Invalid { param, fault: Fault::Missing, message }
}

fn unknown(param: String, name: &str, known: impl Iterator<Item = &'static str>) -> Invalid {
    let closest = (name.len() <= 64)
        .then(|| known.map(|known| (distance(name, known), known)).min())
        .flatten()
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 3);
    let mut message = format!("Unknown parameter: '{param}'.");
    if let Some((_, closest)) = closest {
        message.push_str(&format!(" Did you mean '{closest}'?"));
    }
    Invalid { param, fault: Fault::Unknown, message }
}

/// Edits (insertion, deletion, replacement) between two names (Wagner and Fischer 1974).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: &[Field] = &[
        obeyed("temperature"),
        obeyed("stop"),
        refused("tools", Unless::Empty, "Leave it out."),
        refused("store", Unless::Bool(false), "Leave it out."),
    ];

    fn fields(value: Value) -> Result<Fields, Invalid> {
        let Value::Object(map) = value else { panic!("an object") };
        Fields::new(map, "x", &[KNOWN])
    }

    #[test]
    fn unknown_names_are_refused_with_the_closest_known_one() {
        let error = fields(json!({"temprature": 1})).unwrap_err();
        assert_eq!(error.param, "x.temprature");
        assert_eq!(error.fault, Fault::Unknown);
        assert!(error.message.ends_with("Did you mean 'temperature'?"), "{}", error.message);
        let error = fields(json!({"qqq": 1})).unwrap_err();
        assert_eq!(error.message, "Unknown parameter: 'x.qqq'.");
    }

    #[test]
    fn refused_fields_may_ask_for_nothing() {
        assert!(fields(json!({"tools": [], "store": false})).is_ok());
        assert!(fields(json!({"tools": null, "store": null, "stop": null})).is_ok());
        let error = fields(json!({"tools": [1]})).unwrap_err();
        assert_eq!((error.fault, error.param.as_str()), (Fault::Unsupported, "x.tools"));
    }

    #[test]
    fn integers_may_be_written_as_floats_and_nothing_overflows() {
        for (value, expected) in [
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!(3.5), None),
            (json!(true), None),
            (json!(1e300), None),
            (json!(u64::MAX), None),
            (json!(11), None),
        ] {
            assert_eq!(integer(&value, "n".into(), 0..=10).ok(), expected, "{value}");
        }
        let seed = integer(&json!(i64::MIN), "seed".into(), i64::MIN..=i64::MAX);
        assert_eq!(seed, Ok(i64::MIN));
    }
}
