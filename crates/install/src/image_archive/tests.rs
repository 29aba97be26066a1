//! Archives that are whole, and that are bad in one way at a time.

use super::*;
use crate::testing::sha256;
use serde_json::{Value, json};
use std::fs;
use std::slice::from_ref;
use tar::EntryType;

/// A member: its name as it is written, its kind, its content or what it links to.
type Member = (String, EntryType, Vec<u8>);

fn file(name: &str, content: impl Into<Vec<u8>>) -> Member {
    (name.to_owned(), EntryType::Regular, content.into())
}

fn tar(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        // `set_path` would refuse the bad ones.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
        }
        let content: &[u8] = if is_link { b"" } else { content };
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).expect("member");
    }
    builder.into_inner().expect("tar")
}

fn read_bytes(limits: Limits, bytes: &[u8], arch: Arch) -> Result<Vec<Contained>, String> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.tar");
    // As in a bundle: there is something before it, and behind it.
    fs::write(&path, [&b"before"[..], bytes, &[7; 4096]].concat()).expect("archive");
    read_within(limits, Slice::new(File::open(&path).expect("archive"), 6, bytes.len() as u64), arch)
}

fn amd64(members: &[Member]) -> Result<Vec<Contained>, String> {
    read_bytes(LIMITS, &tar(members), Arch::Amd64)
}

fn refused(members: &[Member], told: &str) {
    let why = amd64(members).expect_err(told);
    assert!(why.contains(told), "{why:?} does not say {told:?}");
}

fn configuration(arch: &str) -> Vec<u8> {
    json!({ "architecture": arch, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } }).to_string().into()
}

/// As `docker save` writes it.
pub(crate) fn saved(tag: &str, arch: &str) -> Vec<Member> {
    let manifest = json!([{ "Config": "c.json", "RepoTags": [tag], "Layers": ["l/layer.tar"] }]);
    vec![
        file("c.json", configuration(arch)),
        file("l/layer.tar", vec![1; 1500]),
        file("manifest.json", manifest.to_string()),
    ]
}

/// The bytes of a good archive.
pub(crate) fn saved_bytes(tag: &str, arch: &str) -> Vec<u8> {
    tar(&saved(tag, arch))
}

fn blob(content: &[u8]) -> (Value, Member) {
    let digest = sha256(content);
    let descriptor = json!({ "digest": format!("sha256:{digest}"), "size": content.len() });
    (descriptor, file(&format!("blobs/sha256/{digest}"), content))
}

/// As `ctr images export` writes it; with `index` an index of platforms between the name and the manifest.
fn exported(name: Option<&str>, arch: &str, index: bool) -> Vec<Member> {
    let (config, config_blob) = blob(&configuration(arch));
    let (layer, layer_blob) = blob(&[2; 700]);
    let (manifest, manifest_blob) = blob(json!({ "config": config, "layers": [layer] }).to_string().as_bytes());
    let mut members =
        vec![file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#), config_blob, layer_blob, manifest_blob];
    let mut top = manifest;
    if index {
        top["platform"] = json!({ "architecture": arch, "os": "linux" });
        let (_, other) = blob(b"nothing that is here");
        let absent = json!({ "digest": format!("sha256:{}", sha256(&other.2)), "platform":
            { "architecture": "s390x", "os": "linux" } });
        let (descriptor, member) = blob(json!({ "manifests": [absent, top] }).to_string().as_bytes());
        members.push(member);
        top = descriptor;
    }
    if let Some(name) = name {
        top["annotations"] = json!({ "io.containerd.image.name": name });
    }
    let attestation =
        json!({ "digest": "sha256:0", "annotations": { "vnd.docker.reference.type": "attestation-manifest" } });
    members.push(file("index.json", json!({ "manifests": [top, attestation] }).to_string()));
    members
}

const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

#[test]
fn both_forms_tell_names_and_the_same_id() {
    let id = format!("sha256:{}", sha256(&configuration("amd64")));
    let found = amd64(&saved(PAUSE, "amd64")).expect("saved");
    assert_eq!(found, [Contained { name: PAUSE.into(), id: id.clone(), digest: None }]);
    for index in [false, true] {
        let found = amd64(&exported(Some(PAUSE), "amd64", index)).expect("exported");
        assert_eq!((found.len(), &found[0].name, &found[0].id), (1, &PAUSE.to_owned(), &id));
        assert!(found[0].digest.as_ref().is_some_and(|digest| *digest != id), "the registry's");
    }
    for (tag, whole) in [
        ("busybox:1", "docker.io/library/busybox:1"),
        ("acme/app:1", "docker.io/acme/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry:5000/app:1", "registry:5000/app:1"),
    ] {
        assert_eq!(amd64(&saved(tag, "amd64")).expect(tag)[0].name, whole);
    }
}

#[test]
fn a_layer_may_be_a_link_to_another_and_names_may_begin_with_a_dot() {
    let mut members = saved(PAUSE, "amd64");
    members[1].0 = "other/layer.tar".into();
    refused(&members, "the layer l/layer.tar of registry.k8s.io/pause:3.10.2 is missing");
    members.insert(1, ("l/layer.tar".into(), EntryType::Symlink, b"../other/layer.tar".into()));
    amd64(&members).expect("a link");
    members[1].2 = b"../none/layer.tar".into();
    refused(&members, "is missing");
    for member in &mut members {
        member.0 = format!("./{}", member.0);
    }
    members[1].2 = b"../other/layer.tar".into();
    amd64(&members).expect("with dots");
}

#[test]
fn whatever_is_cut_off_is_missed() {
    for members in [saved(PAUSE, "amd64"), exported(Some(PAUSE), "amd64", true)] {
        let whole = tar(&members);
        // The last member and two blocks of zeros.
        let end = whole.len() - 1024 - (512 - members.last().expect("last").2.len() % 512);
        for length in (0..end).step_by(53).chain([end - 1]) {
            read_bytes(LIMITS, &whole[..length], Arch::Amd64).expect_err("truncated");
        }
        read_bytes(LIMITS, &whole[..end], Arch::Amd64).expect("whole");
    }
}

#[test]
fn another_architecture_is_refused() {
    refused(&saved(PAUSE, "arm64"), "registry.k8s.io/pause:3.10.2 is for linux/arm64, and linux/amd64 is wanted");
    refused(&exported(Some(PAUSE), "arm64", false), "is for linux/arm64");
    refused(&exported(Some(PAUSE), "arm64", true), "is for s390x, arm64, and amd64 is wanted");
    read_bytes(LIMITS, &tar(&exported(Some(PAUSE), "arm64", true)), Arch::Arm64).expect("arm64");
}

#[test]
fn nothing_leads_out_of_it() {
    let with = |member: Member, told: &str| {
        let mut members = saved(PAUSE, "amd64");
        members.insert(0, member);
        refused(&members, told);
    };
    with(file("../../etc/cron.d/x", "x"), "leads out of the archive");
    with(file("/etc/cron.d/x", "x"), "leads out of the archive");
    with(("l/x".into(), EntryType::Symlink, b"../../x".into()), "leads out of the archive");
    with(("x".into(), EntryType::Symlink, b"/etc/shadow".into()), "leads out of the archive");
    with(("x".into(), EntryType::Link, b"../x".into()), "leads out of the archive");
    with(("x".into(), EntryType::Block, vec![]), "is of the kind Block");
    with(("x".into(), EntryType::GNULongName, vec![b'x'; 70_000]), "is of the kind GNULongName, of 70000 bytes");
    with(file("manifest.json", "[]"), "manifest.json is in it twice");
}

#[test]
fn a_document_that_is_linked_to_is_not_read() {
    let mut members = saved(PAUSE, "amd64");
    members[2].0 = "m".into();
    members.push(("manifest.json".into(), EntryType::Symlink, b"m".into()));
    refused(&members, "manifest.json is missing");
}

#[test]
fn blobs_are_what_they_are_called() {
    let tampered = |which: usize, told: &str| {
        let mut members = exported(Some(PAUSE), "amd64", true);
        members[which].2.pop();
        refused(&members, told);
    };
    tampered(1, "has the SHA-256");
    tampered(2, "is missing, or not whole");
    tampered(3, "has the SHA-256");
    tampered(4, "has the SHA-256");
    let mut members = exported(Some(PAUSE), "amd64", false);
    members.remove(2);
    refused(&members, "is missing, or not whole");
    for bad in ["sha256:../../etc", "sha512:00", "sha256:00"] {
        let index = json!({ "manifests": [{ "digest": bad, "annotations": { "io.containerd.image.name": PAUSE } }] });
        refused(&[file("oci-layout", "{}"), file("index.json", index.to_string())], "is not a SHA-256 digest");
    }
}

#[test]
fn images_without_a_plain_name_are_refused() {
    refused(&exported(None, "amd64", false), "has no name");
    for bad in ["--all/x", "a/b c", "a/\u{1b}[2J", ""] {
        refused(&exported(Some(bad), "amd64", false), "is not the whole name of an image");
    }
    let mut members = saved(PAUSE, "amd64");
    members[2].2 = json!([{ "Config": "c.json", "RepoTags": null, "Layers": [] }]).to_string().into();
    refused(&members, "has no name");
    members[2].2 = b"[]".into();
    refused(&members, "there is no image in it");
    refused(&members[..2], "it has neither oci-layout nor manifest.json");
    assert!(
        read_bytes(LIMITS, &[0x1f_u8, 0x8b, 8, 0].repeat(300), Arch::Amd64).expect_err("gzip").contains("compressed")
    );
}

#[test]
fn there_is_a_bound_to_everything_that_is_read() {
    let bytes = tar(&saved(PAUSE, "amd64"));
    let with = |limits: Limits, told: &str| {
        let why = read_bytes(limits, &bytes, Arch::Amd64).expect_err(told);
        assert!(why.contains(told), "{why}");
    };
    with(Limits { members: 2, ..LIMITS }, "more than 2 members");
    with(Limits { document: 20, ..LIMITS }, "20 are read at most");
    with(Limits { images: 0, ..LIMITS }, "0 may be in one");
    // An index that is deeper than any.
    let (mut top, mut members) = (json!({ "digest": "sha256:0" }), vec![file("oci-layout", "{}")]);
    for _ in 0..9 {
        top["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        let (descriptor, member) = blob(json!({ "manifests": [top] }).to_string().as_bytes());
        members.push(member);
        top = descriptor;
    }
    top["annotations"] = json!({ "io.containerd.image.name": PAUSE });
    members.push(file("index.json", json!({ "manifests": [top] }).to_string()));
    refused(&members, "go deeper than 3");
}

#[test]
fn a_name_is_one_image_and_the_pinned_one() {
    let contained = |id: &str, digest: Option<&str>| Contained {
        name: PAUSE.into(),
        id: id.into(),
        digest: digest.map(str::to_owned),
    };
    let archived =
        |file: &str, image: Contained| Archived { file: file.into(), sha256: String::new(), images: vec![image] };
    let (one, same) = (archived("a.tar", contained("1", Some("d"))), archived("b.tar", contained("1", None)));
    agree(&[one.clone(), same.clone()], &[]).expect("the same image twice");
    let other = archived("c.tar", contained("2", None));
    let why = agree(&[one.clone(), other], &[]).expect_err("two images of one name");
    assert!(why.to_string().contains("images/c.tar") && why.detail.contains("1 in images/a.tar"), "{why}");
    agree(from_ref(&one), &[format!("{PAUSE}@d")]).expect("the pinned digest");
    agree(from_ref(&one), &["registry.k8s.io/other:1@e".into()]).expect("another image is pinned");
    assert!(agree(&[one], &[format!("{PAUSE}@e")]).expect_err("another digest").detail.contains("says e"));
    assert!(agree(&[same], &[format!("{PAUSE}@d")]).expect_err("no digest").detail.contains("docker save"));
}

#[test]
fn where_a_manifest_of_containerd_leads() {
    let is = |text: &str, expected: Option<&str>| {
        let found = match leads(text, Arch::Amd64) {
            Some(Leads::Image(id)) => Some(id),
            Some(Leads::Manifest(digest)) => digest.map(|digest| format!("to {digest}")),
            None => Some("nothing".to_owned()),
        };
        assert_eq!(found.as_deref(), expected, "{text}");
    };
    is(r#"{"config":{"digest":"sha256:1","size":1},"layers":[]}"#, Some("sha256:1"));
    let index = |arch: &str| {
        json!({ "manifests": [{ "digest": "sha256:2", "platform": { "architecture": arch, "os": "linux" } }] })
            .to_string()
    };
    is(&index("amd64"), Some("to sha256:2"));
    is(&index("arm64"), None);
    is("ctr: no such content", Some("nothing"));
}
