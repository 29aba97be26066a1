//! Wherever an installation is killed, the next one comes to the end that it would have come to.

use super::machine::{Machine, copy_of, folder, picture, put};
use super::{End, until};
use crate::baked::Ledger;
use crate::catalog::{Arch, Artifact, Component, Member, Versions, Wanted, placements};
use crate::download::Body;
use crate::host::Host;
use crate::progress::Quiet;
use crate::source::{Opened, Source, StoreFiles, key};
use crate::steps::{Job, Row, carry_out, components, runtime};
use crate::supply::Shop;
use crate::testing::{Plain, component};
use async_trait::async_trait;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use kubestrap_core::config::settings::{HostSettings, InstallSettings, Swap};
use kubestrap_core::model::cause::Outcome;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read, read_to_string};
use std::path::Path;
use std::rc::Rc;

const RECORD: &str = "usr/lib/kubestrap/installing.json";
pub(super) const PERSONS: &[&str] = &[
    "usr/local/bin/kubectl",
    "opt/cni/bin/bridge",
    "etc/sysctl.d/90-kubestrap.conf",
    "etc/containerd/config.toml",
    "etc/.kubestrap-notes",
];

/// The files of all components in one version.
pub(super) struct Release {
    number: u32,
    artifacts: Vec<Artifact>,
    files: BTreeMap<String, Vec<u8>>,
}

fn archive(members: &[&str], number: u32) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for member in members {
        let content = format!("{member} of release {number}\n");
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, member, content.as_bytes()).expect("member");
    }
    tar.into_inner().and_then(GzEncoder::finish).expect("archive")
}

impl Release {
    pub(super) fn new(number: u32) -> Release {
        let (mut artifacts, mut files) = (Vec::new(), BTreeMap::new());
        let versions = versions(number);
        for one in Component::ALL {
            let members: Vec<&str> = placements(one)
                .iter()
                .flat_map(|placement| match placement.member {
                    Member::Whole => vec![],
                    Member::Named(name) => vec![name],
                    Member::TopLevel => vec!["bridge", "loopback"],
                })
                .collect();
            let content = match members.is_empty() {
                true => format!("{} of release {number}\n", one.label()).into_bytes(),
                false => archive(&members, number),
            };
            let artifact = component(one, versions.of(one), &content);
            files.insert(key(&artifact), content);
            artifacts.push(artifact);
        }
        Release { number, artifacts, files }
    }
}

fn versions(number: u32) -> Versions {
    let of = |line: &str| Some(format!("{line}.90{number}"));
    let (kubernetes, containerd, runc) = (of("1.36"), of("2.1"), of("1.3"));
    let wanted =
        Wanted { kubernetes, containerd, runc, cni_plugins: of("1.7"), crictl: of("1.36"), ..Wanted::default() };
    Versions::resolve(&wanted).expect("versions")
}

#[async_trait(?Send)]
impl StoreFiles for Release {
    async fn open(&self, key: &str) -> Outcome<Option<Opened>> {
        let found = self.files.get(key).cloned();
        Ok(found.map(|content| Opened { length: Some(content.len() as u64), body: Box::new(Whole(Some(content))) }))
    }

    fn place(&self) -> String {
        "store/".to_owned()
    }
}

struct Whole(Option<Vec<u8>>);

#[async_trait(?Send)]
impl Body for Whole {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        Ok(self.0.take().map(Bytes::from))
    }
}

/// How installations are run in a scenario.
#[derive(Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) replace: bool,
    pub(super) is_image: bool,
    pub(super) starts_late: bool,
    pub(super) is_cache_elsewhere: bool,
}

impl Way {
    pub(super) async fn job<'a>(&self, root: &Path, release: &Release, shop: &'a Shop<'a>) -> Outcome<Job<'a>> {
        let machine = Rc::new(Machine { root: root.to_owned(), starts_late: self.starts_late });
        let host = if self.is_image { Host::new(root) } else { Host::simulated(root, machine) };
        let settings = InstallSettings {
            images: vec![format!("registry.example.com/pause:3.10@sha256:{}", "a".repeat(64))],
            sandbox: Some(format!("registry.example.com/pause:{}", release.number)),
            host: HostSettings { swap: Some(Swap::Off), ..HostSettings::default() },
            ..InstallSettings::default()
        };
        let runtime = runtime(&host, &settings).await?;
        let components = components(&host, &runtime)?;
        let artifacts = release.artifacts.iter().filter(|one| components.contains(&one.component)).cloned().collect();
        Ok(Job {
            ledger: RefCell::new(Ledger::read(&host)?),
            versions: versions(release.number),
            by: ("0.1.0".into(), "2026-01-01T00:00:00Z".into()),
            arch: Arch::Amd64,
            images: Vec::new(),
            replace: self.replace,
            supply: shop,
            artifacts,
            settings,
            runtime,
            host,
        })
    }

    /// In the order of the verb.
    fn install(&self, root: &Path, release: &Release) -> Outcome<Vec<Row>> {
        let http = Plain { port: 0 };
        let shop = Shop { source: Source::Store(release), http: &http, progress: &Quiet };
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        tokio.block_on(async {
            let _alone = Host::new(root).lock()?;
            let job = self.job(root, release, &shop).await?;
            carry_out(&job, &mut |_| {}).await
        })
    }

    pub(super) fn to_its_end(self, root: &Path, release: &Release) {
        let (done, _) = until(End::Never, self.is_cache_elsewhere, || self.install(root, release));
        done.expect("nobody kills it").expect("install");
        let machine = Machine { root: root.to_owned(), starts_late: self.starts_late };
        assert_eq!(machine.complaint().filter(|_| !self.is_image), None);
    }
}

/// What is compared of a machine: all but whether this kubestrap or systemd started containerd last.
fn end_of(root: &Path) -> String {
    let picture = picture(root);
    let lines = picture.lines().filter(|line| !line.starts_with("run/kubestrap-install"));
    lines.collect::<Vec<_>>().join("\n")
}

struct Scenario<'a> {
    name: &'a str,
    way: Way,
    prepare: &'a dyn Fn(&Path),
    killed: &'a Release,
    next: &'a Release,
}

pub(super) fn machine(prepare: &dyn Fn(&Path)) -> tempfile::TempDir {
    let folder = folder();
    Machine::make(folder.path());
    put(folder.path(), "run/containerd/containerd.sock", "");
    prepare(folder.path());
    folder
}

impl Scenario<'_> {
    /// Kills it everywhere; at how many points.
    fn play(&self) -> usize {
        let (before, whole, wanted) = (machine(self.prepare), machine(self.prepare), machine(self.prepare));
        let (done, passed) = until(End::Never, self.way.is_cache_elsewhere, || {
            self.way.install(whole.path(), self.killed).expect(self.name)
        });
        assert!(done.is_some() && passed.len() > 10, "{}: {passed:?}", self.name);
        self.way.to_its_end(wanted.path(), self.next);
        let pictures = [picture(before.path()), picture(whole.path())];
        let allowed: BTreeSet<&str> = pictures.iter().flat_map(|picture| picture.lines()).collect();
        let end = end_of(wanted.path());
        let mut ends: Vec<End> = (0..passed.len()).map(End::Before).collect();
        ends.extend((0..passed.len()).filter(|at| passed[*at].is_divisible).map(End::Within));
        for point in &ends {
            let (End::Before(at) | End::Within(at)) = point else { continue };
            let told = format!("{}: killed at {point:?} of {}: {}", self.name, passed.len(), passed[*at].what);
            self.killed_at(*point, &told, &allowed, before.path(), &end);
        }
        ends.len()
    }

    fn killed_at(&self, end: End, told: &str, allowed: &BTreeSet<&str>, before: &Path, wanted: &str) {
        let folder = copy_of(before);
        let root = folder.path();
        let (done, _) = until(end, self.way.is_cache_elsewhere, || self.way.install(root, self.killed));
        assert!(done.is_none(), "{told}: it was not killed");
        for line in picture(root).lines().filter(|line| !is_between(line)) {
            assert!(allowed.contains(line), "{told}: half of something has the name of the whole: {line}");
        }
        if let Ok(record) = read_to_string(root.join(RECORD)) {
            serde_json::from_str::<serde_json::Value>(&record).expect(told);
        }
        self.nothing_is_lost(before, root, told);
        self.way.to_its_end(root, self.next);
        same(&end_of(root), wanted, told);
        self.nothing_is_lost(before, root, told);
        let once = picture(root);
        let (again, passed) = until(End::Never, self.way.is_cache_elsewhere, || self.way.install(root, self.next));
        let rows = again.expect("nobody kills it").expect(told);
        assert!(passed.is_empty() && !rows.iter().any(Row::is_wanted), "{told}: a third run changes {passed:?}");
        same(&picture(root), &once, told);
    }

    fn nothing_is_lost(&self, before: &Path, root: &Path, told: &str) {
        for path in PERSONS.iter().filter(|path| read(before.join(path)).is_ok_and(|text| text == b"mine")) {
            let saved = [(*path).to_owned(), format!("{path}.before-kubestrap")];
            let is_program = path.contains("/bin/") && self.way.replace;
            let is_kept = saved.iter().any(|path| read(root.join(path)).is_ok_and(|text| text == b"mine"));
            assert!(is_program || is_kept, "{told}: {path} of a person is lost");
        }
    }
}

/// What may be half done while nobody installs: drafts, the cache, the record, the running kernel.
fn is_between(line: &str) -> bool {
    let path = line.split('\t').next().unwrap_or_default();
    let is_draft = path.rsplit('/').next().is_some_and(|name| name.starts_with(".kubestrap-"));
    let elsewhere = ["var/cache", "var\t", "proc/", "sim", RECORD].iter().any(|start| line.starts_with(start));
    is_draft || elsewhere || path == "var"
}

/// The first line that differs, instead of two pictures.
fn same(is: &str, wanted: &str, told: &str) {
    let (is, wanted): (BTreeSet<&str>, BTreeSet<&str>) = (is.lines().collect(), wanted.lines().collect());
    let more: Vec<_> = is.difference(&wanted).take(3).collect();
    let less: Vec<_> = wanted.difference(&is).take(3).collect();
    assert!(is == wanted, "{told}\nthere is       {more:#?}\nthere should be {less:#?}");
}

pub(super) fn nothing(_: &Path) {}

pub(super) fn persons(root: &Path) {
    for path in PERSONS {
        put(root, path, "mine");
    }
}

pub(super) fn packaged(root: &Path) {
    for (path, text) in [
        ("usr/bin/containerd", "the package's"),
        ("usr/sbin/runc", "the package's"),
        ("etc/containerd/config.toml", "of the package\n"),
        ("usr/bin/dpkg-query", ""),
    ] {
        put(root, path, text);
    }
}

#[test]
fn a_first_installation_may_be_killed_anywhere() {
    let one = Release::new(1);
    let way = Way::default();
    let plays = [
        ("first", way),
        ("first, containerd started long ago", Way { starts_late: true, ..way }),
        ("first, the cache is another file system", Way { is_cache_elsewhere: true, ..way }),
        ("an image", Way { is_image: true, ..way }),
    ];
    for (name, way) in plays {
        let points = Scenario { name, way, prepare: &nothing, killed: &one, next: &one }.play();
        println!("{name}: {points} points");
    }
}

#[test]
fn files_of_others_outlive_an_installation_that_is_killed_anywhere() {
    let one = Release::new(1);
    let way = Way::default();
    let force = Way { replace: true, ..way };
    #[allow(clippy::type_complexity)]
    let plays: [(&str, Way, &dyn Fn(&Path)); 3] = [
        ("a person's files", way, &persons),
        ("a person's files, by force", force, &persons),
        ("a package's containerd", way, &packaged),
    ];
    for (name, way, prepare) in plays {
        let points = Scenario { name, way, prepare, killed: &one, next: &one }.play();
        println!("{name}: {points} points");
    }
}

#[test]
fn another_version_may_be_killed_anywhere_and_followed_by_any_other() {
    let releases = [Release::new(1), Release::new(2), Release::new(3)];
    let [one, two, three] = &releases;
    let way = Way::default();
    let earlier = |root: &Path| way.to_its_end(root, one);
    let beside = |root: &Path| {
        packaged(root);
        persons(root);
        way.to_its_end(root, one);
    };
    #[allow(clippy::type_complexity)]
    let plays: [(&str, &dyn Fn(&Path), &Release); 5] = [
        ("upgrade", &earlier, two),
        ("upgrade, then yet another", &earlier, three),
        ("upgrade, then back", &earlier, one),
        ("upgrade beside files of others", &beside, two),
        ("first, then another", &nothing, one),
    ];
    for (name, prepare, next) in plays {
        let points = Scenario { name, way, prepare, killed: two, next }.play();
        println!("{name}: {points} points");
    }
}

#[test]
fn a_torn_record_is_refused_and_without_it_the_same_version_goes_on() {
    let (one, two, way) = (Release::new(1), Release::new(2), Way::default());
    let prepare = |root: &Path| way.to_its_end(root, &one);
    let (whole, spare) = (machine(&prepare), machine(&prepare));
    let (_, passed) = until(End::Never, false, || way.install(spare.path(), &two).expect("install"));
    way.to_its_end(whole.path(), &two);
    let at = passed.iter().position(|one| one.what.ends_with("/usr/local/bin/kubelet")).expect("it is placed");
    for part in [0, 1, 2, 3] {
        let folder = machine(&prepare);
        let root = folder.path();
        until(End::Before(at + 1), false, || way.install(root, &two).expect("install"));
        let text = read_to_string(root.join(RECORD)).expect("a record");
        put(root, RECORD, &text[..text.len() * part / 4]);
        let before = picture(root);
        let failure = way.install(root, &two).expect_err("torn");
        assert!(failure.to_string().contains("installing.json") && failure.fix().contains("remove it"), "{failure}");
        same(&picture(root), &before, "refused, and yet changed");
        std::fs::remove_file(root.join(RECORD)).expect("remove");
        way.to_its_end(root, &two);
        same(&end_of(root), &end_of(whole.path()), "after the record was removed");
    }
}
