//! Who asks: API keys and the tenants behind them.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::refusal::Refusal;
use super::scope::{Scope, Scopes};
use crate::config::TenantSettings;
use crate::ids::TenantId;

/// A tenant: its settings at one moment. A reload makes new ones with the same ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// The same for the same name, as long as the process lives.
    pub id: TenantId,
    /// What it may do.
    pub settings: TenantSettings,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Whose key it is.
    pub tenant: Arc<Tenant>,
    /// What the key may be used for.
    pub scopes: Scopes,
}

/// The configured keys; only their digests are kept.
#[derive(Debug)]
pub struct Keys {
    digests: Vec<[u8; 32]>,
    tenant: Arc<Tenant>,
}

impl Tenant {
    /// Its name, for labels and logs.
    pub fn name(&self) -> &str {
        &self.settings.name
    }
}

impl Keys {
    /// Keys that all stand for one tenant; with no keys everybody is that tenant.
    pub fn new(keys: &[String], settings: TenantSettings) -> Self {
        let digests = keys.iter().map(|k| *blake3::hash(k.as_bytes()).as_bytes()).collect();
        Self { digests, tenant: Arc::new(Tenant { id: TenantId(0), settings }) }
    }

    /// The caller behind a bearer token. Compares digests in constant time, and all of them, so
    /// that the time taken says nothing about the keys.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] or [`Refusal::InvalidKey`].
    pub fn identify(&self, bearer: Option<&str>) -> Result<Caller, Refusal> {
        let caller = Caller { tenant: Arc::clone(&self.tenant), scopes: Scopes::of(&Scope::ALL) };
        if self.digests.is_empty() {
            return Ok(caller);
        }
        let Some(key) = bearer.filter(|k| !k.is_empty()) else {
            return Err(Refusal::MissingKey);
        };
        let digest = blake3::hash(key.as_bytes());
        let hit = self.digests.iter().fold(subtle::Choice::from(0), |hit, known| {
            hit | known[..].ct_eq(&digest.as_bytes()[..])
        });
        if bool::from(hit) { Ok(caller) } else { Err(Refusal::InvalidKey) }
    }
}
