//! On which terms a request wants to be served: its tier, and its deadline.

use std::time::Duration;

use http::HeaderMap;

use super::error::{Fault, Invalid};
use super::fields::{Fields, wrong_value};
use crate::clock::Time;

/// Header with the milliseconds that a request may take from its arrival to its last token.
const DEADLINE: &str = "x-weir-deadline-ms";
/// A day: more is as good as none.
const DEADLINE_MS_MAX: u64 = 86_400_000;

/// `service_tier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// The tenant's class and its promise.
    Default,
    /// No promise: it waits as long as it takes, and runs when others leave room.
    Flex,
}

impl Tier {
    /// As answers name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Tier::Default => "default",
            Tier::Flex => "flex",
        }
    }

    /// The tier that a request names, if it names one. `auto` leaves the choice to the server.
    ///
    /// # Errors
    /// [`Invalid`] for a tier that does not exist here.
    pub(super) fn read(fields: &mut Fields) -> Result<Option<Self>, Invalid> {
        match fields.string("service_tier", usize::MAX)?.as_deref() {
            None => Ok(None),
            Some("auto" | "default") => Ok(Some(Tier::Default)),
            Some("flex") => Ok(Some(Tier::Flex)),
            Some(_) => {
                let says = "this server has the tiers 'auto', 'default' and 'flex'";
                Err(wrong_value("service_tier".to_owned(), says))
            }
        }
    }
}

/// The deadline that a request's headers set, if they do.
///
/// # Errors
/// [`Invalid`] when it is not a number of milliseconds.
pub(super) fn deadline(headers: &HeaderMap, arrived: Time) -> Result<Option<Time>, Invalid> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match ms.filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms)) {
        Some(ms) => Ok(Some(arrived.plus(Duration::from_millis(ms)))),
        None => Err(Invalid {
            param: DEADLINE.to_owned(),
            fault: Fault::Value,
            message: format!(
                "the header '{DEADLINE}' is not a whole number of milliseconds between 1 and \
                 {DEADLINE_MS_MAX}; leave it out for a request without a deadline"
            ),
        }),
    }
}
