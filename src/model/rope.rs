//! Rotary frequencies from config.json: `rope_theta` with `rope_scaling` (transformers 4) or
//! `rope_parameters` (transformers 5). The schemes follow `modeling_rope_utils.py` of transformers.

use std::f64::consts::PI;

use super::error::ModelError;
use super::fields::Fields;
use crate::backend::RopeSpec;

/// The schemes that [`from_fields`] takes.
const SCHEMES: &[&str] = &["default", "linear", "llama3", "yarn", "longrope (see max-model-len)"];

/// What the frequencies of a model depend on besides its scheme.
#[derive(Clone, Copy, Debug)]
pub(super) struct RopeBase {
    /// Values of each head.
    pub(super) head_dim: u32,
    /// `max_position_embeddings`.
    pub(super) context_tokens: u32,
    /// Longest context that will be run: decides which of longrope's two sets applies.
    pub(super) run_tokens: u32,
}

/// The single rotary embedding of a model without layer kinds; `theta` when none is given.
///
/// # Errors
/// [`ModelError::Config`] for a malformed field, [`ModelError::Unsupported`] for a scheme that is
/// not implemented.
pub(super) fn from_fields(
    fields: &mut Fields,
    base: RopeBase,
    theta: f64,
) -> Result<RopeSpec, ModelError> {
    let theta = fields.positive("rope_theta")?.unwrap_or(theta);
    let fraction = fields.positive("partial_rotary_factor")?;
    let original = fields.u32("original_max_position_embeddings", 2..=u32::MAX)?;
    fields.only("rope_interleaved", false)?;
    let scaling = fields.object("rope_scaling")?;
    let parameters = fields.object("rope_parameters")?;
    if scaling.is_some() && parameters.is_some() {
        let reason = "rope_parameters is there too; expected only one of them";
        return Err(fields.wrong("rope_scaling", reason));
    }
    match parameters.or(scaling) {
        Some(inner) => from_object(inner, base, theta, fraction, original),
        None => plain(fields, base, theta, fraction),
    }
}

/// The rotary embedding that one `rope_scaling` or `rope_parameters` object describes.
///
/// # Errors
/// As [`from_fields`].
pub(super) fn from_object(
    mut inner: Fields,
    base: RopeBase,
    theta: f64,
    fraction: Option<f64>,
    original: Option<u32>,
) -> Result<RopeSpec, ModelError> {
    let theta = inner.positive("rope_theta")?.unwrap_or(theta);
    let fraction = inner.positive("partial_rotary_factor")?.or(fraction);
    let old_name = inner.string("type")?;
    let scheme = inner.string("rope_type")?.or(old_name).unwrap_or_else(|| "default".to_owned());
    let mut rope = plain(&inner, base, theta, fraction)?;
    let original = inner.u32("original_max_position_embeddings", 2..=u32::MAX)?.or(original);
    match scheme.as_str() {
        "default" => {}
        "linear" => {
            let factor = inner.number("factor")?;
            rope.inv_freq.iter_mut().for_each(|freq| *freq = (f64::from(*freq) / factor) as f32);
        }
        "llama3" => llama3(&mut inner, original, &mut rope)?,
        "yarn" => {
            let original = original.unwrap_or(base.context_tokens);
            yarn(&mut inner, theta, original, &mut rope)?;
        }
        "longrope" | "su" => {
            let original = original.unwrap_or(base.context_tokens);
            longrope(&mut inner, base, original, &mut rope)?;
        }
        other => {
            let what = format!("config.json: rope type {other:?}");
            return Err(ModelError::unsupported(what, SCHEMES));
        }
    }
    inner.finish(&format!("rope type {scheme:?}"))?;
    Ok(rope)
}

/// `theta ^ (-2i / rotary_dim)` for each pair of the rotated part of a head.
///
/// # Errors
/// [`ModelError::Config`] when the rotated part is not a positive even number of values.
pub(super) fn plain(
    fields: &Fields,
    base: RopeBase,
    theta: f64,
    fraction: Option<f64>,
) -> Result<RopeSpec, ModelError> {
    let rotary_dim = (f64::from(base.head_dim) * fraction.unwrap_or(1.0)) as u32;
    if rotary_dim == 0 || rotary_dim > base.head_dim || !rotary_dim.is_multiple_of(2) {
        let reason = format!(
            "{rotary_dim} of {} values of a head would be rotated, expected an even number",
            base.head_dim
        );
        return Err(fields.wrong("partial_rotary_factor", reason));
    }
    let exponent = |i: u32| f64::from(2 * i) / f64::from(rotary_dim);
    let inv_freq = (0..rotary_dim / 2).map(|i| theta.powf(-exponent(i)) as f32).collect();
    Ok(RopeSpec { inv_freq, magnitude: 1.0, interleaved: false })
}

/// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
fn llama3(
    inner: &mut Fields,
    original: Option<u32>,
    rope: &mut RopeSpec,
) -> Result<(), ModelError> {
    let factor = inner.number("factor")?;
    let low = inner.number("low_freq_factor")?;
    let high = inner.number("high_freq_factor")?;
    let Some(original) = original.map(f64::from) else {
        let reason = "missing, expected the context before scaling";
        return Err(inner.wrong("original_max_position_embeddings", reason));
    };
    if low >= high {
        let reason = format!("{low}, expected less than high_freq_factor, which is {high}");
        return Err(inner.wrong("low_freq_factor", reason));
    }
    for freq in &mut rope.inv_freq {
        let kept = f64::from(*freq);
        let wavelength = 2.0 * PI / kept;
        let scaled = if wavelength > original / low {
            kept / factor
        } else if wavelength < original / high {
            kept
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * kept / factor + smooth * kept
        };
        *freq = scaled as f32;
    }
    Ok(())
}

/// YaRN (Peng et al., 2023): a ramp between kept and interpolated frequencies, and a magnitude.
fn yarn(
    inner: &mut Fields,
    theta: f64,
    original: u32,
    rope: &mut RopeSpec,
) -> Result<(), ModelError> {
    let factor = inner.number("factor")?;
    let beta_fast = inner.positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = inner.positive("beta_slow")?.unwrap_or(1.0);
    let truncate = inner.bool("truncate", true)?;
    let given = inner.positive("attention_factor")?;
    let mscales = (inner.positive("mscale")?, inner.positive("mscale_all_dim")?);
    let mscale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let inferred = match mscales {
        (Some(some), Some(all)) => mscale(some) / mscale(all),
        _ => mscale(1.0),
    };
    let pairs = rope.inv_freq.len();
    let dim = 2.0 * pairs as f64;
    let correction = |rotations: f64| {
        dim * (f64::from(original) / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (correction(beta_fast), correction(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    for (i, freq) in rope.inv_freq.iter_mut().enumerate() {
        let kept = f64::from(*freq);
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        *freq = (kept / factor * ramp + kept * (1.0 - ramp)) as f32;
    }
    rope.magnitude = given.unwrap_or(inferred) as f32;
    Ok(())
}

/// LongRoPE (Ding et al., 2024), up to the original context: there the short factors apply to all
/// positions. Beyond it the reference changes all frequencies once a sequence has grown past that
/// length, which leaves its earlier keys inconsistent; that is refused.
fn longrope(
    inner: &mut Fields,
    base: RopeBase,
    original: u32,
    rope: &mut RopeSpec,
) -> Result<(), ModelError> {
    let short = inner.numbers("short_factor")?.unwrap_or_default();
    inner.numbers("long_factor")?;
    let given_factor = inner.positive("factor")?;
    let given = inner.positive("attention_factor")?;
    if base.run_tokens > original {
        let what = format!(
            "config.json: {} with a context of {}",
            "rope type \"longrope\"", base.run_tokens
        );
        let supported = format!("contexts up to {original} (set --max-model-len {original})");
        return Err(ModelError::unsupported(what, &[&supported]));
    }
    if short.len() != rope.inv_freq.len() {
        let reason = format!("{} numbers, expected {}", short.len(), rope.inv_freq.len());
        return Err(inner.wrong("short_factor", reason));
    }
    for (freq, factor) in rope.inv_freq.iter_mut().zip(short) {
        *freq = (f64::from(*freq) / factor) as f32;
    }
    let ratio = f64::from(base.context_tokens) / f64::from(original);
    let ratio = if ratio > 1.0 { ratio } else { given_factor.unwrap_or(1.0) };
    let inferred =
        if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / f64::from(original).ln()).sqrt() };
    rope.magnitude = given.unwrap_or(inferred) as f32;
    Ok(())
}
