//! The ledger of token budgets: what crashes and failing disks may leave, and may not.

mod crash;
mod kill;
