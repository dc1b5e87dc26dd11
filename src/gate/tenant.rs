//! Who asks: the tenant behind a request.

use std::sync::Arc;

use super::scope::Scopes;
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

impl Tenant {
    /// Its name, for labels and logs.
    pub fn name(&self) -> &str {
        &self.settings.name
    }
}
