//! What each step leaves on the machine of the tests. A kill compares an installation with another one: what both do wrong,
//! it does not see.

use super::machine::{Machine, put};
use super::tests::{PERSONS, Release, Way, machine, nothing, packaged, persons};
use super::{End, until};
use crate::baked::MANIFEST;
use crate::catalog::Artifact;
use crate::progress::Quiet;
use crate::source::Source;
use crate::steps::{Item, Job, Row, Runtime, Staged, State, Supply, carry_out, plan};
use crate::supply::Shop;
use crate::testing::Plain;
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use serde_json::Value;
use std::fs::{read_link, read_to_string};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub(super) fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

/// Installs with a job that was changed before; what it changed on the machine, too.
fn carried(root: &Path, way: Way, change: impl FnOnce(&mut Job<'_>)) -> (Outcome<Vec<Row>>, Vec<String>) {
    let (http, release) = (Plain { port: 0 }, Release::new(1));
    let shop = Shop { source: Source::Store(&release), http: &http, progress: &Quiet };
    let (rows, passed) = until(End::Never, false, || {
        block(async {
            let mut job = way.job(root, &release, &shop).await.expect("job");
            change(&mut job);
            carry_out(&job, &mut |_| {}).await
        })
    });
    (rows.expect("nobody kills it"), passed.into_iter().map(|one| one.what).collect())
}

fn installed(root: &Path, way: Way, change: impl FnOnce(&mut Job<'_>)) -> (Vec<Item>, Vec<String>) {
    let (rows, passed) = carried(root, way, change);
    (rows.expect("install").into_iter().flat_map(|row| row.found.expect("found")).collect(), passed)
}

fn text(root: &Path, path: &str) -> String {
    read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn mode(root: &Path, path: &str) -> u32 {
    let data = root.join(path).symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
    data.permissions().mode() & 0o7777
}

fn state<'a>(items: &'a [Item], what: &str) -> &'a Item {
    items.iter().find(|item| item.what == what).unwrap_or_else(|| panic!("{what}: {items:?}"))
}

#[test]
fn everything_has_its_mode_and_its_text() {
    let folder = machine(&nothing);
    let root = folder.path();
    std::fs::set_permissions(root.join("etc/fstab"), PermissionsExt::from_mode(0o640)).expect("chmod");
    installed(root, Way::default(), |_| {});
    for (path, wanted) in [
        ("usr/local/bin", 0o755),
        ("usr/local/bin/kubelet", 0o755),
        ("usr/local/sbin/runc", 0o755),
        ("opt/cni/bin/bridge", 0o755),
        ("etc/containerd/config.toml", 0o644),
        ("etc/sysctl.d/90-kubestrap.conf", 0o644),
        ("etc/modules-load.d/kubestrap.conf", 0o644),
        ("usr/local/lib/systemd/system/containerd.service", 0o644),
        ("usr/lib/kubestrap/manifest.json", 0o644),
        ("etc/fstab", 0o640),
    ] {
        assert_eq!(mode(root, path), wanted, "{path}");
    }
    assert!(text(root, "usr/local/bin/kubelet").contains("kubelet of release 1"));
    assert!(text(root, "etc/fstab").ends_with("\n# kubestrap: no swap: /swapfile none swap sw 0 0\n"));
    assert_eq!(
        text(root, "etc/modules-load.d/kubestrap.conf").lines().skip(1).collect::<Vec<_>>(),
        ["overlay", "br_netfilter"]
    );
    assert!(text(root, "etc/sysctl.d/90-kubestrap.conf").contains("\nnet.ipv4.ip_forward = 1\n"));
    assert!(
        !root.join("var/cache/kubestrap/install").exists() && !root.join("usr/lib/kubestrap/installing.json").exists()
    );
}

#[test]
fn what_the_configuration_says_reaches_the_machine() {
    let folder = machine(&nothing);
    let root = folder.path();
    put(root, "proc/sys/fs/inotify/max_user_instances", "128\n");
    let (_, passed) = installed(root, Way::default(), |job| {
        job.settings.host.modules = vec!["nf_conntrack".into()];
        job.settings.host.sysctls = [("fs.inotify.max_user_instances".into(), "8192".into())].into();
        job.settings.certs_dir = Some("/srv/certs.d".into());
        job.settings.kubelet.systemd_cgroups = false;
    });
    assert!(root.join("sys/module/nf_conntrack").exists());
    assert!(text(root, "etc/modules-load.d/kubestrap.conf").ends_with("\nnf_conntrack\n"));
    assert_eq!(text(root, "proc/sys/fs/inotify/max_user_instances"), "8192");
    assert!(text(root, "etc/sysctl.d/90-kubestrap.conf").contains("\nfs.inotify.max_user_instances = 8192\n"));
    let configuration = text(root, "etc/containerd/config.toml");
    assert!(configuration.contains("config_path = \"/srv/certs.d\""), "{configuration}");
    assert!(configuration.contains("SystemdCgroup = false"), "{configuration}");
    let digest = "a".repeat(64);
    let pull = format!(
        "run ctr --namespace k8s.io images pull --hosts-dir /srv/certs.d registry.example.com/pause@sha256:{digest}"
    );
    assert!(passed.contains(&pull), "{passed:?}");
    let listed = text(root, "sim/images");
    assert!(listed.contains(&format!("registry.example.com/pause:3.10 application/x sha256:{digest}")), "{listed}");
}

#[test]
fn a_name_that_another_image_has_is_pulled_again() {
    let folder = machine(&nothing);
    let root = folder.path();
    put(root, "sim/images", "registry.example.com/pause:3.10 application/x sha256:other 1.0 MiB - -\n");
    installed(root, Way::default(), |_| {});
    assert!(!text(root, "sim/images").contains("sha256:other"));
}

#[test]
fn old_control_groups_and_swap_are_judged_by_the_kubelets_configuration() {
    let folder = machine(&|root| std::fs::remove_file(root.join("sys/fs/cgroup/cgroup.controllers")).expect("remove"));
    let root = folder.path();
    let (refused, _) = carried(root, Way::default(), |_| {});
    let failure = refused.expect_err("cgroup v1");
    assert!(failure.to_string().contains("cgroup v1"), "{failure}");
    assert!(!root.join("usr/local").exists(), "refused after it was changed");

    let fstab = text(root, "etc/fstab");
    let bears = |job: &mut Job<'_>| {
        job.settings.kubelet.fails_on_cgroup_v1 = false;
        job.settings.kubelet.fails_on_swap = false;
        job.settings.host.swap = None;
    };
    let (items, passed) = installed(root, Way::default(), bears);
    assert_eq!((&state(&items, "cgroup v2").state, &state(&items, "swap").state), (&State::Note, &State::Note));
    assert_eq!(text(root, "etc/fstab"), fstab);
    assert!(!passed.iter().any(|what| what.contains("swapoff")), "{passed:?}");

    // The machine that builds an image has its own.
    let image = machine(&|root| std::fs::remove_file(root.join("sys/fs/cgroup/cgroup.controllers")).expect("remove"));
    let (items, _) = installed(image.path(), Way { is_image: true, ..Way::default() }, |_| {});
    assert_eq!(state(&items, "cgroup v2").state, State::Note);
}

#[test]
fn a_persons_files_stay_where_they_are_and_are_not_written_down_as_ours() {
    let prepare = |root: &Path| {
        persons(root);
        put(root, "etc/modules-load.d/kubestrap.conf", "mine");
        put(root, "etc/crictl.yaml", "mine");
    };
    let folder = machine(&prepare);
    let root = folder.path();
    let (items, _) = installed(root, Way::default(), |_| {});
    let manifest = text(root, MANIFEST.trim_start_matches('/'));
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let lists = [&manifest["components"], &manifest["files"]];
    for path in PERSONS.iter().chain(&["etc/modules-load.d/kubestrap.conf", "etc/crictl.yaml"]) {
        assert_eq!(text(root, path), "mine", "{path}");
        assert!(!root.join(format!("{path}.before-kubestrap")).exists(), "{path}");
        let path = format!("/{path}");
        let listed = lists.iter().filter_map(|list| list.as_array()).flatten();
        assert!(!listed.into_iter().any(|one| one["path"] == *path), "{path} is written down as ours");
    }
    for path in ["/etc/sysctl.d/90-kubestrap.conf", "/etc/containerd/config.toml", "/etc/modules-load.d/kubestrap.conf"]
    {
        assert_eq!(state(&items, path).state, State::Kept, "{path}");
    }
}

#[test]
fn every_text_of_a_person_is_kept_when_it_is_replaced() {
    let folder = machine(&nothing);
    let (root, force) = (folder.path(), Way { replace: true, ..Way::default() });
    let (path, saved) = ("etc/containerd/config.toml", "etc/containerd/config.toml.before-kubestrap");
    put(root, path, "one");
    let (items, _) = installed(root, force, |_| {});
    let told = &state(&items, "/etc/containerd/config.toml").why;
    assert!(told.ends_with("kept as /etc/containerd/config.toml.before-kubestrap"), "{told}");
    let ours = text(root, path);
    put(root, path, "two");
    let (items, _) = installed(root, force, |_| {});
    let told = &state(&items, "/etc/containerd/config.toml").why;
    assert!(told.ends_with("kept as /etc/containerd/config.toml.before-kubestrap.2"), "{told}");
    // The first again: it is there already.
    put(root, path, "one");
    installed(root, force, |_| {});
    std::fs::remove_file(root.join(path)).expect("remove");
    symlink("/srv/config.toml", root.join(path)).expect("link");
    installed(root, force, |_| {});
    assert_eq!(
        (text(root, saved), text(root, &format!("{saved}.2")), text(root, path)),
        ("one".into(), "two".into(), ours)
    );
    assert_eq!(read_link(root.join(format!("{saved}.3"))).expect("link"), Path::new("/srv/config.toml"));
    assert!(!root.join(format!("{saved}.4")).exists());

    for number in 4..=99 {
        put(root, &format!("{saved}.{number}"), &number.to_string());
    }
    put(root, path, "three");
    let failure = carried(root, force, |_| {}).0.expect_err("there is no name left");
    assert!(failure.to_string().contains("config.toml") && failure.fix().contains("move"), "{failure}");
    assert_eq!(text(root, path), "three");
}

#[test]
fn units_of_a_person_win_and_what_is_masked_stays_masked() {
    let folder = machine(&nothing);
    let root = folder.path();
    put(root, "etc/systemd/system/containerd.service", "mine");
    symlink("/dev/null", root.join("etc/systemd/system/kubelet.service")).expect("link");
    let (items, _) = installed(root, Way::default(), |_| {});
    assert_eq!(state(&items, "kubelet.service at boot").state, State::Kept);
    let told = state(&items, "/etc/systemd/system/containerd.service");
    assert!(told.state == State::Kept && told.why.contains("wins over"), "{told:?}");
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    let leads = read_link(wants.join("containerd.service")).expect("enabled");
    assert_eq!(leads, Path::new("/etc/systemd/system/containerd.service"));
    assert!(wants.join("kubelet.service").symlink_metadata().is_err(), "masked, and enabled");
}

#[test]
fn a_containerd_that_the_kubelet_does_not_work_with_is_refused() {
    let folder = machine(&packaged);
    let root = folder.path();
    let old = |job: &mut Job<'_>| {
        job.runtime = Runtime::Kept { path: "/usr/bin/containerd".into(), version: Some("1.7.27".into()) };
    };
    let failure = carried(root, Way::default(), old).0.expect_err("containerd 1");
    assert!(
        failure.to_string().contains("1.7.27") && failure.fix().contains("install.containerd: install"),
        "{failure}"
    );
    assert_eq!(text(root, "etc/containerd/config.toml"), "of the package\n");
}

#[test]
fn what_others_wrote_into_the_manifest_stays_in_it() {
    let folder = machine(&nothing);
    let root = folder.path();
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let theirs = format!(
        r#"{{"schema":1,"image":"golden-7","components":[{{"name":"agent","version":"1","path":"/opt/agent","sha256":"{digest}"}}]}}"#
    );
    put(root, MANIFEST.trim_start_matches('/'), &theirs);
    installed(root, Way::default(), |_| {});
    let manifest: Value = serde_json::from_str(&text(root, MANIFEST.trim_start_matches('/'))).expect("JSON");
    let programs = manifest["components"].as_array().expect("components");
    assert!(programs.iter().any(|one| one["path"] == "/opt/agent" && one["sha256"] == digest), "{manifest:#}");
    assert!(programs.iter().any(|one| one["path"] == "/usr/local/bin/kubelet"), "{manifest:#}");
    assert_eq!(manifest["image"], "golden-7");
}

/// Has nothing, and says so when it is asked.
struct Empty;

#[async_trait(?Send)]
impl Supply for Empty {
    fn check(&self, artifacts: &[Artifact]) -> Outcome<()> {
        Err(Failure::new(
            Cause::DownloadMissing,
            format!("take {}", artifacts[0].title()),
            "the bundle does not have it",
        ))
    }

    async fn stage(&self, _: &[Artifact], _: &Path) -> Outcome<Vec<Staged>> {
        panic!("fetched from where nothing is")
    }

    fn stage_archives(&self, _: &[&str], _: &Path) -> Outcome<Vec<PathBuf>> {
        panic!("fetched from where nothing is")
    }

    fn origin(&self, _: &Artifact) -> String {
        String::new()
    }
}

#[test]
fn what_a_source_does_not_have_is_known_before_anything_is_fetched() {
    let folder = machine(&nothing);
    let (http, release) = (Plain { port: 0 }, Release::new(1));
    let shop = Shop { source: Source::Store(&release), http: &http, progress: &Quiet };
    let rows = block(async {
        let job = Way::default().job(folder.path(), &release, &shop).await.expect("job");
        plan(&Job { supply: &Empty, ..job }).await
    });
    let programs = rows.iter().find(|row| row.step == "programs").expect("a row");
    let failure = programs.found.as_ref().expect_err("it has none");
    assert!(failure.to_string().contains("the bundle does not have it"), "{failure}");
}

#[test]
fn containerd_is_started_again_for_another_configuration_and_for_another_program() {
    let folder = machine(&nothing);
    let (root, way) = (folder.path(), Way::default());
    way.to_its_end(root, &Release::new(1));
    let restarts = |change: &dyn Fn(&mut Job<'_>)| {
        let (_, passed) = installed(root, way, change);
        passed.iter().any(|what| what == "run systemctl restart containerd.service")
    };
    assert!(!restarts(&|_| {}), "nothing changed");
    assert!(restarts(&|job| job.settings.certs_dir = Some("/srv/certs.d".into())), "another configuration alone");
    put(root, "usr/local/bin/containerd", "a person's");
    assert!(restarts(&|job| job.settings.certs_dir = Some("/srv/certs.d".into())), "another program alone");
    let machine = Machine { root: root.to_owned(), starts_late: false };
    assert_eq!(machine.complaint(), None);
}

#[test]
fn systemd_reads_units_that_it_has_read_in_another_form() {
    let folder = machine(&nothing);
    let (root, way) = (folder.path(), Way::default());
    way.to_its_end(root, &Release::new(1));
    put(root, "sim/units-read", "those of an earlier release");
    installed(root, way, |_| {});
    assert_eq!(Machine { root: root.to_owned(), starts_late: false }.complaint(), None);
}
