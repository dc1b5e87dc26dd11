//! Keys on disk: a file that is only ever replaced whole, under a lock, so that no reader sees half
//! of it and no two writers lose each other's change.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{KeyError, KeyFile};

const KEYS: &str = "keys.json";
const LAST_USE: &str = "keys-last-use.json";
const LOCK: &str = "keys.lock";
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Whoever can write the file can let themselves in.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The folder that keys lie in.
#[derive(Clone, Debug)]
pub struct KeyStore {
    folder: PathBuf,
}

/// Which state of a file was seen: it differs whenever the file was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
    bytes: u64,
}

/// When keys were last used, in seconds since 1970, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LastUse(pub HashMap<String, u64>);

impl KeyStore {
    /// Keys in this folder, which is made (mode 0700) when something is first kept there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The key file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(KEYS)
    }

    /// All keys; `None` when none was ever made.
    ///
    /// # Errors
    /// [`KeyError::Io`], and [`KeyError::File`] for a file that is not a key file or that others
    /// may write.
    pub fn read(&self) -> Result<Option<KeyFile>, KeyError> {
        read_json(&self.path())
    }

    /// Which state the key file is in; `None` when there is none.
    pub fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(self.path()).ok()?;
        Some(Stamp {
            inode: meta.ino(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
            bytes: meta.len(),
        })
    }

    /// Changes keys, while nobody else does.
    ///
    /// # Errors
    /// [`KeyError`]; the file is then as it was.
    pub fn change<T>(
        &self,
        unix_s: u64,
        change: impl FnOnce(&mut KeyFile) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        let _lock = self.lock()?;
        let mut file = self.read()?.unwrap_or_default();
        let changed = change(&mut file)?;
        file.forget_dead(unix_s);
        self.replace(KEYS, &file)?;
        Ok(changed)
    }

    /// When keys were last used, as far as servers have written it down.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn last_use(&self) -> Result<LastUse, KeyError> {
        Ok(read_json(&self.folder.join(LAST_USE))?.unwrap_or_default())
    }

    /// Notes when keys were last used, beside what other servers have noted; drops the notes of
    /// keys that are not in `file`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn note_use(&self, uses: &LastUse, file: &KeyFile) -> Result<(), KeyError> {
        let _lock = self.lock()?;
        // Notes that cannot be read are worth less than the newer ones.
        let mut notes = self.last_use().unwrap_or_default();
        for (id, unix_s) in &uses.0 {
            let note = notes.0.entry(id.clone()).or_default();
            *note = (*note).max(*unix_s);
        }
        let known: HashSet<&str> = file.keys.iter().map(|key| key.id.as_str()).collect();
        notes.0.retain(|id, _| known.contains(id.as_str()));
        self.replace(LAST_USE, &notes)
    }

    /// Waits until nobody else changes files here. Released when dropped.
    fn lock(&self) -> Result<File, KeyError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(io_error(&self.folder, "creating the folder"))?;
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(io_error(&path, "opening the lock"))?;
        file.lock().map_err(io_error(&path, "locking"))?;
        Ok(file)
    }

    /// Replaces a file whole: after a crash it is the old one or the new one. Only under the lock.
    fn replace(&self, name: &str, value: &impl Serialize) -> Result<(), KeyError> {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let mut text = serde_json::to_vec_pretty(value).expect("records are JSON");
        text.push(b'\n');
        let write = || -> io::Result<()> {
            // What a crashed writer left may have another mode.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options.create_new(true).write(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(io_error(&path, "replacing the file"))
    }
}

/// Reads a file that only its owner may write; `None` when it does not exist.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, KeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "opening")(error)),
    };
    let wrong = |reason: String| KeyError::File { path: path.to_owned(), reason };
    let meta = file.metadata().map_err(io_error(path, "reading"))?;
    if meta.mode() & WRITABLE_BY_OTHERS != 0 {
        let mode = meta.mode() & 0o777;
        return Err(wrong(format!("others may write it (mode {mode:o}); set its mode to 600")));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(io_error(path, "reading"))?;
    let value = serde_json::from_slice(&text);
    value.map(Some).map_err(|error| wrong(format!("it is not what Weir writes there: {error}")))
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |error| KeyError::Io { path, action, error }
}
