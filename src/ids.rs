//! Names of things: one newtype for each kind of id, so that none can stand in for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id as an index into a table that this id names rows of.
            #[inline]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A tenant, in the order in which the gate learned of it.
    TenantId(u32)
);
id!(
    /// A request, unique in the life of the process; never reused.
    RequestId(u64)
);
id!(
    /// A sequence of tokens being generated: one for each of a request's `n` choices.
    SeqId(u64)
);
id!(
    /// A row of the model's vocabulary.
    TokenId(u32)
);
id!(
    /// A KV block: `block_size` token positions of every layer's K and V.
    BlockId(u32)
);
id!(
    /// A running sequence's fixed place on the device, where its per-sequence state lives
    /// (last sampled token, penalty counts); reused after the sequence has ended.
    SlotId(u32)
);
