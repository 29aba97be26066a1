//! Encryption at rest, the leader's upkeep, and sealing with another key.

use super::world::{Disk, KEY_FILE, Master, OBJECT, Site, UID, authorities, established, key_file, pin};
use super::*;
use crate::model::secret::Secret;
use crate::store::fake::Fault;
use std::cell::RefCell;

const CONFIG: &str = "/etc/kubernetes/encryption.yaml";

/// A master whose API server is told of a file of encryption at rest, with this content if any.
fn encrypting(site: &Site, content: Option<&str>) -> Master {
    at(site, CONFIG, content)
}

fn at(site: &Site, path: &str, content: Option<&str>) -> Master {
    let arguments = json!({ "extraArgs": [{ "name": "encryption-provider-config", "value": path }] });
    let master = site.with(
        |settings| {
            settings.pki = Some(PkiSettings::KeyFile(KEY_FILE.into()));
            settings.kubeadm.cluster.insert("apiServer".to_owned(), arguments);
        },
        None,
    );
    if let Some(content) = content {
        master.disk.put(path, content, 0o600);
    }
    master
}

fn equipped(disk: &Disk, n: u8) {
    for ((public, private), pair) in FILES.into_iter().zip(disk::pairs(&authorities(n))) {
        disk.put(public, pair.public.clone(), 0o644);
        disk.put(private, pair.private.expose(), 0o600);
    }
}

fn sealed_by(site: &Site, master: &Master) -> PkiMaterial {
    now(async { seal_new(&master.node, &master.held(&site.lab, 1).await).await }).expect("sealed")
}

#[test]
fn the_file_of_encryption_at_rest_goes_with_the_keys() {
    let site = Site::new();
    let material = sealed_by(&site, &encrypting(&site, Some("secret-a")));
    let joiner = encrypting(&site, None);
    let register = established(UID, &material.ca);
    let fetched = now(fetch(&joiner.node, &register)).expect("opened").expect("there");
    place(&joiner.node, &fetched).expect("placed");
    assert_eq!((joiner.disk.text(CONFIG).as_deref(), joiner.disk.mode(CONFIG)), (Some("secret-a"), Some(0o600)));
    place(&joiner.node, &fetched).expect("placed again");
}

#[test]
fn a_joiner_whose_encryption_at_rest_differs_is_refused_and_gets_no_keys() {
    let site = Site::new();
    let with = sealed_by(&site, &encrypting(&site, Some("secret-a")));
    let without = PkiMaterial { encryption: None, ..with.clone() };
    let other = "/etc/kubernetes/other.yaml";
    let table = [
        (encrypting(&site, Some("secret-a")), &with, None),
        (encrypting(&site, None), &with, None),
        (site.master(), &without, None),
        (encrypting(&site, Some("secret-b")), &with, Some("differs")),
        (at(&site, other, Some("secret-a")), &with, Some("theirs is")),
        (site.master(), &with, Some("name none")),
        (encrypting(&site, Some("secret-a")), &without, Some("they have none")),
        (at(&site, "/etc/../x", None), &with, Some("absolute")),
    ];
    for (master, material, refusal) in table {
        match (encryption_matches(&master.node, material), refusal) {
            (Ok(()), None) => {}
            (Err(failure), Some(text)) => {
                assert_eq!(failure.cause, Cause::Configuration);
                assert!(failure.detail.contains(text) && !failure.to_string().contains("secret-"), "{failure}");
                assert!(place(&master.node, material).is_err() && master.disk.written.borrow().is_empty());
            }
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn a_configured_file_that_is_missing_stops_the_first_master() {
    let site = Site::new();
    let master = encrypting(&site, None);
    let held = now(master.held(&site.lab, 1));
    assert_eq!(cause(now(seal_new(&master.node, &held))), Cause::Configuration);
    assert_eq!(site.lab.objects.body(OBJECT), None);
}

#[test]
fn the_leader_seals_what_an_older_cluster_has_and_asks_no_more_than_it_must() {
    let site = Site::new();
    let leader = site.master();
    let register = established(UID, &pin(50));
    let judged = RefCell::default();
    assert_eq!(cause(now(keep(&leader.node, &register, &judged))), Cause::ForeignState);
    equipped(&leader.disk, 60);
    assert_eq!(cause(now(keep(&leader.node, &register, &judged))), Cause::ForeignCluster);
    assert_eq!(site.lab.objects.body(OBJECT), None);
    equipped(&leader.disk, 50);
    assert_eq!(now(keep(&leader.node, &register, &judged)), Ok(Kept::Sealed));
    // Not opened again: the key could even be gone.
    leader.disk.put(KEY_FILE, "", 0o600);
    assert_eq!(now(keep(&leader.node, &register, &judged)), Ok(Kept::Same));
    let next = site.master();
    assert_eq!(now(keep(&next.node, &register, &RefCell::default())), Ok(Kept::Same));
    assert_eq!(site.lab.objects.history(OBJECT).len(), 1);
}

#[test]
fn a_changed_encryption_at_rest_replaces_the_bundle_and_not_the_ca() {
    let site = Site::new();
    let leader = encrypting(&site, Some("secret-a"));
    let before = sealed_by(&site, &leader);
    let register = established(UID, &before.ca);
    let judged = RefCell::default();
    assert_eq!(now(keep(&leader.node, &register, &judged)), Ok(Kept::Same));
    leader.disk.put(CONFIG, "secret-b", 0o600);
    // The answer to the write is lost: read, write.
    site.lab.objects.fail(1, Fault::LostAfter);
    assert_eq!(now(keep(&leader.node, &register, &judged)), Ok(Kept::Replaced));
    assert_eq!(now(keep(&leader.node, &register, &judged)), Ok(Kept::Same));
    assert_eq!((&site.object()["sequence"], site.lab.objects.history(OBJECT).len()), (&json!(2), 2));
    let after = now(fetch(&encrypting(&site, None).node, &register)).expect("opened").expect("there");
    assert_eq!((&after.authorities, &after.ca), (&before.authorities, &before.ca));
    assert_eq!(after.encryption.map(|file| file.content), Some(Secret::new("secret-b")));
    // A master with a forgotten setting does not take it away.
    let forgetful = site.master();
    assert_eq!(cause(now(keep(&forgetful.node, &register, &RefCell::default()))), Cause::Configuration);
    assert_eq!(site.object()["sequence"], json!(2));
}

#[test]
fn sealing_with_another_key_keeps_the_ca_and_repairs_what_was_damaged() {
    let (site, master, material) = sealed();
    let register = established(UID, &material.ca);
    let seen = || now(stand(&master.node)).expect("read").seen;
    equipped(&master.disk, 10);
    master.disk.put(KEY_FILE, key_file(2), 0o600);
    assert_eq!(cause(now(fetch(&master.node, &register))), Cause::PkiRejected);
    let shown = seen();
    assert_eq!(now(rewrap(&master.node, &register, shown.as_ref())), Ok(material.clone()));
    assert_eq!(now(fetch(&master.node, &register)), Ok(Some(material.clone())));
    assert_eq!((&site.object()["sequence"], &site.object()["ca_sha256"]), (&json!(2), &json!(pin(10))));
    // Over what was shown, and nothing newer.
    assert_eq!(cause(now(rewrap(&master.node, &register, shown.as_ref()))), Cause::HeldByOther);
    site.lab.objects.set(OBJECT, "damaged");
    assert_eq!(now(rewrap(&master.node, &register, seen().as_ref())), Ok(material.clone()));
    assert_eq!(now(fetch(&master.node, &register)), Ok(Some(material)));
    let body = site.lab.objects.body(OBJECT);
    equipped(&master.disk, 60);
    assert_eq!(cause(now(rewrap(&master.node, &register, seen().as_ref()))), Cause::ForeignCluster);
    assert_eq!(site.lab.objects.body(OBJECT), body);
}
