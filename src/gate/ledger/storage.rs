//! Where the ledger's bytes lie: one log that grows at its end and is replaced as a whole.

use std::fmt::Debug;
use std::io;

/// A log on something that may fail or lose power. What was appended is durable after the next
/// [`Storage::sync`] that returns `Ok`, and may be there in parts, in any order, or not at all
/// before.
pub trait Storage: Debug + Send {
    /// All bytes of the log; none when there is no log yet.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self) -> io::Result<Vec<u8>>;

    /// Adds at the end.
    ///
    /// # Errors
    /// When not all of it was written; how much was is not known.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// When that is not certain. Asking again would not make it so: a kernel may have dropped the
    /// bytes and say yes the second time.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes these bytes the whole log, durably and at once: a crash leaves the old log or the new
    /// one, whole.
    ///
    /// # Errors
    /// When that is not certain.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}
