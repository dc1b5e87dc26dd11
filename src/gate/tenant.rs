//! Who asks: API keys and the tenants behind them.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::refusal::Refusal;
use crate::ids::TenantId;

/// A tenant. Only this file makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    id: TenantId,
    name: Arc<str>,
}

/// The configured keys; only their digests are kept.
#[derive(Debug)]
pub struct Keys {
    digests: Vec<[u8; 32]>,
    tenant: Tenant,
}

impl Tenant {
    /// Its id.
    pub fn id(&self) -> TenantId {
        self.id
    }

    /// Its name, for labels and logs.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Keys {
    /// Keys that all stand for the one tenant "default"; with no keys everybody is that tenant.
    pub fn new(keys: &[String]) -> Self {
        let digests = keys.iter().map(|k| *blake3::hash(k.as_bytes()).as_bytes()).collect();
        Self { digests, tenant: Tenant { id: TenantId(0), name: Arc::from("default") } }
    }

    /// The tenant behind a bearer token. Compares digests in constant time, and all of them, so
    /// that the time taken says nothing about the keys.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] or [`Refusal::InvalidKey`].
    pub fn identify(&self, bearer: Option<&str>) -> Result<Tenant, Refusal> {
        if self.digests.is_empty() {
            return Ok(self.tenant.clone());
        }
        let Some(key) = bearer.filter(|k| !k.is_empty()) else {
            return Err(Refusal::MissingKey);
        };
        let digest = blake3::hash(key.as_bytes());
        let hit = self.digests.iter().fold(subtle::Choice::from(0), |hit, known| {
            hit | known[..].ct_eq(&digest.as_bytes()[..])
        });
        if bool::from(hit) { Ok(self.tenant.clone()) } else { Err(Refusal::InvalidKey) }
    }
}
