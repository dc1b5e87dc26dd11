//! What is in a step, and what each part of it costs.

/// What is in a step, as far as its duration depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Rows of chunks of several rows. A chunk of one row is computed as a decode is.
    pub prefill_rows: u32,
    /// Of these rows, all pairs of a row and a position that it attends to.
    pub prefill_pairs: u64,
    /// Sequences that go on by one row.
    pub decode_sequences: u32,
    /// Positions that those rows attend to.
    pub decode_context_tokens: u64,
}

/// What each part of a step costs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPrices {
    /// Each step.
    pub fixed_s: f64,
    /// See [`StepShape::prefill_rows`].
    pub prefill_row_s: f64,
    /// See [`StepShape::prefill_pairs`].
    pub prefill_pair_s: f64,
    /// See [`StepShape::decode_sequences`].
    pub sequence_s: f64,
    /// See [`StepShape::decode_context_tokens`].
    pub context_token_s: f64,
}

impl StepShape {
    /// Adds a chunk of `rows` rows behind `context_tokens` computed positions.
    pub fn add_prefill(&mut self, rows: u32, context_tokens: u32) {
        if rows == 1 {
            self.add_decode(context_tokens + 1);
            return;
        }
        self.prefill_rows += rows;
        self.prefill_pairs += pairs(rows, context_tokens);
    }

    /// Adds a row that attends to `context_tokens` positions, its own among them.
    pub fn add_decode(&mut self, context_tokens: u32) {
        self.decode_sequences += 1;
        self.decode_context_tokens += u64::from(context_tokens);
    }

    /// Rows in all.
    pub fn rows(&self) -> u32 {
        self.prefill_rows + self.decode_sequences
    }
}

impl StepPrices {
    /// Those of VTC's token counts, in units of 20 us.
    pub const NOMINAL: StepPrices = StepPrices {
        fixed_s: 0.0,
        prefill_row_s: 20e-6,
        prefill_pair_s: 0.0,
        sequence_s: 40e-6,
        context_token_s: 0.0,
    };

    /// Seconds of a step.
    pub fn step_s(&self, shape: &StepShape) -> f64 {
        self.fixed_s
            + self.prefill_row_s * f64::from(shape.prefill_rows)
            + self.prefill_pair_s * shape.prefill_pairs as f64
            + self.sequence_s * f64::from(shape.decode_sequences)
            + self.context_token_s * shape.decode_context_tokens as f64
    }

    /// Seconds that a chunk adds to a step.
    pub fn prefill_s(&self, rows: u32, context_tokens: u32) -> f64 {
        let mut shape = StepShape::default();
        shape.add_prefill(rows, context_tokens);
        self.step_s(&shape) - self.fixed_s
    }

    /// Seconds that a decode adds to a step.
    pub fn decode_s(&self, context_tokens: u32) -> f64 {
        self.sequence_s + self.context_token_s * f64::from(context_tokens)
    }
}

/// Pairs of a row of a chunk and a position at or before it.
fn pairs(rows: u32, context_tokens: u32) -> u64 {
    let rows = u64::from(rows);
    rows * u64::from(context_tokens) + rows * (rows + 1) / 2
}
