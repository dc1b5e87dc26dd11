//! Random streams: each purpose has its own, so that changing one part of a plan leaves the
//! others as they were.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream of randomness is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Times of a tenant's requests.
    Arrivals,
    /// Their lengths.
    Lengths,
    /// Their words and shared parts.
    Prompts,
    /// What their clients do.
    Behaviours,
    /// Which tenant sends.
    Tenants,
    /// Jitter of retries.
    Retries,
}

/// The stream of a purpose for one sender (a tenant, or a request for retries).
pub fn stream(seed: u64, purpose: Purpose, who: u32) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((purpose as u64) << 32 | u64::from(who));
    rng
}

/// A cheap step from one seed to the next (SplitMix64, Steele et al. 2014).
pub fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
