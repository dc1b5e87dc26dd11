//! Python's behaviour where chat templates, written for Jinja2, can see it: `json.dumps`, string
//! methods, `strftime`.

use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Deeper values than this are refused, as Python's recursion limit would.
const JSON_DEPTH_MAX: usize = 200;

/// The `tojson` filter of `transformers`: `json.dumps` with `ensure_ascii=False`.
pub(super) fn to_json(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let option = |positional: Option<Value>, name: &str| match positional {
        Some(value) => Ok(Some(value)),
        None => options.get::<Option<Value>>(name),
    };
    let ensure_ascii = option(ensure_ascii, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = indentation(option(indent, "indent")?)?;
    let separators = option(separators, "separators")?.filter(|value| !value.is_none());
    let sort_keys = option(None, "sort_keys")?.is_some_and(|value| value.is_true());
    options.assert_all_used()?;
    let (item_separator, key_separator) = match separators {
        Some(pair) => {
            let part = |index| pair.get_item_by_index(index).map(|part| part.to_string());
            (part(0)?, part(1)?)
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = JsonStyle { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(Value::from(out))
}

struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl JsonStyle {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > JSON_DEPTH_MAX {
            return Err(invalid("tojson: the value is nested too deeply".to_owned()));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => write_number(out, value)?,
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items(out, ['[', ']'], &items, depth, |out, item| {
                    self.write(out, item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    entries.push((json_key(&key)?, value.get_item(&key)?));
                }
                if self.sort_keys {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.write_items(out, ['{', '}'], &entries, depth, |out, (key, item)| {
                    self.write_string(out, key);
                    out.push_str(&self.key_separator);
                    self.write(out, item, depth + 1)
                })?;
            }
            kind => {
                return Err(invalid(format!("Object of type {kind} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn write_items<T>(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: &[T],
        depth: usize,
        mut write_item: impl FnMut(&mut String, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(&self.item_separator);
            }
            self.new_line(out, depth + 1);
            write_item(out, item)?;
        }
        if !items.is_empty() {
            self.new_line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("strings take all writes");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Methods of Python's `str` that `minijinja_contrib::pycompat` lacks or has with other
/// whitespace rules; all others are left to it.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let (left, right) = (name != "rstrip", name != "lstrip");
            Ok(Value::from(strip(text, chars, left, right)))
        }
        "title" => {
            let () = from_args(args)?;
            Ok(Value::from(title(text)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (head, tail) = text.split_once(separator).unwrap_or((text, ""));
            let found = if text.contains(separator) { separator } else { "" };
            Ok(strings([head, found, tail]))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (head, tail) = text.rsplit_once(separator).unwrap_or(("", text));
            let found = if text.contains(separator) { separator } else { "" };
            Ok(strings([head, found, tail]))
        }
        "rsplit" => {
            let (separator, splits): (&str, Option<i64>) = from_args(args)?;
            let parts = splits.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n + 1);
            let mut found: Vec<&str> = text.rsplitn(parts, separator).collect();
            found.reverse();
            Ok(strings(found))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The `trim` filter: Jinja2's is `str.strip`.
pub(super) fn trim(value: &Value, chars: Option<&str>) -> String {
    match value.as_str() {
        Some(text) => strip(text, chars, true, true).to_owned(),
        None => strip(&value.to_string(), chars, true, true).to_owned(),
    }
}

/// `str.strip`, `lstrip` and `rstrip`.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right { text.trim_end_matches(drop) } else { text }
}

/// `str.title`: a letter is upper case unless another letter stands before it. (Jinja2's filter of
/// this name is another function, which minijinja has.)
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// The `sequence` test: what has a length and items, in Python also strings and mappings.
pub(super) fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Seq | String | Map | Iterable | Undefined)
}

/// `datetime.strftime` of a time in UTC, given in seconds since 1970.
pub(super) fn strftime(unix_s: u64, format: &str) -> Result<String, Error> {
    let seconds = i64::try_from(unix_s).ok();
    let time = seconds.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    let time = time.ok_or_else(|| invalid(format!("strftime_now: no such time: {unix_s}")))?;
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(invalid(format!("strftime_now: unknown format {format:?}")));
    }
    Ok(time.format_with_items(items.into_iter()).to_string())
}

/// The `raise_exception` function of templates.
pub(super) fn raise_exception(message: Rest<Value>) -> Result<Value, Error> {
    let text = message.first().map(Value::to_string).unwrap_or_default();
    Err(invalid(text.clone()).with_source(Raised(text)))
}

/// What a template said when it refused its input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

fn strings<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::from(texts.into_iter().map(Value::from).collect::<Vec<_>>())
}

/// `str.isspace` of a character.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

fn indentation(indent: Option<Value>) -> Result<Option<String>, Error> {
    let Some(indent) = indent.filter(|value| !value.is_none()) else { return Ok(None) };
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let spaces = i64::try_from(indent)?.clamp(0, 64);
    Ok(Some(" ".repeat(spaces as usize)))
}

fn json_key(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => {
            let mut out = String::new();
            write_number(&mut out, key)?;
            Ok(out)
        }
        kind => Err(invalid(format!("keys must be str, int, float, bool or None, not {kind}"))),
    }
}

fn write_number(out: &mut String, value: &Value) -> Result<(), Error> {
    if value.is_integer() {
        write!(out, "{value}").expect("strings take all writes");
    } else {
        out.push_str(&float_repr(f64::try_from(value.clone())?));
    }
    Ok(())
}

/// `float.__repr__`: the shortest digits that give the number back, with an exponent below 1e-4
/// and from 1e16 on.
fn float_repr(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123456789.125, "123456789.125"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (-2.5e22, "-2.5e+22"),
        ];
        for (number, text) in cases {
            assert_eq!(float_repr(number), text);
        }
    }

    #[test]
    fn strip_knows_pythons_whitespace() {
        assert_eq!(strip("\u{1F}\u{A0} a \u{2029}", None, true, true), "a");
        assert_eq!(strip("xxaxx", Some("x"), false, true), "xxa");
    }

    #[test]
    fn strftime_is_in_utc_and_refuses_unknown_formats() {
        assert_eq!(strftime(1_721_952_000, "%d %b %Y").unwrap(), "26 Jul 2024");
        assert_eq!(
            strftime(1_709_251_199, "%-d %B %Y %H:%M:%S").unwrap(),
            "29 February 2024 23:59:59"
        );
        assert!(strftime(0, "%Q").is_err());
        assert!(strftime(u64::MAX, "%d").is_err());
    }
}
