//! Random weights of any shape (`--load-format dummy`): a model's speed without its weights.

use bytes::Bytes;
use half::{bf16, f16};

use crate::backend::{DType, HostTensor};
use crate::model::ModelError;

/// What errors call the place that dummy weights come from.
pub(super) const PLACE: &str = "dummy weights";

const SUPPORTED: [&str; 3] = ["F32", "F16", "BF16"];
/// Weights take one of this many evenly spaced values.
const LEVELS: usize = 1 << LEVEL_BITS;
const LEVEL_BITS: u32 = 12;
/// Weights drawn from one hash.
const LANES: usize = 4;
/// Standard deviation of biases.
const BIAS_DEVIATION: f32 = 0.02;

/// Makes each tensor when it is asked for, from the seed and the tensor's name alone: the order
/// in which tensors are taken changes nothing.
#[derive(Debug, Clone)]
pub struct DummyWeights {
    dtype: DType,
    seed: u64,
}

impl DummyWeights {
    /// Weights of a plain type.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for quantised types.
    pub fn new(dtype: DType, seed: u64) -> Result<Self, ModelError> {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 => Ok(Self { dtype, seed }),
            other => {
                let what = format!("--load-format dummy with weights of type {other:?}");
                Err(ModelError::unsupported(what, &SUPPORTED))
            }
        }
    }

    /// A tensor of this shape. Norms are ones; matrices are uniform with a standard deviation of
    /// `1 / sqrt(inputs)`, so that activations keep their size from layer to layer.
    ///
    /// # Errors
    /// [`ModelError::Memory`] when it does not fit into memory, [`ModelError::Tensor`] when its
    /// size overflows.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError> {
        let values = shape.iter().try_fold(1_usize, |values, &size| values.checked_mul(size));
        let bytes = values.and_then(|values| values.checked_mul(self.dtype.block_bytes()));
        let Some(bytes) = bytes else {
            return Err(ModelError::tensor(PLACE, name, format!("the shape {shape:?} overflows")));
        };
        let mut data = Vec::new();
        if data.try_reserve_exact(bytes).is_err() {
            return Err(ModelError::Memory {
                what: format!("the dummy tensor {name} of shape {shape:?}"),
                needed_bytes: bytes as u64,
                available_bytes: 0,
                advice: "take a smaller model".to_owned(),
            });
        }
        data.resize(bytes, 0);
        let key = self.key(name);
        match self.dtype {
            DType::F32 => fill(&mut data, key, &levels(name, shape, f32::to_le_bytes)),
            DType::F16 => {
                fill(&mut data, key, &levels(name, shape, |v| f16::from_f32(v).to_le_bytes()))
            }
            _ => fill(&mut data, key, &levels(name, shape, |v| bf16::from_f32(v).to_le_bytes())),
        }
        HostTensor::new(name, self.dtype, shape.to_vec(), Bytes::from(data))
            .map_err(|error| ModelError::malformed(PLACE, &error))
    }

    fn key(&self, name: &str) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut key = [0; 8];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(key)
    }
}

/// The values that a tensor's weights are drawn from, as they are stored.
fn levels<const N: usize>(
    name: &str,
    shape: &[usize],
    stored: impl Fn(f32) -> [u8; N],
) -> Vec<[u8; N]> {
    if name.ends_with("norm.weight") {
        return vec![stored(1.0); LEVELS];
    }
    let deviation = match shape {
        [] | [_] => BIAS_DEVIATION,
        [.., inputs] => (*inputs as f32).sqrt().recip(),
    };
    // A uniform distribution over ±r has the standard deviation r / sqrt(3).
    let radius = deviation * 3_f32.sqrt();
    let centred = |level: usize| (level as f32 + 0.5) / (LEVELS as f32 / 2.0) - 1.0;
    (0..LEVELS).map(|level| stored(centred(level) * radius)).collect()
}

/// Fills `data` with draws from `levels`; value `i` depends on `key` and `i` alone.
fn fill<const N: usize>(data: &mut [u8], key: u64, levels: &[[u8; N]]) {
    for (index, group) in (0_u64..).zip(data.chunks_mut(LANES * N)) {
        let mut bits = mix(key.wrapping_add(index));
        for value in group.chunks_exact_mut(N) {
            let level = (bits >> (u64::BITS - LEVEL_BITS)) as usize;
            value.copy_from_slice(&levels[level]);
            bits <<= u64::BITS / LANES as u32;
        }
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
/// 2014) from a counter.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
