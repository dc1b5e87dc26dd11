//! What a key may be used for.

use serde::{Deserialize, Serialize};

/// One kind of use. A route names the scope that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Generate, tokenise, render.
    Inference,
    /// List models.
    ModelsRead,
    /// Metrics and load of the server.
    MetricsRead,
    /// The own tenant's usage.
    UsageRead,
    /// Every tenant's state and usage.
    AdminRead,
    /// Change things: reload, drain.
    AdminWrite,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Scopes(u8);

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 6] = [
        Scope::Inference,
        Scope::ModelsRead,
        Scope::MetricsRead,
        Scope::UsageRead,
        Scope::AdminRead,
        Scope::AdminWrite,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Inference => "inference",
            Scope::ModelsRead => "models:read",
            Scope::MetricsRead => "metrics:read",
            Scope::UsageRead => "usage:read",
            Scope::AdminRead => "admin:read",
            Scope::AdminWrite => "admin:write",
        }
    }

    /// The scope of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

impl Scopes {
    /// These scopes.
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | 1 << *scope as u8))
    }

    /// Whether `scope` is one of them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Its scopes, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Vec<String> {
        scopes.iter().map(|scope| scope.name().to_owned()).collect()
    }
}

impl TryFrom<Vec<String>> for Scopes {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, Self::Error> {
        let scope = |name: &String| {
            Scope::from_name(name).ok_or_else(|| {
                let all = Scope::ALL.map(Scope::name).join(", ");
                format!("{name:?} is not a scope; there are {all}")
            })
        };
        let scopes: Vec<Scope> = names.iter().map(scope).collect::<Result<_, _>>()?;
        Ok(Self::of(&scopes))
    }
}
