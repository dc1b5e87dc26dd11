//! The tensor table of a GGUF file.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::cursor::Cursor;
use super::metadata::Metadata;
use crate::backend::DType;
use crate::model::ModelError;

/// Most tensors; the largest published files have a few thousand.
const TENSORS_MAX: u64 = 1 << 16;
/// Longest tensor name, by the format's description.
const NAME_BYTES_MAX: u64 = 64;
/// A name's length, the number of dimensions, one dimension, the type and the offset.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;
/// Most dimensions, by the format's description.
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_KEY: &str = "general.alignment";
const ALIGNMENT_DEFAULT: u32 = 32;
const ALIGNMENT_MAX: u32 = 4096;
const SUPPORTED: [&str; 8] = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"];

/// A tensor; its range was checked against type, shape and the file's length.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) dtype: DType,
    /// Outermost dimension first, the reverse of the file's order.
    pub(super) shape: Vec<usize>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// As the table describes it, before offsets are known to be inside the file.
struct Described<'a> {
    name: &'a str,
    dtype: DType,
    shape: Vec<usize>,
    bytes: u64,
    offset: u64,
}

/// Reads `count` tensor descriptions and checks that their bytes are in the file, aligned, and
/// do not overlap.
///
/// # Errors
/// [`ModelError`] naming the tensor that is truncated, repeated, malformed or of an unsupported
/// type.
pub(super) fn read(
    path: &Path,
    cursor: &mut Cursor<'_>,
    metadata: &Metadata,
    count: u64,
) -> Result<BTreeMap<String, Entry>, ModelError> {
    let alignment = alignment(metadata)?;
    let most = (cursor.remaining() / ENTRY_BYTES_MIN).min(TENSORS_MAX);
    if count > most {
        let left = cursor.remaining();
        let reason =
            format!("says that it has {count} tensors; the {left} bytes left have room for {most}");
        return Err(cursor.fail(reason));
    }
    let mut table = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..count {
        let tensor = describe(path, cursor, index)?;
        if !seen.insert(tensor.name) {
            return Err(ModelError::tensor(path, tensor.name, "is there twice"));
        }
        table.push(tensor);
    }
    place(path, cursor, alignment, table)
}

/// Finds the tensors' ranges in the file.
fn place(
    path: &Path,
    cursor: &Cursor<'_>,
    alignment: u64,
    mut table: Vec<Described<'_>>,
) -> Result<BTreeMap<String, Entry>, ModelError> {
    // At most the file's length, rounded up to at most 4096 bytes: this cannot overflow a u64.
    let data_start = (cursor.at() as u64).next_multiple_of(alignment);
    let file_bytes = cursor.at() as u64 + cursor.remaining();
    let data_bytes = file_bytes.saturating_sub(data_start);
    let mut entries = BTreeMap::new();
    table.sort_by_key(|tensor| tensor.offset);
    let mut filled = 0;
    for tensor in table {
        let Described { name, offset, bytes, .. } = tensor;
        let refuse = |reason: String| Err(ModelError::tensor(path, name, reason));
        if !offset.is_multiple_of(alignment) {
            return refuse(format!("is at offset {offset}, which is no multiple of {alignment}"));
        }
        if offset < filled {
            return refuse(format!("is at offset {offset} and overlaps the tensor before it"));
        }
        let Some(end) = offset.checked_add(bytes).filter(|&end| end <= data_bytes) else {
            return refuse(format!(
                "needs {bytes} bytes at offset {offset}, but the file has {data_bytes} bytes of \
                 data: it is truncated"
            ));
        };
        filled = end;
        // Both are at most the length of a slice in memory.
        let (start, end) = ((data_start + offset) as usize, (data_start + end) as usize);
        let entry = Entry { dtype: tensor.dtype, shape: tensor.shape, start, end };
        entries.insert(name.to_owned(), entry);
    }
    Ok(entries)
}

fn alignment(metadata: &Metadata) -> Result<u64, ModelError> {
    let alignment = metadata.u32(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT_DEFAULT);
    if !alignment.is_power_of_two() || !(8..=ALIGNMENT_MAX).contains(&alignment) {
        let reason = format!("is {alignment}, expected a power of two of 8 to {ALIGNMENT_MAX}");
        return Err(metadata.fail(ALIGNMENT_KEY, reason));
    }
    Ok(u64::from(alignment))
}

fn describe<'a>(
    path: &Path,
    cursor: &mut Cursor<'a>,
    index: u64,
) -> Result<Described<'a>, ModelError> {
    let name = cursor.name(NAME_BYTES_MAX, format_args!("the name of tensor {index}"))?;
    let what = format!("tensor {name}");
    let refuse = |reason: String| ModelError::tensor(path, name, reason);
    let dimensions = cursor.u32(&what)?;
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        let reason = format!("has {dimensions} dimensions, expected 1 to {DIMENSIONS_MAX}");
        return Err(refuse(reason));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = cursor.u64(&what)?;
        match usize::try_from(size) {
            Ok(size) if size >= 1 => shape.push(size),
            _ => return Err(refuse(format!("has a dimension of {size}, expected at least 1"))),
        }
    }
    // The file begins with the contiguous dimension.
    shape.reverse();
    let number = cursor.u32(&what)?;
    let offset = cursor.u64(&what)?;
    let Some(dtype) = dtype(number) else {
        let named = other_types(number);
        let what = format!("{}: tensor {name}: element type {named}", path.display());
        return Err(ModelError::unsupported(what, &SUPPORTED));
    };
    let bytes = byte_len(dtype, &shape).map_err(refuse)?;
    Ok(Described { name, dtype, shape, bytes, offset })
}

fn byte_len(dtype: DType, shape: &[usize]) -> Result<u64, String> {
    let row = shape.last().copied().unwrap_or(1) as u64;
    let block = dtype.block_values() as u64;
    if !row.is_multiple_of(block) {
        return Err(format!("rows of {row} values are not whole {dtype:?} blocks of {block}"));
    }
    shape
        .iter()
        .try_fold(1_u64, |values, &size| values.checked_mul(size as u64))
        .and_then(|values| (values / block).checked_mul(dtype.block_bytes() as u64))
        .ok_or_else(|| format!("the shape {shape:?} overflows"))
}

/// Numbers as in `enum ggml_type` of llama.cpp.
fn dtype(number: u32) -> Option<DType> {
    Some(match number {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        8 => DType::Q8_0,
        12 => DType::Q4K,
        13 => DType::Q5K,
        14 => DType::Q6K,
        30 => DType::BF16,
        _ => return None,
    })
}

/// The name of a type that is not read.
fn other_types(number: u32) -> String {
    let name = match number {
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {number}"),
    };
    name.to_owned()
}
