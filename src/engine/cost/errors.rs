//! How far off the last predictions were.

/// Quantiles of the last relative errors: a ring of bins and how many entries each bin has.
#[derive(Clone, Debug)]
pub(super) struct ErrorWindow {
    ring: [u8; WINDOW],
    next: usize,
    len: usize,
    counts: [u16; BINS],
}

/// Errors that the quantiles look back on.
const WINDOW: usize = 256;
/// Bins of errors: the first up to 0.5 %, each next one a tenth wider.
const BINS: usize = 72;
const FIRST_BIN: f64 = 0.005;
const BIN_RATIO: f64 = 1.1;
/// Errors that must be known before their quantiles are told; until then they are these.
const ERRORS_MIN: usize = 20;
pub(super) const P50_UNKNOWN: f64 = 0.2;
pub(super) const P95_UNKNOWN: f64 = 0.5;

impl ErrorWindow {
    /// Without errors.
    pub fn new() -> Self {
        Self { ring: [0; WINDOW], next: 0, len: 0, counts: [0; BINS] }
    }

    /// Takes in an error, a share without sign.
    pub fn add(&mut self, error: f64) {
        let bin = ((error.max(FIRST_BIN) / FIRST_BIN).ln() / BIN_RATIO.ln()).ceil();
        let bin = (bin as usize).min(BINS - 1);
        if self.len == WINDOW {
            self.counts[usize::from(self.ring[self.next])] -= 1;
        } else {
            self.len += 1;
        }
        self.ring[self.next] = bin as u8;
        self.counts[bin] += 1;
        self.next = (self.next + 1) % WINDOW;
    }

    /// The median and the 95th percentile, as the upper ends of their bins.
    pub fn quantiles(&self) -> (f64, f64) {
        if self.len < ERRORS_MIN {
            return (P50_UNKNOWN, P95_UNKNOWN);
        }
        let at = |share: f64| {
            let rank = (self.len as f64 * share).ceil() as usize;
            let mut seen = 0;
            let bin = self.counts.iter().position(|count| {
                seen += usize::from(*count);
                seen >= rank
            });
            FIRST_BIN * BIN_RATIO.powi(bin.unwrap_or(BINS - 1) as i32)
        };
        (at(0.5), at(0.95))
    }
}
