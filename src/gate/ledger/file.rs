//! The ledger in a folder: `ledger.log`, and a lock that keeps a second server out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::storage::Storage;

const LOG: &str = "ledger.log";
const NEW_LOG: &str = "ledger.new";
const LOCK: &str = "ledger.lock";

/// A folder with a ledger. The lock is held as long as this lives, or its process.
#[derive(Debug)]
pub struct FileStorage {
    folder: PathBuf,
    log: File,
    _lock: File,
}

impl FileStorage {
    /// Opens a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When another server uses it ([`io::ErrorKind::WouldBlock`]), or it cannot be written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        make_folder(folder)?;
        let lock = private().truncate(false).write(true).open(folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    "another server uses this folder; each needs a --state-dir of its own";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // A compaction that was not finished: the log itself is whole.
        match std::fs::remove_file(folder.join(NEW_LOG)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = open_log(folder)?;
        sync_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), log, _lock: lock })
    }

    /// All bytes of a folder's log, for a reader beside the server that may be writing it; the last
    /// batch may be there in parts. What is returned is durable.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn read_beside(folder: &Path) -> io::Result<Vec<u8>> {
        let mut log = File::open(folder.join(LOG))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        // The server may have written these bytes and not yet made them durable; a report must not
        // tell what a power cut could still take back.
        if cfg!(unix) {
            log.sync_data()?;
        }
        Ok(bytes)
    }
}

impl Storage for FileStorage {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        std::fs::read(self.folder.join(LOG))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.log.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.sync_data()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join(NEW_LOG);
        let mut file = private().truncate(true).write(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, self.folder.join(LOG))?;
        sync_folder(&self.folder)?;
        self.log = open_log(&self.folder)?;
        Ok(())
    }
}

/// Who used how much is nobody else's business.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn open_log(folder: &Path) -> io::Result<File> {
    private().append(true).open(folder.join(LOG))
}

/// Files that are made if they are not there, for their owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Names of files are durable when their folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
