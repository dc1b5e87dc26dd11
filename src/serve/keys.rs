//! `weir keys …`: keys are made, shown and ended in the key file, which running servers watch.

use anyhow::{Context, Result, bail};
use chrono::DateTime;
use serde_json::{Value, json};

use super::random;
use crate::clock::{Clock, SystemClock};
use crate::config::{KeysAction, KeysRequest, Tenancy};
use crate::gate::{KeyError, KeyFile, KeyRecord, KeyState, KeyStore, LastUse, NewKey, Scopes};

/// Does what was asked, and says so: secrets and lists on standard output, the rest on standard
/// error, so that a new key can be piped.
///
/// # Errors
/// What went wrong and what to do about it.
pub fn run(request: KeysRequest) -> Result<()> {
    let store = KeyStore::new(request.state_dir.ok_or(KeyError::NoFolder)?);
    let now = SystemClock::new().unix_s();
    match request.action {
        KeysAction::Create { tenant, scopes, expires, name } => {
            let scopes =
                Scopes::try_from(scopes).map_err(|reason| anyhow::anyhow!("--scope: {reason}"))?;
            check_tenant(&tenant, request.tenancy.as_ref())?;
            let expires_unix_s = expires.map(|span| now.saturating_add(span.seconds));
            let new = NewKey { tenant, label: name, scopes, expires_unix_s };
            let random = random()?;
            let (key, record) = store.change(now, |file| {
                let key = file.create(new, &random, now)?;
                Ok((key, newest(file)))
            })?;
            show_new(&key, &record, &store);
        }
        KeysAction::List { json } => {
            let file = store.read()?.unwrap_or_default();
            list(&file, &store.last_use()?, now, json);
        }
        KeysAction::Rotate { id, overlap } => {
            let random = random()?;
            let (key, record) = store.change(now, |file| {
                let key = file.rotate(&id, overlap.seconds, &random, now)?;
                Ok((key, newest(file)))
            })?;
            show_new(&key, &record, &store);
            let end = time(now.saturating_add(overlap.seconds));
            eprintln!(
                "the old key {id} goes on until {end} at the latest; `weir keys list` shows when it was last used"
            );
        }
        KeysAction::Revoke { id } => {
            let tenant = store.change(now, |file| file.revoke(&id, now))?;
            eprintln!("revoked: {id} of {tenant}; running servers refuse it within a second");
        }
        KeysAction::Expire { id, at, after } => {
            let after = after.map(|span| now.saturating_add(span.seconds));
            let end = at.or(after).context("one of --at and --in is needed")?;
            store.change(now, |file| file.expire(&id, end, now))?;
            eprintln!("{id} ends {}", time(end));
        }
    }
    Ok(())
}

/// A key of a tenant that the server does not know would only be refused.
fn check_tenant(tenant: &str, tenancy: Option<&Tenancy>) -> Result<()> {
    let Some(tenancy) = tenancy else {
        if tenant != "default" {
            eprintln!(
                "note: without --config it is not checked that the tenant {tenant:?} exists; its \
                 key is refused until the server's settings have [tenants.{tenant}]"
            );
        }
        return Ok(());
    };
    let names = || tenancy.tenants.iter().map(|tenant| &*tenant.name);
    if tenant == "default" || names().any(|name| name == tenant) {
        return Ok(());
    }
    let known: Vec<&str> = std::iter::once("default").chain(names()).collect();
    bail!(
        "--tenant: the settings file has no [tenants.{tenant}]; add it first (it has {})",
        known.join(", ")
    )
}

fn newest(file: &KeyFile) -> KeyRecord {
    file.keys.last().cloned().expect("one was just made")
}

#[allow(clippy::print_stdout, reason = "the key is the answer of the command")]
fn show_new(key: &str, record: &KeyRecord, store: &KeyStore) {
    eprintln!(
        "created: {} of {} ({}), {}; only a digest is kept, in {}. This is shown once:",
        record.id,
        record.tenant,
        Vec::from(record.scopes).join(", "),
        record.expires_unix_s.map_or("no end".to_owned(), |end| format!("ends {}", time(end))),
        store.path().display(),
    );
    println!("{key}");
}

#[allow(clippy::print_stdout, reason = "the list is the answer of the command")]
fn list(file: &KeyFile, uses: &LastUse, now: u64, as_json: bool) {
    let last_used = |key: &KeyRecord| uses.0.get(&key.id).copied();
    if as_json {
        let keys: Vec<Value> =
            file.keys.iter().map(|key| described(key, last_used(key), now)).collect();
        println!("{:#}", json!({ "keys": keys }));
        return;
    }
    let head = ["ID", "TENANT", "STATE", "ENDS", "LAST USED", "SCOPES", "NAME"].map(str::to_owned);
    let rows = file.keys.iter().map(|key| {
        let end = match (key.state(now), key.revoked_unix_s, key.expires_unix_s) {
            (KeyState::Revoked, Some(at), _) => time(at),
            (_, _, Some(at)) => time(at),
            (_, _, None) => "never".to_owned(),
        };
        [
            key.id.clone(),
            key.tenant.clone(),
            key.state(now).as_str().to_owned(),
            end,
            last_used(key).map_or("never".to_owned(), time),
            Vec::from(key.scopes).join(","),
            key.label.clone().unwrap_or_default(),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 7] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A key as JSON, without its digest.
fn described(key: &KeyRecord, last_used: Option<u64>, now: u64) -> Value {
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "name": key.label,
        "scopes": key.scopes,
        "state": key.state(now).as_str(),
        "created_unix_s": key.created_unix_s,
        "expires_unix_s": key.expires_unix_s,
        "revoked_unix_s": key.revoked_unix_s,
        "replaced_by": key.replaced_by,
        "last_used_unix_s": last_used,
    })
}

/// A time as people read it, in UTC.
fn time(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|s| DateTime::from_timestamp(s, 0));
    time.map_or("never".to_owned(), |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
