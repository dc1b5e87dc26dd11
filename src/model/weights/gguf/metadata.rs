//! The metadata of a GGUF file: typed values by key, decoded only when they are asked for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::cursor::Cursor;
use crate::model::ModelError;

/// Most keys; usual files have 20 to 60.
const KEYS_MAX: u64 = 1 << 16;
/// Longest key, by the format's description.
const KEY_BYTES_MAX: u64 = (1 << 16) - 1;
/// Most values of an array that is decoded; the largest vocabularies have 262,144 tokens.
const ARRAY_VALUES_MAX: u64 = 1 << 22;
/// A key's length, its value type and one byte of value.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;

/// Metadata by key.
#[derive(Debug)]
pub(super) struct Metadata {
    path: PathBuf,
    file: Bytes,
    entries: BTreeMap<String, Entry>,
}

/// Where a value is; its range lies in the file and its elements fill it.
#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    /// `None` for a single value.
    count: Option<u64>,
    range: Range<usize>,
}

/// Types of values and array elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    U64,
    I64,
    F64,
}

/// The number of the type "array".
const ARRAY: u32 = 9;

impl Metadata {
    /// Walks over `count` entries, leaving the cursor behind them. Nothing is decoded.
    ///
    /// # Errors
    /// [`ModelError::File`] naming the key that is truncated, repeated or of an unknown type.
    pub(super) fn read(
        path: &Path,
        file: &Bytes,
        cursor: &mut Cursor<'_>,
        count: u64,
    ) -> Result<Self, ModelError> {
        let most = (cursor.remaining() / ENTRY_BYTES_MIN).min(KEYS_MAX);
        if count > most {
            let left = cursor.remaining();
            let reason = format!(
                "says that it has {count} metadata keys; the {left} bytes left have room for {most}"
            );
            return Err(cursor.fail(reason));
        }
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let key = cursor.name(KEY_BYTES_MAX, format_args!("metadata key {index}"))?;
            let entry = Entry::read(key, cursor)?;
            if entries.insert(key.to_owned(), entry).is_some() {
                return Err(cursor.fail(format!("metadata key {key} is there twice")));
            }
        }
        Ok(Self { path: path.to_owned(), file: file.clone(), entries })
    }

    /// All keys, sorted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// An error about a key.
    pub(super) fn fail(&self, key: &str, reason: impl std::fmt::Display) -> ModelError {
        ModelError::file(&self.path, format!("metadata key {key}: {reason}"))
    }

    /// A number of any integer type that fits `u32`.
    ///
    /// # Errors
    /// [`ModelError::File`] when the value is of another type or does not fit.
    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.single(key, "an integer of 0 to 4294967295", |kind, bytes| {
            u32::try_from(integer(kind, bytes)?).ok()
        })
    }

    /// A number of either float type.
    ///
    /// # Errors
    /// [`ModelError::File`] when the value is of another type.
    pub(super) fn f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.single(key, "a float", float)
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`ModelError::File`] when the value is of another type.
    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.single(key, "a bool", boolean)
    }

    /// A string of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`ModelError::File`] when the value is of another type, too long or not UTF-8.
    pub(super) fn string(&self, key: &str, bytes_max: u64) -> Result<Option<String>, ModelError> {
        let expected = format!("a UTF-8 string of at most {bytes_max} bytes");
        self.single(key, &expected, |kind, bytes| {
            let text = (kind == Kind::String).then_some(bytes.get(8..)?)?;
            let short = text.len() as u64 <= bytes_max;
            std::str::from_utf8(text).ok().filter(|_| short).map(str::to_owned)
        })
    }

    /// A list of integers that fit `i32`.
    ///
    /// # Errors
    /// [`ModelError::File`] when the value is something else or too long.
    pub(super) fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, ModelError> {
        self.list(key, "32-bit integers", |kind, bytes| i32::try_from(integer(kind, bytes)?).ok())
    }

    /// A list of floats.
    ///
    /// # Errors
    /// As [`Self::i32s`].
    pub(super) fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, ModelError> {
        self.list(key, "floats", float)
    }

    /// A list of truth values.
    ///
    /// # Errors
    /// As [`Self::i32s`].
    pub(super) fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, ModelError> {
        self.list(key, "bools", boolean)
    }

    /// A list of strings.
    ///
    /// # Errors
    /// As [`Self::i32s`]; also when one is not UTF-8.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ModelError> {
        let Some((entry, count)) = self.array(key, "strings")? else { return Ok(None) };
        if entry.kind != Kind::String {
            return Err(self.fail(key, format!("is {}, expected strings", entry.says())));
        }
        let mut cursor = Cursor::new(&self.path, &self.file[..entry.range.end], entry.range.start);
        let mut strings = Vec::new();
        for index in 0..count {
            let len = cursor.u64(format_args!("{key}[{index}]"))?;
            let text = std::str::from_utf8(cursor.bytes(len, format_args!("{key}[{index}]"))?);
            let text = text.map_err(|_| self.fail(key, format!("string {index} is not UTF-8")))?;
            strings.push(text.to_owned());
        }
        Ok(Some(strings))
    }

    /// Whether the value is a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.count.is_some())
    }

    /// Whether the value is 0, false, empty or an empty list, and so switches nothing on.
    pub(super) fn is_off(&self, key: &str) -> bool {
        let Some(entry) = self.entries.get(key) else { return true };
        match entry.count {
            Some(count) => count == 0,
            None => self.file[entry.range.clone()].iter().all(|&byte| byte == 0),
        }
    }

    fn single<T>(
        &self,
        key: &str,
        expected: &str,
        decode: impl Fn(Kind, &[u8]) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        let value = match entry.count {
            None => decode(entry.kind, &self.file[entry.range.clone()]),
            Some(_) => None,
        };
        let refuse = || self.fail(key, format!("is {}, expected {expected}", entry.says()));
        value.map(Some).ok_or_else(refuse)
    }

    fn list<T>(
        &self,
        key: &str,
        expected: &str,
        decode: impl Fn(Kind, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ModelError> {
        let Some((entry, _)) = self.array(key, expected)? else { return Ok(None) };
        let refuse = || self.fail(key, format!("is {}, expected {expected}", entry.says()));
        let size = entry.kind.bytes().ok_or_else(refuse)?;
        let values = self.file[entry.range.clone()].chunks_exact(size);
        let decoded = values.map(|bytes| decode(entry.kind, bytes).ok_or_else(refuse));
        decoded.collect::<Result<_, _>>().map(Some)
    }

    fn array(&self, key: &str, expected: &str) -> Result<Option<(&Entry, u64)>, ModelError> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        let Some(count) = entry.count else {
            let reason = format!("is {}, expected a list of {expected}", entry.says());
            return Err(self.fail(key, reason));
        };
        if count > ARRAY_VALUES_MAX {
            let reason = format!("has {count} values; at most {ARRAY_VALUES_MAX} are read");
            return Err(self.fail(key, reason));
        }
        Ok(Some((entry, count)))
    }
}

impl Entry {
    fn read(key: &str, cursor: &mut Cursor<'_>) -> Result<Self, ModelError> {
        let what = format!("metadata key {key}");
        let number = cursor.u32(&what)?;
        if number != ARRAY {
            let kind = Kind::of(number, &what, cursor)?;
            let start = cursor.at();
            let value = kind.skip(&what, cursor)?;
            kind.check(value, &what, cursor)?;
            return Ok(Self { kind, count: None, range: start..cursor.at() });
        }
        let number = cursor.u32(&what)?;
        let kind = Kind::of(number, &what, cursor)?;
        let count = cursor.u64(&what)?;
        let size = kind.bytes().unwrap_or(8) as u64;
        if count > cursor.remaining() / size {
            let left = cursor.remaining();
            return Err(cursor.fail(format!(
                "{what} says that it has {count} values of at least {size} bytes, {left} bytes \
                 are left"
            )));
        }
        let start = cursor.at();
        match kind.bytes() {
            Some(_) => {
                let values = cursor.bytes(count * size, &what)?;
                kind.check(values, &what, cursor)?;
            }
            None => {
                for _ in 0..count {
                    kind.skip(&what, cursor)?;
                }
            }
        }
        Ok(Self { kind, count: Some(count), range: start..cursor.at() })
    }

    fn says(&self) -> String {
        match self.count {
            None => format!("a value of type {:?}", self.kind),
            Some(count) => format!("a list of {count} values of type {:?}", self.kind),
        }
    }
}

impl Kind {
    fn of(number: u32, what: &str, cursor: &Cursor<'_>) -> Result<Self, ModelError> {
        Ok(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            ARRAY => return Err(cursor.fail(format!("{what} is a list of lists, which no key is"))),
            _ => {
                let reason =
                    format!("{what} has the unknown value type {number}, expected 0 to 12");
                return Err(cursor.fail(reason));
            }
        })
    }

    /// Bytes of one value; `None` for strings.
    fn bytes(self) -> Option<usize> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::String => return None,
        })
    }

    /// Refuses bytes that are no value of this type, which only truth values have.
    fn check(self, values: &[u8], what: &str, cursor: &Cursor<'_>) -> Result<(), ModelError> {
        match values.iter().find(|&&byte| byte > 1) {
            Some(byte) if self == Self::Bool => {
                Err(cursor.fail(format!("{what} is a bool of {byte}, expected 0 or 1")))
            }
            _ => Ok(()),
        }
    }

    fn skip<'a>(self, what: &str, cursor: &mut Cursor<'a>) -> Result<&'a [u8], ModelError> {
        let len = match self.bytes() {
            Some(len) => len as u64,
            None => cursor.u64(what)?,
        };
        cursor.bytes(len, what)
    }
}

fn integer(kind: Kind, bytes: &[u8]) -> Option<i64> {
    Some(match kind {
        Kind::U8 => i64::from(u8::from_le_bytes(bytes.try_into().ok()?)),
        Kind::I8 => i64::from(i8::from_le_bytes(bytes.try_into().ok()?)),
        Kind::U16 => i64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        Kind::I16 => i64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        Kind::U32 => i64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        Kind::I32 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        Kind::U64 => i64::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()?,
        Kind::I64 => i64::from_le_bytes(bytes.try_into().ok()?),
        Kind::F32 | Kind::F64 | Kind::Bool | Kind::String => return None,
    })
}

fn float(kind: Kind, bytes: &[u8]) -> Option<f32> {
    match kind {
        Kind::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
        Kind::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
        _ => None,
    }
}

fn boolean(kind: Kind, bytes: &[u8]) -> Option<bool> {
    match (kind, bytes) {
        (Kind::Bool, [0]) => Some(false),
        (Kind::Bool, [1]) => Some(true),
        _ => None,
    }
}
