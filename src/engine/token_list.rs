//! The tokens that one sequence generated.

use crate::ids::TokenId;

/// Tokens that a list keeps beside its length before they move to the heap.
const TAIL_TOKENS: usize = 16;

/// A list whose newest tokens lie in it and not on the heap: with a thousand sequences, each
/// step's write to the end of a thousand lists would be a thousand cache misses.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct TokenList {
    all: Vec<TokenId>,
    tail_len: u32,
    tail: [TokenId; TAIL_TOKENS],
}

impl TokenList {
    /// Tokens in it.
    pub fn len(&self) -> u32 {
        self.all.len() as u32 + self.tail_len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at a place.
    pub fn get(&self, at: usize) -> Option<TokenId> {
        match at.checked_sub(self.all.len()) {
            None => self.all.get(at).copied(),
            Some(at) => self.tail().get(at).copied(),
        }
    }

    /// All tokens in order.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.all.iter().chain(self.tail()).copied()
    }

    /// Adds a token at the end.
    pub fn push(&mut self, token: TokenId) {
        if self.tail_len as usize == TAIL_TOKENS {
            self.settle();
        }
        self.tail[self.tail_len as usize] = token;
        self.tail_len += 1;
    }

    /// Moves the newest tokens to the heap, which then has room for as many again.
    pub fn settle(&mut self) {
        self.all.reserve(2 * TAIL_TOKENS);
        self.all.extend_from_slice(&self.tail[..self.tail_len as usize]);
        self.tail_len = 0;
    }

    /// Removes all tokens.
    pub fn clear(&mut self) {
        self.all.clear();
        self.tail_len = 0;
    }

    fn tail(&self) -> &[TokenId] {
        &self.tail[..self.tail_len as usize]
    }
}

impl From<Vec<TokenId>> for TokenList {
    fn from(all: Vec<TokenId>) -> Self {
        Self { all, ..Self::default() }
    }
}

impl From<TokenList> for Vec<TokenId> {
    fn from(mut list: TokenList) -> Self {
        list.settle();
        list.all
    }
}
