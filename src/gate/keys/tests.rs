//! The life of a key, and the file that keeps it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-keys-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder.join("state")
}

fn new(scopes: &[Scope], expires_unix_s: Option<u64>) -> NewKey {
    NewKey { tenant: "acme".into(), label: None, scopes: Scopes::of(scopes), expires_unix_s }
}

fn random(byte: u8) -> [u8; KEY_RANDOM_BYTES] {
    [byte; KEY_RANDOM_BYTES]
}

#[test]
fn what_is_kept_does_not_let_anybody_in() {
    let mut file = KeyFile::default();
    let key = file.create(new(&[Scope::Inference], None), &random(7), 1).expect("a good key");
    let (id, secret) = parts(&key).expect("it looks like one");
    assert_eq!((id.len(), secret.len()), (16, 64));
    let kept = serde_json::to_string(&file).expect("JSON");
    assert!(kept.contains(id) && !kept.contains(secret), "{kept}");
    assert_eq!(serde_json::from_str::<KeyFile>(&kept).expect("readable"), file);
    let error = file.revoke(&format!("{key}x"), 1).expect_err("no such id").to_string();
    assert!(!error.contains(secret), "{error}");
}

#[test]
fn rules_hold_for_new_keys() {
    let mut file = KeyFile::default();
    for (key, says) in [
        (new(&[], None), "--scope"),
        (new(&[Scope::Inference, Scope::AdminWrite], Some(9)), "create two keys"),
        (new(&[Scope::AdminWrite], None), "--expires"),
        (new(&[Scope::AdminRead], None), "--expires"),
        (new(&[Scope::Inference], Some(5)), "expired from the start"),
        (NewKey { label: Some("x".repeat(65)), ..new(&[Scope::Inference], None) }, "--name"),
    ] {
        let error = file.create(key, &random(1), 5).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(file.keys.is_empty());
}

#[test]
fn a_rotated_key_goes_on_for_the_overlap() {
    let mut file = KeyFile::default();
    file.create(new(&[Scope::AdminRead], Some(1000)), &random(1), 0).expect("a good key");
    let old = file.keys[0].id.clone();
    file.rotate(&old, 100, &random(2), 500).expect("it lives");
    let [before, after] = &file.keys[..] else { panic!("two keys") };
    assert_eq!((before.expires_unix_s, after.expires_unix_s), (Some(600), Some(1500)));
    assert_eq!(before.replaced_by.as_ref(), Some(&after.id));
    assert_eq!((before.state(599), before.state(600)), (KeyState::Live, KeyState::Expired));
    assert!(file.rotate(&old, 100, &random(3), 600).is_err(), "it is dead");
    assert!(file.expire(&old, 2000, 600).is_err(), "what has ended stays ended");
    file.revoke(&format!("weir_{old}"), 700).expect("known");
    assert_eq!(file.keys[0].state(0), KeyState::Revoked);
}

#[test]
fn only_the_owner_reads_the_files_and_dead_keys_leave_in_time() {
    let folder = scratch("modes");
    let store = KeyStore::new(folder.clone());
    assert_eq!((store.read().expect("fine"), store.stamp()), (None, None));
    let key = |byte| {
        move |file: &mut KeyFile| file.create(new(&[Scope::Inference], Some(50)), &random(byte), 1)
    };
    store.change(1, key(1)).expect("written");
    let stamp = store.stamp();
    store.change(1, key(2)).expect("written");
    assert_ne!(store.stamp(), stamp);
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!((mode(&folder), mode(&store.path())), (0o700, 0o600));
    let file = store.read().expect("readable").expect("there are keys");
    assert_eq!(file.keys.len(), 2);
    let uses = [(file.keys[0].id.clone(), 9), ("unknown".to_owned(), 9)];
    store.note_use(&LastUse(uses.into()), &file).expect("written");
    let earlier = [(file.keys[0].id.clone(), 8)];
    store.note_use(&LastUse(earlier.into()), &file).expect("written");
    assert_eq!(store.last_use().expect("readable").0, [(file.keys[0].id.clone(), 9)].into());
    store.change(50 + DEAD_KEPT_S, |_| Ok(())).expect("written");
    assert_eq!(store.read().expect("readable").expect("the file stays").keys, []);

    std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o620)).expect("ours");
    let error = store.read().expect_err("others may write it").to_string();
    assert!(error.contains("mode 620"), "{error}");
    for (text, says) in [("{", "EOF"), ("{\"version\": 2, \"keys\": []}", "version 2")] {
        let _ = std::fs::remove_file(store.path());
        std::fs::write(store.path(), text).expect("ours");
        let error = store.read().expect_err("not a key file").to_string();
        assert!(error.contains(says), "{error}");
        assert!(store.change(1, |_| Ok(())).is_err(), "it is not overwritten");
    }
}

#[test]
fn writers_do_not_lose_each_others_keys() {
    let store = KeyStore::new(scratch("writers"));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for turn in 0..4 {
                    let bytes = random(writer * 4 + turn);
                    let change =
                        |file: &mut KeyFile| file.create(new(&[Scope::Inference], None), &bytes, 1);
                    store.change(1, change).expect("written");
                }
            });
        }
    });
    assert_eq!(store.read().expect("readable").expect("there are keys").keys.len(), 32);
}
