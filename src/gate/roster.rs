//! Who may come in: tenants and keys as they are at one moment. A reload makes a new roster and
//! puts it in the old one's place at once; requests read it without a lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use subtle::{Choice, ConstantTimeEq};

use super::keys::{self, Digest, KEY_BYTES_MAX, KeyFile, KeyRecord, KeyState, LastUse};
use super::refusal::Refusal;
use super::scope::{Scope, Scopes};
use super::tenant::{Caller, Tenant};
use crate::config::{Secret, Tenancy};
use crate::ids::TenantId;

/// What everybody may do on a server that has no keys, and so listens on loopback alone.
const SCOPES_WITHOUT_KEYS: [Scope; 5] =
    [Scope::Inference, Scope::ModelsRead, Scope::MetricsRead, Scope::UsageRead, Scope::AdminRead];
/// What the keys of `--api-key` may be used for.
const SCOPES_OF_API_KEYS: [Scope; 4] =
    [Scope::Inference, Scope::ModelsRead, Scope::MetricsRead, Scope::UsageRead];

/// The roster in force, and the ids that tenants have had since the start.
#[derive(Debug)]
pub struct Rosters {
    current: ArcSwap<Roster>,
    /// Bounded by the names that the settings file has had.
    ids: Mutex<HashMap<Arc<str>, TenantId>>,
}

/// See the file's head.
#[derive(Debug)]
pub struct Roster {
    /// The tenant "default", then the others.
    tenants: Vec<Arc<Tenant>>,
    keys: HashMap<String, Key>,
    api_keys: Vec<Digest>,
    needs_key: bool,
}

#[derive(Debug)]
struct Key {
    record: KeyRecord,
    /// `None`: the settings do not know the record's tenant.
    tenant: Option<Arc<Tenant>>,
    /// The same from roster to roster, in seconds since 1970; 0: not since the start.
    last_used_unix_s: Arc<AtomicU64>,
}

impl Rosters {
    /// The first roster.
    pub fn new(tenancy: &Tenancy, api_keys: &[Secret], keys: Option<&KeyFile>) -> Self {
        let mut ids = HashMap::new();
        let roster = Roster::build(&mut ids, tenancy, api_keys, keys, None);
        Self { current: ArcSwap::from_pointee(roster), ids: Mutex::new(ids) }
    }

    /// Puts another one in force. A server that asked for keys goes on asking, even when its last
    /// key has been taken away: only a start opens it.
    pub fn replace(&self, tenancy: &Tenancy, api_keys: &[Secret], keys: Option<&KeyFile>) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let roster = Roster::build(&mut ids, tenancy, api_keys, keys, Some(&self.current.load()));
        self.current.store(Arc::new(roster));
    }

    /// The one in force.
    pub fn current(&self) -> Arc<Roster> {
        self.current.load_full()
    }

    /// See [`Roster::identify`].
    ///
    /// # Errors
    /// See there.
    pub fn identify(&self, bearer: Option<&str>, unix_s: u64) -> Result<Caller, Refusal> {
        self.current.load().identify(bearer, unix_s)
    }
}

impl Roster {
    fn build(
        ids: &mut HashMap<Arc<str>, TenantId>,
        tenancy: &Tenancy,
        api_keys: &[Secret],
        keys: Option<&KeyFile>,
        before: Option<&Roster>,
    ) -> Self {
        let all = std::iter::once(&tenancy.default).chain(&tenancy.tenants);
        let tenants: Vec<Arc<Tenant>> = all
            .map(|settings| {
                let next = TenantId(u32::try_from(ids.len()).unwrap_or(u32::MAX));
                let id = *ids.entry(Arc::clone(&settings.name)).or_insert(next);
                Arc::new(Tenant { id, settings: settings.clone() })
            })
            .collect();
        let by_name: HashMap<&str, &Arc<Tenant>> = tenants.iter().map(|t| (t.name(), t)).collect();
        let records = keys.map(|file| file.keys.as_slice()).unwrap_or_default();
        let key = |record: &KeyRecord| {
            let before = before.and_then(|roster| roster.keys.get(&record.id));
            let key = Key {
                record: record.clone(),
                tenant: by_name.get(record.tenant.as_str()).map(|tenant| Arc::clone(tenant)),
                last_used_unix_s: before
                    .map(|key| Arc::clone(&key.last_used_unix_s))
                    .unwrap_or_default(),
            };
            (record.id.clone(), key)
        };
        let keys_by_id: HashMap<String, Key> = records.iter().map(key).collect();
        Self {
            keys: keys_by_id,
            api_keys: api_keys.iter().map(|key| Digest::of(key.reveal())).collect(),
            // Once a key was made the server is not open again because the last one has gone.
            needs_key: keys.is_some()
                || !api_keys.is_empty()
                || before.is_some_and(|roster| roster.needs_key),
            tenants,
        }
    }

    /// Whether requests need a key.
    pub fn needs_key(&self) -> bool {
        self.needs_key
    }

    /// All tenants: "default", then the named ones.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }

    /// What is kept of the keys of the key file, in no order, each with when this server last saw
    /// it, in seconds since 1970.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyRecord, Option<u64>)> {
        self.keys.values().map(|key| {
            let last = key.last_used_unix_s.load(Ordering::Relaxed);
            (&key.record, (last > 0).then_some(last))
        })
    }

    /// When this server last saw keys.
    pub fn last_use(&self) -> LastUse {
        let used = self.keys().filter_map(|(key, used)| Some((key.id.clone(), used?)));
        LastUse(used.collect())
    }

    /// The caller behind a bearer token at `unix_s`. The time taken depends on the token's length
    /// and form alone: digests are compared in constant time, an unknown id is compared too, and
    /// all keys of `--api-key` are.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`], [`Refusal::InvalidKey`]; and for whoever proves to have the key,
    /// [`Refusal::ExpiredKey`], [`Refusal::RevokedKey`] and [`Refusal::UnknownTenant`].
    pub fn identify(&self, bearer: Option<&str>, unix_s: u64) -> Result<Caller, Refusal> {
        let default = || Arc::clone(&self.tenants[0]);
        if !self.needs_key {
            return Ok(Caller { tenant: default(), scopes: Scopes::of(&SCOPES_WITHOUT_KEYS) });
        }
        let Some(bearer) = bearer.filter(|bearer| !bearer.is_empty()) else {
            return Err(Refusal::MissingKey);
        };
        if bearer.len() > KEY_BYTES_MAX {
            return Err(Refusal::InvalidKey);
        }
        let ours = keys::parts(bearer).map(|(id, secret)| (self.keys.get(id), Digest::of(secret)));
        let proven = ours.and_then(|(key, digest)| {
            let known = key.map_or(NO_DIGEST, |key| key.record.digest);
            let equal = bool::from(digest.0.ct_eq(&known.0));
            key.filter(|_| equal)
        });
        let digest = Digest::of(bearer);
        let is_api_key =
            self.api_keys.iter().fold(Choice::from(0), |hit, known| hit | known.0.ct_eq(&digest.0));
        match proven {
            Some(key) => key.caller(unix_s),
            None if bool::from(is_api_key) => {
                Ok(Caller { tenant: default(), scopes: Scopes::of(&SCOPES_OF_API_KEYS) })
            }
            None => Err(Refusal::InvalidKey),
        }
    }
}

/// What an unknown id is compared with. Equal digests would not help: the key is not there.
const NO_DIGEST: Digest = Digest([0; 32]);

impl Key {
    /// Whom it stands for, if it may be used.
    fn caller(&self, unix_s: u64) -> Result<Caller, Refusal> {
        match self.record.state(unix_s) {
            KeyState::Live => {}
            KeyState::Expired => return Err(Refusal::ExpiredKey),
            KeyState::Revoked => return Err(Refusal::RevokedKey),
        }
        let Some(tenant) = &self.tenant else { return Err(Refusal::UnknownTenant) };
        // Most requests of a second find it noted: the cache line stays shared.
        if self.last_used_unix_s.load(Ordering::Relaxed) != unix_s {
            self.last_used_unix_s.store(unix_s, Ordering::Relaxed);
        }
        Ok(Caller { tenant: Arc::clone(tenant), scopes: self.record.scopes })
    }
}

#[cfg(test)]
mod tests;
