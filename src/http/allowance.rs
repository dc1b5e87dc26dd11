//! What a tenant may ask of the server: the server's own bounds, and where the tenant has narrower
//! ones those, by the names that the settings file gives them.

use std::sync::Arc;

use super::error::{ApiError, ContextLength, Invalid};
use super::fields::wrong_value;
use super::state::{AppState, ModelCard};
use crate::config::TenantSettings;
use crate::gate::Tenant;

/// Characters of a name that an error repeats.
const NAME_CHARS_MAX: usize = 128;

/// See the file's head.
#[derive(Clone)]
pub(super) struct Allowance {
    state: Arc<AppState>,
    tenant: Arc<Tenant>,
}

/// How long prompt and output of a choice may be together.
#[derive(Clone, Debug)]
pub(super) struct ContextLimit {
    /// In tokens.
    pub(super) tokens: u32,
    /// The tenant, if the limit is its own and not the model's.
    of_tenant: Option<Arc<str>>,
}

impl Allowance {
    pub(super) fn new(state: &Arc<AppState>, tenant: &Arc<Tenant>) -> Self {
        Self { state: Arc::clone(state), tenant: Arc::clone(tenant) }
    }

    pub(super) fn state(&self) -> &AppState {
        &self.state
    }

    fn settings(&self) -> &TenantSettings {
        &self.tenant.settings
    }

    fn card(&self) -> &ModelCard {
        &self.state.model
    }

    /// Names of the model that the tenant may use.
    pub(super) fn models(&self) -> impl Iterator<Item = &str> {
        let allowed = self.settings().models.as_ref();
        let may = move |name: &&str| allowed.is_none_or(|all| all.iter().any(|one| one == name));
        self.card().names.iter().map(String::as_str).filter(may)
    }

    /// Checks the name by which a request calls the model; without one, that it may be used by any.
    ///
    /// # Errors
    /// [`ApiError::ModelNotFound`], for a name that does not exist and one that the tenant may not
    /// use alike.
    pub(super) fn check_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        let may = match name {
            Some(name) => self.models().any(|known| known == name),
            None => self.models().next().is_some(),
        };
        if may {
            return Ok(());
        }
        let name = name.unwrap_or_else(|| self.card().name()).chars().take(NAME_CHARS_MAX);
        let known: Vec<String> = self.models().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let served = match self.settings().models {
            None => format!("this server serves {known}"),
            Some(_) => format!("the tenant `{}` may use {known}", self.tenant.name()),
        };
        Err(ApiError::ModelNotFound { name: name.collect(), served })
    }

    /// The bound of prompt and output together.
    pub(super) fn context(&self) -> ContextLimit {
        let of_model = self.card().max_model_len;
        match self.settings().context_tokens_max.filter(|own| *own < of_model) {
            Some(tokens) => {
                ContextLimit { tokens, of_tenant: Some(Arc::clone(&self.settings().name)) }
            }
            None => ContextLimit { tokens: of_model, of_tenant: None },
        }
    }

    /// Output tokens of a choice that names no maximum, where the server's default is `default`.
    pub(super) fn default_output(&self, default: u32) -> u32 {
        let settings = self.settings();
        let default = settings.output_tokens_default.unwrap_or(default);
        settings.output_tokens_max.map_or(default, |max| default.min(max))
    }

    /// Checks the output tokens that a request asks for.
    ///
    /// # Errors
    /// [`Invalid`] naming the tenant's limit.
    pub(super) fn check_output(&self, asked: u32) -> Result<(), Invalid> {
        self.check("max_tokens", asked, self.settings().output_tokens_max, "max-output-tokens")
    }

    /// Checks the choices that a request asks for.
    ///
    /// # Errors
    /// [`Invalid`] naming the tenant's limit.
    pub(super) fn check_choices(&self, asked: u32) -> Result<(), Invalid> {
        self.check("n", asked, self.settings().choices_max, "max-choices")
    }

    fn check(&self, param: &str, asked: u32, max: Option<u32>, by: &str) -> Result<(), Invalid> {
        let Some(max) = max.filter(|max| asked > *max) else { return Ok(()) };
        let tenant = self.tenant.name();
        let says = format!("it is {asked}, but the tenant `{tenant}` may ask for {max} ({by})");
        Err(wrong_value(param.to_owned(), &says))
    }
}

impl ContextLimit {
    /// What is said to a request that goes beyond it.
    pub(super) fn exceeded(&self, prompt: u32, output: u32, param: &'static str) -> ContextLength {
        let of_tenant = self.of_tenant.clone();
        ContextLength { limit: self.tokens, of_tenant, prompt, output, param }
    }
}
