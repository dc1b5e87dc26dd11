//! Keys and the tenants behind them.

use super::*;
use crate::config::TenantSettings;
use crate::gate::{KEY_RANDOM_BYTES, NewKey};

fn tenancy(names: &[&str]) -> Tenancy {
    let tenant =
        |name: &&str| TenantSettings { name: Arc::from(*name), ..TenantSettings::default() };
    Tenancy { tenants: names.iter().map(tenant).collect(), ..Tenancy::default() }
}

fn key(file: &mut KeyFile, tenant: &str, random: u8, expires_unix_s: Option<u64>) -> String {
    let scopes = Scopes::of(&[Scope::Inference]);
    let new = NewKey { tenant: tenant.to_owned(), label: None, scopes, expires_unix_s };
    file.create(new, &[random; KEY_RANDOM_BYTES], 1).expect("a good key")
}

#[test]
fn keys_are_compared_whole_and_by_case() {
    let api_keys = [Secret::from("Secret"), Secret::from("other")];
    let mut file = KeyFile::default();
    let mine = key(&mut file, "acme", 0xab, None);
    let rosters = Rosters::new(&tenancy(&["acme"]), &api_keys, Some(&file));
    let default = rosters.identify(Some("Secret"), 5).expect("known");
    assert_eq!(default.tenant.name(), "default");
    assert!(default.scopes.has(Scope::UsageRead) && !default.scopes.has(Scope::AdminRead));
    let acme = rosters.identify(Some(&mine), 5).expect("known");
    assert_eq!((acme.tenant.name(), acme.scopes), ("acme", Scopes::of(&[Scope::Inference])));
    let (upper, cut) = (mine.to_uppercase(), &mine[..mine.len() - 1]);
    let (longer, long) = (format!("{mine}0"), "x".repeat(1 << 20));
    let zero = format!("weir_{}.{}", "00".repeat(8), "00".repeat(32));
    for wrong in ["secret", "Secre", "Secret ", &upper, cut, &longer, &long, &zero, "weir_.", "."] {
        assert_eq!(rosters.identify(Some(wrong), 5), Err(Refusal::InvalidKey), "{wrong:.99}");
    }
    for missing in [None, Some("")] {
        assert_eq!(rosters.identify(missing, 5), Err(Refusal::MissingKey));
    }
    assert_eq!(rosters.current().last_use().0.values().copied().collect::<Vec<_>>(), [5]);
}

#[test]
fn without_any_key_everybody_is_default_but_changes_nothing() {
    let rosters = Rosters::new(&tenancy(&["acme"]), &[], None);
    let caller = rosters.identify(Some("anything"), 0).expect("open");
    assert_eq!(caller.tenant.name(), "default");
    assert!(caller.scopes.has(Scope::AdminRead) && !caller.scopes.has(Scope::AdminWrite));
}

#[test]
fn a_key_ends_when_it_expires_is_revoked_or_its_tenant_goes() {
    let mut file = KeyFile::default();
    let (short, gone) = (key(&mut file, "acme", 1, Some(10)), key(&mut file, "gone", 2, None));
    let revoked = key(&mut file, "acme", 3, None);
    let id = file.keys[2].id.clone();
    let rosters = Rosters::new(&tenancy(&["acme", "gone"]), &[], Some(&file));
    for key in [&short, &gone, &revoked] {
        rosters.identify(Some(key), 9).expect("still good");
    }
    file.revoke(&id, 9).expect("known");
    rosters.replace(&tenancy(&["acme"]), &[], Some(&file));
    assert_eq!(rosters.identify(Some(&short), 10), Err(Refusal::ExpiredKey));
    assert_eq!(rosters.identify(Some(&gone), 9), Err(Refusal::UnknownTenant));
    assert_eq!(rosters.identify(Some(&revoked), 9), Err(Refusal::RevokedKey));
    assert_eq!(rosters.current().last_use().0.len(), 3, "noted across rosters");
}

#[test]
fn ids_stay_with_names_and_a_closed_server_stays_closed() {
    let api_keys = [Secret::from("a")];
    let rosters = Rosters::new(&tenancy(&["acme", "beta"]), &api_keys, None);
    let ids = || -> Vec<(String, u32)> {
        let roster = rosters.current();
        roster.tenants().iter().map(|t| (t.name().to_owned(), t.id.0)).collect()
    };
    let named = |list: &[(&str, u32)]| -> Vec<(String, u32)> {
        list.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
    };
    assert_eq!(ids(), named(&[("default", 0), ("acme", 1), ("beta", 2)]));
    rosters.replace(&tenancy(&["beta", "new"]), &[], None);
    assert_eq!(ids(), named(&[("default", 0), ("beta", 2), ("new", 3)]));
    assert_eq!(rosters.identify(None, 0), Err(Refusal::MissingKey));
}
