//! A cache that somebody spoilt: it is as good as absent, and written anew where that is possible.

use super::{HOST, PASSWORD, Plugin, answer, each, request, well};
use crate::disk::Mount;
use crate::peer::Peer;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

/// The password in an entry that must not be believed.
const POISON: &str = "poisonedPasswordMARKER";

/// What is done to it.
type Done<T> = fn(&T);

/// The entry with another login in it.
fn poisoned(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut entry: Value = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON");
    entry["login"]["password"] = json!(POISON);
    change(&mut entry);
    std::fs::write(path, entry.to_string()).expect("write");
}

fn replace(path: &Path, body: impl AsRef<[u8]>) {
    std::fs::write(path, body).expect("write");
}

/// What, and what was done to the entry.
pub const ENTRIES: &[(&str, Done<Path>)] = &[
    ("an empty entry", |path| replace(path, "")),
    ("an entry that is cut off", |path| {
        let whole = std::fs::read(path).expect("read");
        replace(path, &whole[..whole.len() - 1]);
    }),
    ("half an entry", |path| {
        let whole = std::fs::read(path).expect("read");
        replace(path, &whole[..whole.len() / 2]);
    }),
    ("an entry that is no text", |path| replace(path, [0xff; 100])),
    ("an entry of another program", |path| replace(path, "{\"auths\":{}}")),
    ("an entry of another version", |path| poisoned(path, |entry| entry["schema"] = json!(2))),
    ("an entry of another key", |path| poisoned(path, |entry| entry["key"] = json!("Public\nnode"))),
    ("an entry with a field more", |path| poisoned(path, |entry| entry["more"] = json!(1))),
    ("an entry larger than any", |path| {
        poisoned(path, |entry| entry["login"]["username"] = json!("x".repeat(200_000)))
    }),
    ("a login that is dead", |path| {
        poisoned(path, |entry| entry["login"]["expires_at"] = json!("2020-01-01T00:00:00Z"));
    }),
    ("a login that lives for years", |path| {
        poisoned(path, |entry| entry["login"]["expires_at"] = json!("2099-01-01T00:00:00Z"));
    }),
    ("a login from the future", |path| {
        poisoned(path, |entry| {
            entry["login"]["got_at"] = json!("2099-01-01T00:00:00Z");
            entry["login"]["expires_at"] = json!("2099-01-01T12:00:00Z");
        });
    }),
    ("an entry that others can read", |path| {
        poisoned(path, |_| {});
        std::fs::set_permissions(path, Permissions::from_mode(0o644)).expect("chmod");
    }),
    ("an entry that others can write", |path| {
        poisoned(path, |_| {});
        std::fs::set_permissions(path, Permissions::from_mode(0o620)).expect("chmod");
    }),
    ("a link in the place of an entry", |path| {
        poisoned(path, |_| {});
        let elsewhere = path.with_extension("elsewhere");
        std::fs::rename(path, &elsewhere).expect("rename");
        symlink(&elsewhere, path).expect("link");
    }),
    ("a pipe in the place of an entry", |path| {
        std::fs::remove_file(path).expect("remove");
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).expect("mkfifo");
    }),
];

/// What, and how the folder is. None of them can be used, and each pull is answered all the same.
pub const FOLDERS: &[(&str, Done<Plugin>)] = &[
    ("a file in the place of the folder", |plugin| std::fs::write(plugin.cache(), "x").expect("write")),
    ("a link in the place of the folder", |plugin| {
        let elsewhere = plugin.home.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("mkdir");
        symlink(elsewhere, plugin.cache()).expect("link");
    }),
    ("a link to nowhere", |plugin| symlink("/nonexistent/folder", plugin.cache()).expect("link")),
    ("a folder that others can write to", |plugin| {
        std::fs::create_dir(plugin.cache()).expect("mkdir");
        std::fs::set_permissions(plugin.cache(), Permissions::from_mode(0o777)).expect("chmod");
    }),
];

#[test]
fn an_entry_that_cannot_be_believed_is_written_anew() {
    each(
        4,
        ENTRIES,
        |(name, _)| (*name).to_owned(),
        |(name, spoil)| {
            let aws = Peer::start(well);
            let plugin = Plugin::of(&aws);
            let image = format!("{HOST}/app");
            plugin.asked_for(&image).login_for(HOST);
            let path = plugin.files("json").remove(0);
            spoil(&path);
            plugin.asked_for(&image).login_for(HOST);
            // What is there now is ours again, and used: nobody is asked for it.
            let data = std::fs::symlink_metadata(&path).expect("stat");
            assert!(data.is_file() && data.mode() & 0o777 == 0o600, "{name}: {data:?}");
            let kept = std::fs::read_to_string(&path).expect("read");
            assert!(kept.contains(PASSWORD) && !kept.contains(POISON), "{name}: {kept}");
            plugin.asked_for(&image).login_for(HOST);
            assert_eq!(aws.requests(), 2, "{name}");
        },
    );
}

#[test]
fn without_a_folder_of_its_own_it_answers_and_keeps_nothing() {
    let aws = Peer::start(well);
    each(
        4,
        FOLDERS,
        |(name, _)| (*name).to_owned(),
        |(name, prepare)| {
            let plugin = Plugin::of(&aws);
            prepare(&plugin);
            let told = plugin.asked_for(&format!("{HOST}/app"));
            told.login_for(HOST);
            assert!(told.stderr.contains("going on without a cache"), "{name}: {}", told.stderr);
            let elsewhere = plugin.home.path().join("elsewhere");
            let left: Vec<_> =
                [plugin.cache(), elsewhere].iter().flat_map(std::fs::read_dir).flatten().flatten().collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        },
    );
    // Nor where nothing can be made at all.
    let plugin = Plugin::of(&aws);
    for folder in ["/proc/ecr", "/dev/null/ecr"] {
        let mut command = plugin.command_with(Path::new(folder), &[]);
        let told = answer(&mut command, request(&format!("{HOST}/app")).to_string().as_bytes());
        told.login_for(HOST);
        assert!(told.stderr.contains("going on without a cache") && told.stderr.contains(folder), "{}", told.stderr);
    }
}

#[test]
fn a_full_or_read_only_disk_is_said_and_the_pull_goes_on() {
    let aws = Peer::start(well);
    let (full, fixed) = (Plugin::of(&aws), Plugin::of(&aws));
    for plugin in [&full, &fixed] {
        std::fs::create_dir(plugin.cache()).expect("mkdir");
    }
    let options = ["-t", "tmpfs", "-o", "size=16k,mode=0700"];
    let Some(_full) = Mount::new(&full.cache(), &options, "none") else { return };
    let Some(_fixed) = Mount::new(&fixed.cache(), &["-t", "tmpfs", "-o", "ro,mode=0700"], "none") else { return };
    // The lock is there already: what is left to be written is the login.
    full.asked_for(&format!("{HOST}/app")).login_for(HOST);
    std::fs::remove_file(full.files("json").remove(0)).expect("remove");
    let mut filler = std::fs::File::create(full.cache().join("filler")).expect("filler");
    while std::io::Write::write_all(&mut filler, &[b'x'; 4096]).is_ok() {}
    let told = full.asked_for(&format!("{HOST}/app"));
    told.login_for(HOST);
    assert!(told.stderr.contains("the login is not kept") && told.stderr.contains("No space left"), "{}", told.stderr);
    let names = std::fs::read_dir(full.cache()).expect("folder").flatten().map(|entry| entry.file_name());
    // A lock, a count of what was asked, and what fills it.
    let left: Vec<_> = names.filter(|name| name != "filler" && name != "asked").collect();
    assert_eq!(left.len(), 1, "something half-written is left: {left:?}");
    let told = fixed.asked_for(&format!("{HOST}/app"));
    told.login_for(HOST);
    assert!(told.stderr.contains("going on without a cache") && told.stderr.contains("Read-only"), "{}", told.stderr);
}

/// Whoever holds it has died in a way that keeps it, or hangs.
#[test]
fn a_lock_that_is_never_given_back_is_waited_for_and_then_passed_by() {
    let aws = Peer::start(well);
    let plugin = Plugin::of(&aws);
    plugin.asked_for(&format!("{HOST}/app")).login_for(HOST);
    std::fs::remove_file(plugin.files("json").remove(0)).expect("remove");
    let lock = std::fs::OpenOptions::new().write(true).open(plugin.files("lock").remove(0)).expect("open");
    let held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("lock");
    let began = Instant::now();
    plugin.asked_for(&format!("{HOST}/app")).login_for(HOST);
    assert!(began.elapsed().as_secs() < 20, "the kubelet would have given up");
    assert_eq!((aws.requests(), plugin.files("json").len()), (2, 0), "whoever has the turn writes, and nobody else");
    drop(held);
    plugin.asked_for(&format!("{HOST}/app")).login_for(HOST);
    assert_eq!((aws.requests(), plugin.files("json").len()), (3, 1));
}

/// A lock that cannot be one.
#[test]
fn a_lock_that_is_a_folder_or_a_link_is_passed_by() {
    let aws = Peer::start(well);
    let make: [fn(&Path); 2] =
        [|path| std::fs::create_dir(path).expect("mkdir"), |path| symlink("/etc/passwd", path).expect("link")];
    for spoil in make {
        let plugin = Plugin::of(&aws);
        plugin.asked_for(&format!("{HOST}/app")).login_for(HOST);
        let lock = plugin.files("lock").remove(0);
        std::fs::remove_file(plugin.files("json").remove(0)).expect("remove");
        std::fs::remove_file(&lock).expect("remove");
        spoil(&lock);
        let told = plugin.asked_for(&format!("{HOST}/app"));
        told.login_for(HOST);
        assert!(told.stderr.contains("going on without a cache"), "{}", told.stderr);
    }
}
