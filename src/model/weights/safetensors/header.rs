//! The header of one safetensors file.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use ::safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::backend::DType;
use crate::model::ModelError;

/// Longest JSON header. The largest published shards have headers of a few hundred kilobytes; the
/// format's own limit of 100 MB would let a header cost gigabytes while it is parsed.
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 20;
/// Most tensors in one file; the largest published shards have about 20,000.
pub(crate) const TENSORS_PER_FILE_MAX: usize = 1 << 16;
/// Most dimensions of a tensor.
pub(crate) const DIMENSIONS_MAX: usize = 8;

/// Most entries of `__metadata__`; usual files have one.
const REMARKS_MAX: usize = 4096;

const LENGTH_BYTES: usize = 8;
const SUPPORTED: [&str; 3] = ["F32", "F16", "BF16"];

/// A tensor in the file, its range checked against dtype, shape and the file's length.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The header's JSON object in its own order, duplicates refused.
#[derive(Debug, Default)]
struct Header {
    tensors: Vec<(String, Described)>,
}

/// A tensor as the header describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

#[derive(Debug)]
struct Shape(Vec<usize>);

/// `__metadata__`: strings by name, of which nothing is needed here.
struct Remarks;

/// Checks a file's header and gives its tensors with ranges in the whole file, ordered by start.
///
/// # Errors
/// [`ModelError`] naming the file and, where it is one's fault, the tensor.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Vec<Entry>, ModelError> {
    let header_bytes = header_len(path, file)?;
    let data_start = LENGTH_BYTES + header_bytes;
    let header: Header =
        serde_json::from_slice(&file[LENGTH_BYTES..data_start]).map_err(|error| {
            ModelError::file(path, format!("the safetensors header is not as expected: {error}"))
        })?;
    let data_bytes = (file.len() - data_start) as u64;
    let mut entries = Vec::with_capacity(header.tensors.len());
    for (name, described) in header.tensors {
        entries.push(check(path, name, described, data_start, data_bytes)?);
    }
    entries.sort_by_key(|entry| (entry.start, entry.end));
    no_holes(path, &entries, data_start, file.len())?;
    SafeTensors::read_metadata(file).map_err(|error| ModelError::file(path, error))?;
    Ok(entries)
}

fn header_len(path: &Path, file: &[u8]) -> Result<usize, ModelError> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        let reason = format!(
            "is {} bytes long; a safetensors file begins with a header length of 8 bytes",
            file.len()
        );
        return Err(ModelError::file(path, reason));
    };
    let claimed = u64::from_le_bytes(*length);
    if claimed > HEADER_BYTES_MAX as u64 {
        let reason = format!(
            "says that its header has {claimed} bytes; at most {HEADER_BYTES_MAX} are read (is it \
             a safetensors file?)"
        );
        return Err(ModelError::file(path, reason));
    }
    match usize::try_from(claimed) {
        Ok(bytes) if bytes <= rest.len() => Ok(bytes),
        _ => {
            let reason = format!(
                "is truncated: its header should have {claimed} bytes, {} are there",
                rest.len()
            );
            Err(ModelError::file(path, reason))
        }
    }
}

fn check(
    path: &Path,
    name: String,
    described: Described,
    data_start: usize,
    data_bytes: u64,
) -> Result<Entry, ModelError> {
    let refuse = |reason: String| ModelError::tensor(path, &name, reason);
    let dtype = match described.dtype.as_str() {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        other => {
            let what = format!("{}: tensor {name}: element type {other}", path.display());
            return Err(ModelError::unsupported(what, &SUPPORTED));
        }
    };
    let shape = described.shape.0;
    if let Some(index) = shape.iter().position(|&size| size == 0) {
        return Err(refuse(format!("dimension {index} of {shape:?} is 0; expected at least 1")));
    }
    let needed = shape
        .iter()
        .try_fold(dtype.block_bytes() as u64, |bytes, &size| bytes.checked_mul(size as u64))
        .ok_or_else(|| refuse(format!("the shape {shape:?} overflows")))?;
    let [from, to] = described.data_offsets;
    if to < from || to - from != needed {
        let found = format!("its range is {from}..{to}");
        return Err(refuse(format!("{dtype:?} {shape:?} needs {needed} bytes, {found}")));
    }
    if to > data_bytes {
        return Err(refuse(format!(
            "ends at byte {to} of the data, but the file has only {data_bytes}: it is truncated"
        )));
    }
    // Both are at most the length of a slice in memory, so the sums fit.
    let (start, end) = (data_start + from as usize, data_start + to as usize);
    Ok(Entry { name, dtype, shape, start, end })
}

/// The tensors have to fill the data exactly: overlaps would alias, holes would hide bytes.
fn no_holes(
    path: &Path,
    entries: &[Entry],
    data_start: usize,
    file_bytes: usize,
) -> Result<(), ModelError> {
    let mut filled = data_start;
    for entry in entries {
        if entry.start != filled {
            let kind = if entry.start < filled { "overlaps" } else { "leaves a hole after" };
            let reason = format!(
                "{kind} the tensor before it: it starts at byte {} of the data, expected {}",
                entry.start - data_start,
                filled - data_start
            );
            return Err(ModelError::tensor(path, &entry.name, reason));
        }
        filled = entry.end;
    }
    if filled != file_bytes {
        let reason = format!(
            "has {} bytes after its last tensor; expected none",
            file_bytes.saturating_sub(filled)
        );
        return Err(ModelError::file(path, reason));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors, each with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name} is described twice")));
            }
            if name == "__metadata__" {
                map.next_value::<Remarks>()
                    .map_err(|error| A::Error::custom(format!("__metadata__: {error}")))?;
                continue;
            }
            if header.tensors.len() == TENSORS_PER_FILE_MAX {
                let reason = format!("more than {TENSORS_PER_FILE_MAX} tensors in one file");
                return Err(A::Error::custom(reason));
            }
            let described = map
                .next_value()
                .map_err(|error| A::Error::custom(format!("tensor {name}: {error}")))?;
            header.tensors.push((name, described));
        }
        Ok(header)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {DIMENSIONS_MAX} dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(size) = seq.next_element()? {
            if shape.len() == DIMENSIONS_MAX {
                let reason = format!("the shape has more than {DIMENSIONS_MAX} dimensions");
                return Err(A::Error::custom(reason));
            }
            shape.push(size);
        }
        Ok(Shape(shape))
    }
}

impl<'de> Deserialize<'de> for Remarks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RemarksVisitor)
    }
}

struct RemarksVisitor;

impl<'de> Visitor<'de> for RemarksVisitor {
    type Value = Remarks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {REMARKS_MAX} strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Remarks, A::Error> {
        let mut count = 0;
        while map.next_entry::<String, String>()?.is_some() {
            count += 1;
            if count > REMARKS_MAX {
                return Err(A::Error::custom(format!("more than {REMARKS_MAX} entries")));
            }
        }
        Ok(Remarks)
    }
}
