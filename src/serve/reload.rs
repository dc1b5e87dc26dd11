//! Tenants and keys while the server runs: the settings file is read again when somebody asks, the
//! key file whenever it has changed. What is wrong changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::config::{Config, Secret, Source, Tenancy};
use crate::gate::{Gate, KeyFile, KeyState, KeyStore, LastUse, Stamp};
use crate::http::{AppState, Command, Reloaded};
use crate::metrics::{Metrics, ReloadOf};

/// The key file is looked at this often, so that a revoked key is refused within a second.
const KEYS_POLL: Duration = Duration::from_millis(250);
/// When keys were last used is written down this often.
const NOTE_USE: Duration = Duration::from_secs(30);

/// Puts new tenants and keys in force.
pub(super) struct Reloader {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// `None`: there is no folder, and so there are no keys.
    store: Option<KeyStore>,
    /// As it was when the server started.
    source: Option<Source>,
    in_force: Mutex<InForce>,
}

/// What a roster is made of.
struct InForce {
    tenancy: Tenancy,
    api_keys: Vec<Secret>,
    keys: Option<KeyFile>,
    /// State of the key file that was last looked at, good or not.
    stamp: Option<Stamp>,
    /// Use that has been noted on disk.
    noted: LastUse,
}

impl Reloader {
    /// For a server that was started with this `config` and these `keys`; `stamp` was taken before
    /// the keys were read.
    pub(super) fn new(
        config: &Config,
        keys: Option<KeyFile>,
        stamp: Option<Stamp>,
        state: &AppState,
    ) -> Self {
        let in_force = InForce {
            tenancy: config.server.tenancy.clone(),
            api_keys: config.server.api_keys.clone(),
            keys,
            stamp,
            noted: LastUse::default(),
        };
        Self {
            gate: Arc::clone(&state.gate),
            metrics: Arc::clone(&state.metrics),
            clock: Arc::clone(&state.clock),
            store: config.server.state_dir.clone().map(KeyStore::new),
            source: config.source.clone(),
            in_force: Mutex::new(in_force),
        }
    }

    /// Reads the settings file and the key file again.
    ///
    /// # Errors
    /// What is wrong with either; all then is as it was.
    pub(super) fn reload(&self) -> Result<Reloaded, String> {
        let outcome = self.try_reload();
        self.metrics.reload(ReloadOf::Settings, outcome.is_ok());
        match &outcome {
            Ok(reloaded) => {
                tracing::info!(tenants = reloaded.tenants, keys = reloaded.keys, "reloaded");
                if !reloaded.needs_restart.is_empty() {
                    let settings = reloaded.needs_restart.join(", ");
                    tracing::warn!(settings, "changed settings that only a restart puts in force");
                }
                if !self.gate.ledger().has_log() && self.lock().tenancy.has_budget() {
                    tracing::warn!(
                        "token budgets live in memory: only a start opens a ledger for them"
                    );
                }
            }
            Err(reason) => tracing::error!(%reason, "reload refused; all stays as it was"),
        }
        outcome
    }

    /// Looks whether the key file has changed, and reads it if so.
    pub(super) fn poll_keys(&self) {
        let Some(store) = &self.store else { return };
        let mut in_force = self.lock();
        let stamp = store.stamp();
        if stamp == in_force.stamp {
            return;
        }
        in_force.stamp = stamp;
        match store.read() {
            Ok(None) if in_force.keys.is_some() => {
                let path = store.path();
                tracing::error!(path = %path.display(), "the key file is gone; its keys stay valid");
                self.metrics.reload(ReloadOf::Keys, false);
            }
            Ok(keys) => {
                in_force.keys = keys;
                self.put_in_force(&in_force);
                self.metrics.reload(ReloadOf::Keys, true);
            }
            Err(error) => {
                tracing::error!(%error, "the key file is refused; the keys stay as they were");
                self.metrics.reload(ReloadOf::Keys, false);
            }
        }
    }

    /// Writes down when keys were last used, if that has changed.
    pub(super) fn note_use(&self) {
        let Some(store) = &self.store else { return };
        let mut in_force = self.lock();
        let uses = self.gate.rosters().current().last_use();
        let Some(keys) = in_force.keys.as_ref().filter(|_| uses != in_force.noted) else { return };
        match store.note_use(&uses, keys) {
            Ok(()) => in_force.noted = uses,
            Err(error) => tracing::warn!(%error, "the last use of keys could not be noted"),
        }
    }

    fn try_reload(&self) -> Result<Reloaded, String> {
        let mut in_force = self.lock();
        let config = match &self.source {
            Some(source) => Some(source.read().map_err(|error| error.to_string())?),
            None => None,
        };
        if let Some(store) = &self.store {
            let stamp = store.stamp();
            let keys = store.read().map_err(|error| error.to_string())?;
            if keys.is_none() && in_force.keys.is_some() {
                return Err(format!("the key file {} is gone", store.path().display()));
            }
            (in_force.keys, in_force.stamp) = (keys, stamp);
        }
        let mut needs_restart = Vec::new();
        if let Some(config) = config {
            let newer = config.source.as_ref();
            needs_restart = self
                .source
                .as_ref()
                .zip(newer)
                .map(|(started, newer)| started.needs_restart(newer))
                .unwrap_or_default();
            in_force.tenancy = config.server.tenancy;
            in_force.api_keys = config.server.api_keys;
        }
        self.put_in_force(&in_force);
        let now = self.clock.unix_s();
        let records = in_force.keys.iter().flat_map(|file| &file.keys);
        Ok(Reloaded {
            tenants: in_force.tenancy.tenants.len() + 1,
            keys: records.filter(|key| key.state(now) == KeyState::Live).count(),
            needs_restart,
        })
    }

    fn put_in_force(&self, in_force: &InForce) {
        let keys = in_force.keys.as_ref();
        self.gate.rosters().replace(&in_force.tenancy, &in_force.api_keys, keys);
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens for SIGHUP, which without this would end the process.
///
/// # Errors
/// When the system does not let it.
pub(super) fn hangup() -> Result<Signal> {
    signal(SignalKind::hangup()).context("SIGHUP cannot be listened for")
}

/// Obeys commands and SIGHUP, watches the key file and notes the use of keys, until it is dropped.
pub(super) async fn keep(
    reloader: Arc<Reloader>,
    mut hangup: Signal,
    mut commands: mpsc::Receiver<Command>,
    drain_asked: Arc<Notify>,
) {
    let mut poll = tokio::time::interval(KEYS_POLL);
    let mut note = tokio::time::interval(NOTE_USE);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Files are read and written beside the sockets' threads, one after the other.
    let on_disk = async |work: fn(&Reloader)| {
        let reloader = Arc::clone(&reloader);
        let _ = tokio::task::spawn_blocking(move || work(&reloader)).await;
    };
    loop {
        tokio::select! {
            Some(command) = commands.recv() => match command {
                Command::Reload(answer) => {
                    let reloader = Arc::clone(&reloader);
                    let reload = move || answer.send(reloader.reload());
                    let _ = tokio::task::spawn_blocking(reload).await;
                }
                Command::Drain => drain_asked.notify_one(),
            },
            Some(()) = hangup.recv() => on_disk(|reloader| drop(reloader.reload())).await,
            _ = poll.tick() => on_disk(Reloader::poll_keys).await,
            _ = note.tick() => on_disk(Reloader::note_use).await,
        }
    }
}
