//! Archives that are bad in one way at a time.

use super::*;
use crate::catalog::Component as Part;
use crate::testing::{component, sha256};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use tar::{Builder, Header};

const SMALL: Limits = Limits { entries: 10, bytes: 64 * 1024, extension: 1024 };

/// A member by its raw name: the library's own functions refuse what these tests need.
fn add(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    if !link.is_empty() {
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    tar.append(&header, content).expect("member");
}

fn file(tar: &mut Builder<Vec<u8>>, name: &str, content: &[u8]) {
    add(tar, name, EntryType::Regular, 0o755, "", content);
}

struct Case {
    folder: tempfile::TempDir,
    fetched: Fetched,
}

impl Case {
    fn of(part: Part, archive: Vec<u8>) -> Case {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("archive");
        fs::write(&path, &archive).expect("archive");
        let fetched = Fetched { artifact: component(part, "1.0.0", &archive), path };
        Case { folder, fetched }
    }

    fn new(part: Part, fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Case {
        let mut tar = Builder::new(Vec::new());
        fill(&mut tar);
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(&tar.into_inner().expect("tar")).expect("gz");
        Case::of(part, gz.finish().expect("gz"))
    }

    fn unpack(&self) -> Outcome<Vec<Placed>> {
        let part = self.fetched.artifact.component;
        unpack_within(SMALL, &self.fetched, placements(part), &self.folder.path().join("a/into"))
    }

    /// Refused with this text, and nothing was written anywhere.
    fn refused(&self, told: &str) {
        let why = self.unpack().expect_err(told);
        assert_eq!(why.cause, Cause::DownloadRejected);
        assert!(why.detail.contains(told), "{why}");
        let into = self.folder.path().join("a/into");
        assert_eq!(fs::read_dir(&into).expect("into").count(), 0, "{told}: something was written");
        assert_eq!(
            fs::read_dir(self.folder.path()).expect("folder").count(),
            2,
            "{told}: something was written beside"
        );
    }
}

#[test]
fn a_program_is_placed_as_it_is() {
    let case = Case::of(Part::Kubelet, b"kubelet".to_vec());
    let placed = case.unpack().expect("placed");
    assert_eq!(placed.len(), 1);
    assert_eq!((placed[0].staged.as_path(), placed[0].bytes), (case.fetched.path.as_path(), 7));
    assert_eq!((placed[0].to.as_path(), placed[0].mode), (Path::new("/usr/local/bin/kubelet"), 0o755));
    assert_eq!(placed[0].sha256, sha256(b"kubelet"));
}

#[test]
fn only_what_belongs_on_the_machine_is_taken_out() {
    let case = Case::new(Part::Containerd, |tar| {
        add(tar, "bin/", EntryType::Directory, 0o755, "", b"");
        for name in ["containerd", "containerd-shim-runc-v2", "containerd-stress", "ctr"] {
            file(tar, &format!("bin/{name}"), name.as_bytes());
        }
    });
    let placed = case.unpack().expect("placed");
    let places: Vec<_> = placed.iter().map(|file| file.to.display().to_string()).collect();
    let bin = "/usr/local/bin";
    assert_eq!(places, [format!("{bin}/containerd"), format!("{bin}/containerd-shim-runc-v2"), format!("{bin}/ctr")]);
    for file in &placed {
        let content = fs::read(&file.staged).expect("staged");
        assert_eq!(content, file.to.file_name().expect("name").as_encoded_bytes());
        assert_eq!((file.sha256.clone(), file.bytes), (sha256(&content), content.len() as u64));
    }
    assert!(!case.folder.path().join("a/into/containerd-stress").exists());
    // Again, over what is there.
    assert_eq!(case.unpack().expect("again"), placed);
}

#[test]
fn all_plugins_are_taken_and_neither_licences_nor_what_is_deeper() {
    let case = Case::new(Part::CniPlugins, |tar| {
        add(tar, "./", EntryType::Directory, 0o755, "", b"");
        file(tar, "./bridge", b"bridge");
        file(tar, "./host-local", b"host-local");
        add(tar, "./LICENSE", EntryType::Regular, 0o644, "", b"licence");
        file(tar, "./deep/er", b"deeper");
    });
    let places: Vec<_> = case.unpack().expect("placed").into_iter().map(|file| file.to).collect();
    assert_eq!(places, [Path::new("/opt/cni/bin/bridge"), Path::new("/opt/cni/bin/host-local")]);
}

#[test]
fn names_and_links_that_lead_out_are_refused() {
    for name in ["/etc/cron.d/x", "../x", "bin/../../x", "a/b/../../../x"] {
        Case::new(Part::Crictl, |tar| {
            file(tar, "crictl", b"crictl");
            file(tar, name, b"x");
        })
        .refused("leads out of the archive");
    }
    let links = [("out", "/etc"), ("out", "../x"), ("bin/out", "../../x"), ("bin/out", "a/../../../x")];
    for (name, target) in links {
        for kind in [EntryType::Symlink, EntryType::Link] {
            Case::new(Part::Crictl, |tar| {
                file(tar, "crictl", b"crictl");
                add(tar, name, kind, 0o777, target, b"");
            })
            .refused("leads out of the archive");
        }
    }
}

#[test]
fn a_link_is_not_followed_when_its_name_is_written_to() {
    let case = Case::new(Part::Crictl, |tar| file(tar, "crictl", b"crictl"));
    let (into, victim) = (case.folder.path().join("a/into"), case.folder.path().join("victim"));
    fs::create_dir_all(&into).expect("into");
    fs::write(&victim, b"mine").expect("victim");
    std::os::unix::fs::symlink(&victim, into.join("crictl")).expect("link");
    let placed = case.unpack().expect("placed");
    assert_eq!(fs::read(&victim).expect("victim"), b"mine");
    assert_eq!(fs::read(&placed[0].staged).expect("staged"), b"crictl");
}

#[test]
fn a_member_of_another_kind_is_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse, EntryType::Continuous] {
        Case::new(Part::Crictl, |tar| {
            file(tar, "crictl", b"crictl");
            add(tar, "dev", kind, 0o666, "", b"");
        })
        .refused("is of the kind");
    }
    // The program itself as a link: to another member, so that it leads nowhere outside.
    Case::new(Part::Crictl, |tar| add(tar, "crictl", EntryType::Symlink, 0o777, "other", b""))
        .refused("crictl is not a regular file");
    for kind in [EntryType::Symlink, EntryType::Link] {
        Case::new(Part::CniPlugins, |tar| {
            file(tar, "bridge", b"bridge");
            add(tar, "ptp", kind, 0o777, "bridge", b"");
        })
        .refused("ptp is not a regular file");
    }
}

#[test]
fn doubled_and_missing_members_are_refused() {
    Case::new(Part::Crictl, |tar| {
        file(tar, "crictl", b"good");
        file(tar, "./crictl", b"evil");
    })
    .refused("crictl is in it twice");
    Case::new(Part::Crictl, |tar| file(tar, "README", b"")).refused("nothing for /usr/local/bin/crictl");
    Case::new(Part::CniPlugins, |tar| add(tar, "LICENSE", EntryType::Regular, 0o644, "", b"")).refused("/opt/cni/bin");
}

#[test]
fn bombs_are_refused() {
    Case::new(Part::Crictl, |tar| {
        file(tar, "crictl", b"crictl");
        file(tar, "zeros", &vec![0; 1024 * 1024]);
    })
    .refused("more than 65536 bytes");
    Case::new(Part::Crictl, |tar| (0..11).for_each(|n| file(tar, &format!("f{n}"), b"")))
        .refused("more than 10 members");
    Case::new(Part::Crictl, |tar| {
        add(tar, "long", EntryType::GNULongName, 0o644, "", &vec![b'n'; 2048]);
        file(tar, "crictl", b"crictl");
    })
    .refused("GNULongName");
    Case::new(Part::Crictl, |tar| {
        add(tar, "pax", EntryType::XHeader, 0o644, "", &vec![b'n'; 2048]);
        file(tar, "crictl", b"crictl");
    })
    .refused("XHeader");
}

#[test]
fn what_is_no_archive_or_ends_early_is_refused() {
    Case::of(Part::Crictl, b"<html>".to_vec()).refused("damaged");
    let whole = Case::new(Part::Crictl, |tar| file(tar, "crictl", &[b'x'; 4000]));
    let mut bytes = fs::read(&whole.fetched.path).expect("archive");
    bytes.truncate(bytes.len() - 12);
    Case::of(Part::Crictl, bytes).refused("damaged");
}
