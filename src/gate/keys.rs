//! API keys: what a key looks like, what is kept of it, and the rules of its life. Only digests are
//! kept: whoever reads the key file cannot use any key of it (R28).

mod store;

#[cfg(test)]
mod tests;

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use store::{KeyStore, LastUse, Stamp};

use super::scope::{Scope, Scopes};

/// Bytes of a key as clients send it; a longer one is none of ours and is not hashed.
pub const KEY_BYTES_MAX: usize = 512;
/// Records that the key file may have.
pub const KEYS_MAX: usize = 100_000;
/// Random bytes that a new key is made of: its id and its secret.
pub const KEY_RANDOM_BYTES: usize = ID_RANDOM_BYTES + SECRET_RANDOM_BYTES;

const PREFIX: &str = "weir_";
const ID_RANDOM_BYTES: usize = 8;
const SECRET_RANDOM_BYTES: usize = 32;
const LABEL_CHARS_MAX: usize = 64;
/// Keys that have been dead for this long leave the file at its next change.
const DEAD_KEPT_S: u64 = 90 * 86_400;

/// Why something cannot be done with keys.
#[derive(Debug, Error)]
pub enum KeyError {
    /// No folder to keep them in.
    #[error("there is no folder for keys: set --state-dir (neither XDG_STATE_HOME nor HOME is)")]
    NoFolder,
    /// A file.
    #[error("{}: {action} failed: {error}", .path.display())]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file that is not what it has to be.
    #[error("{}: {reason}", .path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No such key.
    #[error("there is no key {id:?}; `weir keys list` shows those there are")]
    Unknown {
        /// As asked for.
        id: String,
    },
    /// A rule of keys forbids it.
    #[error("{0}")]
    Forbidden(String),
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The part before the dot, without "weir_"; public.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// BLAKE3 of the secret, in hexadecimal.
    pub digest: Digest,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it was made, in seconds since 1970, as all times here.
    pub created_unix_s: u64,
    /// From then on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_s: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_unix_s: Option<u64>,
    /// The key that takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// BLAKE3 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// What a new key is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Whose.
    pub tenant: String,
    /// What people call it.
    pub label: Option<String>,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it expires, in seconds since 1970.
    pub expires_unix_s: Option<u64>,
}

/// All keys, as the key file has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Of the file's form.
    version: Version,
    /// In the order in which they were made.
    pub keys: Vec<KeyRecord>,
}

/// The one form of the file that there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version;

/// Whether a key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Yes.
    Live,
    /// No longer.
    Expired,
    /// Never again.
    Revoked,
}

impl KeyRecord {
    /// Whether it may be used at `unix_s`.
    pub fn state(&self, unix_s: u64) -> KeyState {
        if self.revoked_unix_s.is_some() {
            KeyState::Revoked
        } else if self.expires_unix_s.is_some_and(|end| end <= unix_s) {
            KeyState::Expired
        } else {
            KeyState::Live
        }
    }

    /// Since when it is dead.
    fn dead_since(&self) -> Option<u64> {
        match (self.revoked_unix_s, self.expires_unix_s) {
            (Some(revoked), Some(expired)) => Some(revoked.min(expired)),
            (revoked, expired) => revoked.or(expired),
        }
    }
}

impl KeyState {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Live => "live",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        }
    }
}

impl KeyFile {
    /// Makes a key from `random` bytes, notes it, and returns it whole: the only time that its
    /// secret exists here.
    ///
    /// # Errors
    /// [`KeyError::Forbidden`].
    pub fn create(
        &mut self,
        new: NewKey,
        random: &[u8; KEY_RANDOM_BYTES],
        unix_s: u64,
    ) -> Result<String, KeyError> {
        check_new(&new, unix_s)?;
        if self.keys.len() >= KEYS_MAX {
            let reason = format!("there are {KEYS_MAX} keys, no more are possible; revoke some");
            return Err(KeyError::Forbidden(reason));
        }
        let (id, secret) = random.split_at(ID_RANDOM_BYTES);
        let (id, secret) = (hex(id), hex(secret));
        let key = format!("{PREFIX}{id}.{secret}");
        self.keys.push(KeyRecord {
            id,
            tenant: new.tenant,
            label: new.label,
            digest: Digest::of(&secret),
            scopes: new.scopes,
            created_unix_s: unix_s,
            expires_unix_s: new.expires_unix_s,
            revoked_unix_s: None,
            replaced_by: None,
        });
        Ok(key)
    }

    /// Makes a key in the place of `id`, which goes on for `overlap_s` so that clients can change.
    /// The new key lives as long from now as the old one did from its making.
    ///
    /// # Errors
    /// [`KeyError::Unknown`] and, for a key that is dead, [`KeyError::Forbidden`].
    pub fn rotate(
        &mut self,
        id: &str,
        overlap_s: u64,
        random: &[u8; KEY_RANDOM_BYTES],
        unix_s: u64,
    ) -> Result<String, KeyError> {
        let old = self.live(id, unix_s)?.clone();
        let lifetime = old.expires_unix_s.map(|end| end.saturating_sub(old.created_unix_s));
        let new = NewKey {
            tenant: old.tenant,
            label: old.label,
            scopes: old.scopes,
            expires_unix_s: lifetime.map(|lifetime| unix_s.saturating_add(lifetime)),
        };
        let key = self.create(new, random, unix_s)?;
        let replaced_by = self.keys.last().map(|new| new.id.clone());
        let old = self.live(id, unix_s)?;
        let end = unix_s.saturating_add(overlap_s);
        old.expires_unix_s = Some(old.expires_unix_s.map_or(end, |earlier| earlier.min(end)));
        old.replaced_by = replaced_by;
        Ok(key)
    }

    /// Ends a key at once and for good. Returns its tenant.
    ///
    /// # Errors
    /// [`KeyError::Unknown`].
    pub fn revoke(&mut self, id: &str, unix_s: u64) -> Result<String, KeyError> {
        let record = self.find(id)?;
        record.revoked_unix_s.get_or_insert(unix_s);
        Ok(record.tenant.clone())
    }

    /// Sets when a key ends; an end in the past is one now.
    ///
    /// # Errors
    /// [`KeyError::Unknown`] and, for a key that is dead, [`KeyError::Forbidden`]: what has ended
    /// stays ended.
    pub fn expire(&mut self, id: &str, at_unix_s: u64, unix_s: u64) -> Result<(), KeyError> {
        self.live(id, unix_s)?.expires_unix_s = Some(at_unix_s.max(unix_s));
        Ok(())
    }

    /// Leaves out what has been dead for long.
    fn forget_dead(&mut self, unix_s: u64) {
        self.keys.retain(|key| {
            key.dead_since().is_none_or(|end| end.saturating_add(DEAD_KEPT_S) > unix_s)
        });
    }

    fn find(&mut self, id: &str) -> Result<&mut KeyRecord, KeyError> {
        // People paste the id with its prefix, as the key shows it.
        let plain = id.strip_prefix(PREFIX).unwrap_or(id);
        let found = self.keys.iter_mut().find(|key| key.id == plain);
        // Whoever pastes a whole key must not find its secret in the error.
        let shown = || id.split('.').next().unwrap_or_default().chars().take(32).collect();
        found.ok_or_else(|| KeyError::Unknown { id: shown() })
    }

    fn live(&mut self, id: &str, unix_s: u64) -> Result<&mut KeyRecord, KeyError> {
        let record = self.find(id)?;
        match record.state(unix_s) {
            KeyState::Live => Ok(record),
            state => Err(KeyError::Forbidden(format!(
                "the key {} is {}; create another one",
                record.id,
                state.as_str()
            ))),
        }
    }
}

impl Digest {
    /// Of this secret.
    pub fn of(secret: &str) -> Self {
        Self(*blake3::hash(secret.as_bytes()).as_bytes())
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        hex(&digest.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hash = blake3::Hash::from_hex(text.as_bytes());
        hash.map(|hash| Self(*hash.as_bytes())).map_err(|_| "a digest has 64 hexadecimal digits")
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> u32 {
        1
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, Self::Error> {
        if version == 1 {
            return Ok(Self);
        }
        Err(format!("version {version} is from another release of Weir; this one reads version 1"))
    }
}

/// Id and secret of a key that looks like one of ours.
pub(super) fn parts(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(PREFIX)?.split_once('.')
}

/// The rules of what a key may be.
fn check_new(new: &NewKey, unix_s: u64) -> Result<(), KeyError> {
    let forbidden = |reason: &str| Err(KeyError::Forbidden(reason.to_owned()));
    let scopes = new.scopes;
    if scopes.iter().next().is_none() {
        return forbidden("a key needs at least one --scope");
    }
    if scopes.has(Scope::Inference) && scopes.has(Scope::AdminWrite) {
        return forbidden(
            "no key may have both inference and admin:write: a key that is given to an \
             application must not change the server; create two keys",
        );
    }
    let is_admin = scopes.has(Scope::AdminRead) || scopes.has(Scope::AdminWrite);
    if is_admin && new.expires_unix_s.is_none() {
        return forbidden("a key with an admin scope has to end: add --expires, such as 90d");
    }
    if new.expires_unix_s.is_some_and(|end| end <= unix_s) {
        return forbidden("the key would be expired from the start");
    }
    let plain = |label: &String| {
        label.chars().count() <= LABEL_CHARS_MAX && !label.chars().any(char::is_control)
    };
    if !new.label.iter().all(plain) {
        let reason = format!("--name: at most {LABEL_CHARS_MAX} printable characters");
        return Err(KeyError::Forbidden(reason));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
