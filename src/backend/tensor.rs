//! A tensor in host memory, as a weight file holds it.

use bytes::Bytes;
use thiserror::Error;

/// Element types that weight files store and kernels read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// GGUF: blocks of 32, one f16 scale, int8 values (34 bytes).
    Q8_0,
    /// GGUF: blocks of 32, one f16 scale, 4-bit values (18 bytes).
    Q4_0,
    /// GGUF: super-blocks of 256 (144 bytes).
    Q4K,
    /// GGUF: super-blocks of 256 (176 bytes).
    Q5K,
    /// GGUF: super-blocks of 256 (210 bytes).
    Q6K,
}

/// Why bytes are not the tensor they are said to be.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TensorError {
    /// The shape's product does not fit the address space.
    #[error("tensor {name}: the shape {shape:?} overflows")]
    Overflow {
        /// The tensor.
        name: String,
        /// Its claimed shape.
        shape: Vec<usize>,
    },
    /// Rows are not whole blocks of the type.
    #[error("tensor {name}: rows of {row} values are not whole {dtype:?} blocks of {block}")]
    PartialBlock {
        /// The tensor.
        name: String,
        /// Values in a row.
        row: usize,
        /// The type.
        dtype: DType,
        /// Values in a block.
        block: usize,
    },
    /// The byte count does not match type and shape.
    #[error("tensor {name}: {dtype:?} {shape:?} needs {expected} bytes, the file has {found}")]
    Length {
        /// The tensor.
        name: String,
        /// The type.
        dtype: DType,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes by type and shape.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
}

/// A named tensor; its bytes may be a slice of a memory-mapped file. Row-major, the last dimension
/// is contiguous; quantised types have whole blocks in each row.
#[derive(Clone, Debug)]
pub struct HostTensor {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl DType {
    /// Values in one block: 1 for plain types.
    pub fn block_values(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            DType::Q8_0 | DType::Q4_0 => 32,
            DType::Q4K | DType::Q5K | DType::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
        }
    }
}

impl HostTensor {
    /// A tensor over `data`, whose length has to be exactly what type and shape say.
    ///
    /// # Errors
    /// [`TensorError`] when it is not.
    pub fn new(
        name: impl Into<String>,
        dtype: DType,
        shape: Vec<usize>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        let name = name.into();
        let expected = byte_len(&name, dtype, &shape)?;
        if data.len() != expected {
            let found = data.len();
            return Err(TensorError::Length { name, dtype, shape, expected, found });
        }
        Ok(Self { name, dtype, shape, data })
    }

    /// The name that the weight file gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Entry `index` of the outermost dimension, without a copy; `None` past the end or when the
    /// tensor has one dimension. Slicing keeps rows whole, so block types stay valid.
    pub fn outer(&self, index: usize) -> Option<HostTensor> {
        let (&count, rest) = self.shape.split_first()?;
        if rest.is_empty() || index >= count {
            return None;
        }
        let bytes = self.data.len() / count;
        Some(HostTensor {
            name: format!("{}[{index}]", self.name),
            dtype: self.dtype,
            shape: rest.to_vec(),
            data: self.data.slice(index * bytes..(index + 1) * bytes),
        })
    }
}

fn byte_len(name: &str, dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
    let overflow = || TensorError::Overflow { name: name.to_owned(), shape: shape.to_vec() };
    let values = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).ok_or_else(overflow)?;
    let row = shape.last().copied().unwrap_or(1);
    let block = dtype.block_values();
    if row % block != 0 {
        return Err(TensorError::PartialBlock { name: name.to_owned(), row, dtype, block });
    }
    (values / block).checked_mul(dtype.block_bytes()).ok_or_else(overflow)
}
