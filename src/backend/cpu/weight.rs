//! Weights in their stored type, where the file's memory map has them: nothing is copied.

use bytes::Bytes;
use half::{bf16, f16};

use super::super::{BackendError, DType, HostTensor};
use super::kernels::Weights;

/// A matrix `[outputs, inputs]` made of parts that follow each other, and a bias.
#[derive(Debug)]
pub struct Weight {
    parts: Vec<Part>,
    bias: Vec<f32>,
    outputs: usize,
    inputs: usize,
}

/// A normalisation weight in f32.
#[derive(Debug)]
pub struct Vector(Vec<f32>);

/// Rows `first..first + rows` of a weight.
#[derive(Debug)]
pub(super) struct Part {
    pub dtype: DType,
    pub first: usize,
    pub rows: usize,
    bytes: Bytes,
    row_bytes: usize,
    inputs: usize,
}

impl Weight {
    /// See [`super::super::Backend::weight`].
    pub(super) fn new(parts: &[HostTensor], bias: &[HostTensor]) -> Result<Self, BackendError> {
        let Some(&[_, inputs]) = parts.first().map(HostTensor::shape) else {
            return Err(unsupported(parts.first(), "a matrix [out, in]"));
        };
        let mut weight = Self { parts: Vec::new(), bias: Vec::new(), outputs: 0, inputs };
        for part in parts {
            weight.add(part)?;
        }
        if !bias.is_empty() && bias.len() != parts.len() {
            let what = format!(
                "tensor {}: {} parts of a fused matrix have {} biases; each part has one or none",
                parts[0].name(),
                parts.len(),
                bias.len()
            );
            return Err(BackendError::Unsupported { what });
        }
        for (bias, part) in bias.iter().zip(&weight.parts) {
            let values = to_f32(bias)?;
            if values.len() != part.rows {
                return Err(unsupported(Some(bias), &format!("a bias [{}]", part.rows)));
            }
            weight.bias.extend(values);
        }
        Ok(weight)
    }

    fn add(&mut self, tensor: &HostTensor) -> Result<(), BackendError> {
        let &[rows, inputs] = tensor.shape() else {
            return Err(unsupported(Some(tensor), "a matrix [out, in]"));
        };
        if inputs != self.inputs || rows == 0 || inputs == 0 {
            let expected = format!("a matrix [out, {}] that is not empty", self.inputs);
            return Err(unsupported(Some(tensor), &expected));
        }
        self.parts.push(Part {
            dtype: tensor.dtype(),
            first: self.outputs,
            rows,
            bytes: tensor.data().clone(),
            row_bytes: tensor.data().len() / rows,
            inputs,
        });
        self.outputs += rows;
        Ok(())
    }

    /// Output rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Values of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The bias of outputs from `first` on; `None` where there is none.
    pub(super) fn bias(&self, first: usize) -> Option<&[f32]> {
        (!self.bias.is_empty()).then(|| &self.bias[first..])
    }

    /// The part that holds an output row.
    pub(super) fn part_of(&self, row: usize) -> &Part {
        let next = self.parts.partition_point(|p| p.first <= row);
        &self.parts[next.checked_sub(1).expect("the first part begins at row 0")]
    }
}

impl Part {
    /// Rows from `row` (counted from the part's first) on.
    pub(super) fn weights(&self, row: usize) -> Weights<'_> {
        Weights {
            bytes: &self.bytes[row * self.row_bytes..],
            row_bytes: self.row_bytes,
            values: self.inputs,
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

impl Vector {
    /// See [`super::super::Backend::vector`].
    pub(super) fn new(tensor: &HostTensor) -> Result<Self, BackendError> {
        to_f32(tensor).map(Self)
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.0
    }
}

/// The values of a one-dimensional tensor of a float type.
fn to_f32(tensor: &HostTensor) -> Result<Vec<f32>, BackendError> {
    if tensor.shape().len() != 1 {
        return Err(unsupported(Some(tensor), "one dimension"));
    }
    let pairs = || tensor.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    match tensor.dtype() {
        DType::F32 => {
            let fours = tensor.data().chunks_exact(4);
            Ok(fours.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        DType::F16 => Ok(pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect()),
        DType::BF16 => Ok(pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => Err(unsupported(Some(tensor), "F32, F16 or BF16")),
    }
}

fn unsupported(tensor: Option<&HostTensor>, expected: &str) -> BackendError {
    let what = tensor.map_or_else(
        || format!("a weight without a tensor; expected {expected}"),
        |t| format!("tensor {}: {:?} {:?}; expected {expected}", t.name(), t.dtype(), t.shape()),
    );
    BackendError::Unsupported { what }
}
