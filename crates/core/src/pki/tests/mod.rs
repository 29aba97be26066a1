mod upkeep;
pub(crate) mod world;

use super::*;
use crate::config::settings::PkiSettings;
use crate::model::identity::{Ec2, Origin};
use crate::store::fake::{FAULTS, Fault, interleave, run};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use world::{KEY_FILE, Master, OBJECT, Site, UID, authorities, established, key_file, pin};

fn now<T>(future: impl Future<Output = T>) -> T {
    run(future).expect("alive")
}

/// A cluster whose keys are sealed.
fn sealed() -> (Site, Master, PkiMaterial) {
    let site = Site::new();
    let master = site.master();
    let material = now(async { seal_new(&master.node, &master.held(&site.lab, 1).await).await }).expect("sealed");
    (site, master, material)
}

fn cause<T: std::fmt::Debug>(outcome: Outcome<T>) -> Cause {
    outcome.expect_err("refused").cause
}

#[test]
fn what_one_master_sealed_another_opens_and_places() {
    let (site, _, material) = sealed();
    assert_eq!((material.uid, &material.ca), (Uuid::from_u128(UID), &pin(10)));
    let text = String::from_utf8(site.lab.objects.body(OBJECT).expect("an object")).expect("text");
    assert!(!text.contains("PRIVATE") && !text.contains("private-10"), "{text}");
    let other = site.master();
    let register = established(UID, &material.ca);
    let fetched = now(fetch(&other.node, &register)).expect("opened").expect("there");
    assert_eq!(fetched, material);
    place(&other.node, &fetched).expect("placed");
    assert_eq!(other.disk.written.borrow().first().map(String::as_str), Some("/etc/kubernetes/pki/ca.crt"));
    for (public, private) in FILES {
        assert_eq!((other.disk.mode(public), other.disk.mode(private)), (Some(0o644), Some(0o600)));
        assert!(other.disk.text(private).is_some_and(|text| text.contains("private-")));
    }
    assert_eq!(disk::authorities(&*other.disk), Ok(Ok(authorities(10))));
    assert!(!format!("{fetched:?}").contains("private-"));
}

#[test]
fn without_a_bundle_there_is_nothing_and_without_a_key_a_refusal() {
    let site = Site::new();
    assert_eq!(now(fetch(&site.master().node, &established(UID, &pin(10)))), Ok(None));
    let keyless = site.with(|_| {}, None);
    let failure = now(fetch(&keyless.node, &established(UID, &pin(10)))).expect_err("refused");
    assert_eq!(failure.cause, Cause::Configuration);
    assert!(failure.fix().contains("`pki`"), "{failure}");
}

#[test]
fn a_bundle_that_was_cut_or_changed_anywhere_is_refused() {
    let (site, master, material) = sealed();
    let register = established(UID, &material.ca);
    let whole = site.lab.objects.body(OBJECT).expect("an object");
    let refused = |body: Vec<u8>, what: &str| {
        site.lab.objects.set(OBJECT, body);
        let failure = now(fetch(&master.node, &register)).expect_err(what);
        assert_eq!((failure.cause, failure.is_transient()), (Cause::PkiRejected, false), "{what}: {failure}");
        assert!(!failure.to_string().contains("private-"), "{failure}");
    };
    for length in 0..whole.len() {
        refused(whole[..length].to_vec(), "cut");
    }
    let other = PkiBundle {
        schema: 2,
        cluster: "prod".into(),
        uid: Uuid::from_u128(8),
        ca_sha256: pin(77),
        key: crate::model::pki::KeyRecord::Passphrase { salt: Base64(vec![1; 16]), rounds: 600_000 },
        sequence: 2,
        write_id: Uuid::from_u128(7),
        sealed: Base64(vec![0; 100]),
    };
    let other = serde_json::to_value(&other).expect("JSON");
    for (field, value) in other.as_object().expect("an object") {
        let mut changed = site_object(&whole);
        changed[field] = value.clone();
        refused(changed.to_string().into_bytes(), field);
        let mut missing = site_object(&whole);
        missing.as_object_mut().expect("an object").remove(field);
        refused(missing.to_string().into_bytes(), field);
    }
    let bytes = STANDARD.decode(site_object(&whole)["sealed"].as_str().expect("text")).expect("base64");
    for bit in [0, 7, 300, bytes.len() * 8 - 1] {
        let (mut changed, mut object) = (bytes.clone(), site_object(&whole));
        changed[bit / 8] ^= 1 << (bit % 8);
        object["sealed"] = json!(STANDARD.encode(changed));
        refused(object.to_string().into_bytes(), "a bit");
    }
    refused(vec![b' '; 64 * 1024 + 1], "too large");
    // What this release does not know is not bound, and not a reason.
    let mut more = site_object(&whole);
    more["later"] = json!("x");
    site.lab.objects.set(OBJECT, more.to_string());
    assert_eq!(now(fetch(&master.node, &register)), Ok(Some(material)));
    assert!(master.disk.written.borrow().is_empty());
}

fn site_object(whole: &[u8]) -> Value {
    serde_json::from_slice(whole).expect("JSON")
}

#[test]
fn a_bundle_must_belong_to_the_register_and_then_nothing_is_placed() {
    let (_site, master, material) = sealed();
    let fetch = |register: &Register| now(fetch(&master.node, register));
    assert_eq!(cause(fetch(&established(8, &material.ca))), Cause::PkiRejected);
    assert_eq!(cause(fetch(&established(UID, &pin(20)))), Cause::PkiRejected);
    let other_ca = PkiMaterial { ca: pin(20), ..material.clone() };
    master.disk.put("/etc/kubernetes/pki/ca.crt", world::certificate(30), 0o644);
    assert_eq!(cause(place(&master.node, &material)), Cause::ForeignCluster);
    assert_eq!(cause(place(&master.node, &other_ca)), Cause::ForeignCluster);
    assert!(master.disk.written.borrow().is_empty());
}

#[test]
fn another_key_does_not_open_it_and_another_kind_of_key_is_named() {
    let (site, _, material) = sealed();
    let register = established(UID, &material.ca);
    let other = site.master();
    other.disk.put(KEY_FILE, key_file(2), 0o600);
    let failure = now(fetch(&other.node, &register)).expect_err("another key");
    assert_eq!(failure.cause, Cause::PkiRejected);
    assert!(failure.detail.contains("another key"), "{failure}");
    let kind = site.with(|settings| settings.pki = Some(PkiSettings::PassphraseFile("/p".into())), None);
    kind.disk.put("/p", "correct horse battery staple", 0o600);
    let failure = now(fetch(&kind.node, &register)).expect_err("another kind");
    assert!(failure.detail.contains("sealed with a key file") && failure.detail.contains("/p"), "{failure}");
}

#[test]
fn a_key_that_others_can_read_or_that_is_none_is_refused() {
    let (site, _, material) = sealed();
    let register = established(UID, &material.ca);
    let table: [(&str, u32, u32, Cause); 9] = [
        (&key_file(1), 0o640, 0, Cause::UnsafeFile),
        (&key_file(1), 0o604, 0, Cause::UnsafeFile),
        (&key_file(1), 0o620, 0, Cause::UnsafeFile),
        (&key_file(1), 0o600, 1000, Cause::UnsafeFile),
        (&key_file(1), 0o120_600, 0, Cause::UnsafeFile),
        ("", 0o600, 0, Cause::Configuration),
        ("not base64, but secret", 0o600, 0, Cause::Configuration),
        (&STANDARD.encode([1; 31]), 0o600, 0, Cause::Configuration),
        (&STANDARD.encode([1; 33]), 0o600, 0, Cause::Configuration),
    ];
    for (content, mode, owner, expected) in table {
        let master = site.master();
        master.disk.files.borrow_mut().insert(KEY_FILE.into(), (content.into(), mode, owner));
        let failure = now(fetch(&master.node, &register)).expect_err("refused");
        assert_eq!(failure.cause, expected, "{mode:o} {owner}: {failure}");
        assert!(content.is_empty() || !failure.to_string().contains(content), "{failure}");
    }
    let master = site.master();
    master.disk.files.borrow_mut().remove(std::path::Path::new(KEY_FILE));
    assert_eq!(cause(now(fetch(&master.node, &register))), Cause::Configuration);
    // Whoever owns the state folder runs this program.
    let own = site.master();
    let folder = (Vec::new(), 0o700, 1000);
    own.disk.files.borrow_mut().insert(crate::journal::STATE_FOLDER.into(), folder);
    own.disk.files.borrow_mut().insert(KEY_FILE.into(), (key_file(1).into(), 0o400, 1000));
    assert_eq!(now(fetch(&own.node, &register)), Ok(Some(material)));
}

fn passphrase(site: &Site, text: &str) -> Master {
    let master = site.with(|settings| settings.pki = Some(PkiSettings::PassphraseFile("/p".into())), None);
    master.disk.put("/p", text, 0o600);
    master
}

#[test]
fn a_passphrase_is_stretched_enough_and_nobody_makes_us_do_too_little_or_too_much() {
    let site = Site::new();
    let master = passphrase(&site, "correct horse battery staple\n");
    let held = now(master.held(&site.lab, 1));
    let material = now(seal_new(&master.node, &held)).expect("sealed");
    assert!(site.vault.rounds.get() >= 600_000);
    let register = established(UID, &material.ca);
    let same = passphrase(&site, "correct horse battery staple");
    assert_eq!(now(fetch(&same.node, &register)), Ok(Some(material)));
    let other = passphrase(&site, "correct horse battery stable");
    assert_eq!(cause(now(fetch(&other.node, &register))), Cause::PkiRejected);
    let short = passphrase(&site, "correct horse batte");
    assert_eq!(cause(now(fetch(&short.node, &register))), Cause::Configuration);
    for rounds in [0, 1, 99_999, 10_000_001, u32::MAX] {
        let mut object = site.object();
        object["key"]["rounds"] = json!(rounds);
        site.lab.objects.set(OBJECT, object.to_string());
        site.vault.rounds.set(0);
        assert_eq!(cause(now(fetch(&same.node, &register))), Cause::PkiRejected);
        assert_eq!(site.vault.rounds.get(), 0, "it was stretched in {rounds} rounds");
    }
}

fn with_kms(site: &Site, key: &str, on_ec2: bool) -> Master {
    let ec2 = Ec2 {
        instance_id: "i-1".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        partition: "aws".into(),
        zone: "eu-west-1a".into(),
        instance_type: "m7g.large".into(),
        image_id: "ami-1".into(),
    };
    site.with(|settings| settings.pki = Some(PkiSettings::Kms(key.into())), on_ec2.then_some(Origin::Ec2(ec2)))
}

#[test]
fn kms_is_asked_with_the_configured_key_and_its_refusals_are_told() {
    let site = Site::new();
    let master = with_kms(&site, "alias/pki", true);
    let held = now(master.held(&site.lab, 1));
    let said = |cause| Failure::new(cause, "get a data key", "kms:GenerateDataKey on alias/pki");
    for refusal in [Cause::AccessDenied, Cause::CloudUnavailable] {
        site.vault.kms.replace(Some(said(refusal)));
        let failure = now(seal_new(&master.node, &held)).expect_err("refused");
        assert_eq!((failure.cause, failure.is_transient()), (refusal, true));
        assert_eq!(site.lab.objects.body(OBJECT), None);
    }
    site.vault.kms.replace(None);
    let material = now(seal_new(&master.node, &held)).expect("sealed");
    let register = established(UID, &material.ca);
    assert_eq!(now(fetch(&with_kms(&site, "alias/pki", true).node, &register)), Ok(Some(material)));
    // Whoever can write to the bucket could name a key of his own there: it is not asked.
    let other = with_kms(&site, "alias/other", true);
    assert_eq!(cause(now(fetch(&other.node, &register))), Cause::PkiRejected);
    site.vault.kms.replace(Some(said(Cause::AccessDenied)));
    assert_eq!(cause(now(fetch(&master.node, &register))), Cause::AccessDenied);
    let nowhere = with_kms(&site, "alias/pki", false);
    let failure = now(fetch(&nowhere.node, &register)).expect_err("no region");
    assert_eq!(failure.cause, Cause::Configuration);
    assert!(failure.fix().contains("ARN"), "{failure}");
}

/// Two machines that both believe they hold the register: one CA comes of it.
#[test]
fn two_initialisers_at_once_have_the_same_authorities() {
    for schedule in 0..256 {
        let site = Site::new();
        let (one, two) = (site.master(), site.master());
        let held = [now(one.held(&site.lab, 1)), now(two.held(&site.lab, 1))];
        let (a, b) = interleave(schedule, seal_new(&one.node, &held[0]), seal_new(&two.node, &held[1]));
        let (a, b) = (a.expect("alive").expect("sealed"), b.expect("alive").expect("sealed"));
        assert_eq!(a, b, "schedule {schedule}");
        assert_eq!(site.lab.objects.history(OBJECT).len(), 1);
    }
}

/// Whatever becomes of the calls of the first, it and its successor have the same authorities.
#[test]
fn a_successor_reuses_what_was_sealed_whatever_two_calls_did() {
    for first in 0..8 {
        for second in first..8 {
            for one in FAULTS {
                for other in FAULTS {
                    let site = Site::new();
                    let (old, new) = (site.master(), site.master());
                    let held = now(old.held(&site.lab, 1));
                    site.lab.objects.fail(first, *one);
                    site.lab.objects.fail(second, *other);
                    let before = run(seal_new(&old.node, &held));
                    site.lab.objects.heal();
                    let after = now(seal_new(&new.node, &held)).expect("sealed");
                    site.lab.objects.land();
                    assert_eq!(site.lab.objects.history(OBJECT).len(), 1, "{first} {one:?} {second} {other:?}");
                    if let Some(Ok(before)) = before {
                        assert_eq!(before, after, "{first} {one:?} {second} {other:?}");
                    }
                    let fetched = now(fetch(&new.node, &established(UID, &after.ca)));
                    assert_eq!(fetched, Ok(Some(after)));
                }
            }
        }
    }
}

#[test]
fn an_answer_that_was_lost_is_settled() {
    for fault in [Fault::LostAfter, Fault::RefusedAfter, Fault::LostBefore, Fault::Refused] {
        let site = Site::new();
        let master = site.master();
        let held = now(master.held(&site.lab, 1));
        // The first call reads, the second writes.
        site.lab.objects.fail(1, fault);
        let material = now(seal_new(&master.node, &held)).expect("settled");
        assert_eq!((site.vault.made.get(), material.ca), (1, pin(10)), "{fault:?}");
    }
}

#[test]
fn an_init_that_began_without_sealed_keys_seals_its_own() {
    let site = Site::new();
    let master = site.master();
    for ((public, private), pair) in FILES.into_iter().zip(disk::pairs(&authorities(50))) {
        master.disk.put(public, pair.public.clone(), 0o644);
        master.disk.put(private, pair.private.expose(), 0o600);
    }
    let held = now(master.held(&site.lab, 1));
    let material = now(seal_new(&master.node, &held)).expect("sealed");
    assert_eq!((site.vault.made.get(), material.ca), (0, pin(50)));
}

#[test]
fn kubeadms_own_settings_for_its_keys_are_followed() {
    let settings = |lines: Value| {
        let mut settings = crate::testing::settings("role: master");
        settings.kubeadm.cluster = lines.as_object().expect("an object").clone();
        settings
    };
    let table = [
        (json!({}), Ok(KeyAlgorithm::Rsa2048)),
        (json!({ "encryptionAlgorithm": "RSA-4096" }), Ok(KeyAlgorithm::Rsa4096)),
        (json!({ "encryptionAlgorithm": "ECDSA-P256" }), Ok(KeyAlgorithm::EcdsaP256)),
        (json!({ "encryptionAlgorithm": "ECDSA-P384" }), Ok(KeyAlgorithm::EcdsaP384)),
        (json!({ "encryptionAlgorithm": "DSA" }), Err(Cause::Configuration)),
        (json!({ "encryptionAlgorithm": 7 }), Err(Cause::Configuration)),
    ];
    for (patch, expected) in table {
        assert_eq!(algorithm(&settings(patch.clone())).map_err(|failure| failure.cause), expected, "{patch}");
    }
    let life = |text: &str| ca_life(&settings(json!({ "caCertificateValidityPeriod": text })));
    assert_eq!(ca_life(&settings(json!({}))), Ok(TEN_YEARS));
    assert_eq!(life("87600h0m0s"), Ok(TEN_YEARS));
    assert_eq!(life("1h30m5s"), Ok(Duration::from_secs(5405)));
    for wrong in ["", "h", "10", "1.5h", "5s1h", "0s", "-1h", "99999999999999999999h"] {
        assert_eq!(life(wrong).map_err(|failure| failure.cause), Err(Cause::Configuration), "{wrong:?}");
    }
}
