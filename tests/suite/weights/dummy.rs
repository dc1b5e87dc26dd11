//! Dummy weights: the same for the same seed and name, and of a size that keeps activations sane.

use half::{bf16, f16};
use weir::backend::{DType, HostTensor};
use weir::model::weights::{DummyWeights, WeightSource};

use super::assert_says;

fn values(tensor: &HostTensor) -> Vec<f32> {
    let data = tensor.data();
    match tensor.dtype() {
        DType::F32 => data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        DType::F16 => data.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => data.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    }
}

fn deviation(values: &[f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let squares = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>();
    (squares / values.len() as f32).sqrt()
}

#[test]
fn a_tensor_depends_on_seed_and_name_alone() {
    let dummy = |seed| DummyWeights::new(DType::BF16, seed).unwrap();
    let first = dummy(1).get("a.weight", &[33, 65]).unwrap();
    let after_another = dummy(1);
    after_another.get("b.weight", &[7, 7]).unwrap();
    assert_eq!(first.data(), after_another.get("a.weight", &[33, 65]).unwrap().data());
    assert_ne!(first.data(), dummy(2).get("a.weight", &[33, 65]).unwrap().data());
    assert_ne!(first.data(), dummy(1).get("b.weight", &[33, 65]).unwrap().data());
}

#[test]
fn matrices_keep_the_size_of_activations() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let dummy = DummyWeights::new(dtype, 7).unwrap();
        let matrix = values(&dummy.get("w.weight", &[256, 64]).unwrap());
        assert_eq!(matrix.len(), 256 * 64);
        let found = deviation(&matrix);
        assert!((found - 0.125).abs() < 0.003, "{dtype:?}: {found}");
        assert!(matrix.iter().all(|value| value.abs() < 0.125 * 1.75));
        // Neighbours are independent: the mean of products is about 0.
        let pairs: f32 = matrix.windows(2).map(|pair| pair[0] * pair[1]).sum();
        assert!((pairs / matrix.len() as f32).abs() < 0.0005, "{dtype:?}: {pairs}");
        let norm = dummy.get("model.layers.0.input_layernorm.weight", &[64]).unwrap();
        assert!(values(&norm).iter().all(|&value| value == 1.0));
        let bias = values(&dummy.get("q_proj.bias", &[4096]).unwrap());
        assert!((deviation(&bias) - 0.02).abs() < 0.001);
    }
}

#[test]
fn what_cannot_be_made_is_refused() {
    let error = DummyWeights::new(DType::Q4K, 0).unwrap_err();
    assert_says(&error, &["--load-format dummy", "Q4K", "F32, F16, BF16"]);
    let source = WeightSource::Dummy(DummyWeights::new(DType::F32, 0).unwrap());
    assert!(source.contains("anything") && source.names().is_empty());
    let error = source.get("w", &[usize::MAX, 2]).unwrap_err();
    assert_says(&error, &["tensor w", "overflows"]);
    let error = source.get("w", &[1 << 60]).unwrap_err();
    assert_says(&error, &["tensor w", "4611686018427387904 bytes", "smaller model"]);
}
