//! `install` into a folder, from bundles: placed, placed again, beside what somebody else has there.

use crate::process::{KUBESTRAP, finish};
use crate::world::{Machine, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const MANIFEST: &str = "/usr/lib/kubestrap/manifest.json";
/// No versions that the shipped lock knows: their files would have to be the real ones.
pub const VERSION: &str = "1.36.901";

pub fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// What each component's release has: members of an archive, or the file itself.
pub fn released(version: &str) -> Vec<(&'static str, String, String, Vec<&'static str>)> {
    let arch = arch();
    let plain = |name: &'static str| (name, version.to_owned(), name.to_owned(), vec![]);
    vec![
        (
            "containerd",
            "2.1.901".into(),
            format!("containerd-static-2.1.901-linux-{arch}.tar.gz"),
            vec!["bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr"],
        ),
        ("runc", "1.3.901".into(), format!("runc.{arch}"), vec![]),
        (
            "cni-plugins",
            "1.7.901".into(),
            format!("cni-plugins-linux-{arch}-v1.7.901.tgz"),
            vec!["bridge", "host-local", "loopback"],
        ),
        ("crictl", "1.36.901".into(), format!("crictl-v1.36.901-linux-{arch}.tar.gz"), vec!["crictl"]),
        plain("kubeadm"),
        plain("kubelet"),
        plain("kubectl"),
    ]
}

fn archive(folder: &Path, members: &[&str], into: &Path) {
    for member in members {
        let path = folder.join(member);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("mkdir");
        std::fs::write(&path, format!("#!/bin/sh\necho {member}\n")).expect("write");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-czf"]).arg(into).arg("-C").arg(folder).args(members);
    finish(&mut tar).expect(0);
}

/// A folder as `--download-only` makes it, with programs of our own. The SHA-256 of its index.
pub fn bundle(place: &Path, version: &str) -> String {
    let mut files = Vec::new();
    for (component, version, file, members) in released(version) {
        let folder = place.join("files").join(component).join(&version).join(arch());
        std::fs::create_dir_all(&folder).expect("mkdir");
        let path = folder.join(&file);
        if members.is_empty() {
            std::fs::write(&path, format!("#!/bin/sh\necho {component} {version}\n")).expect("write");
        } else {
            archive(&place.with_extension(component), &members, &path);
        }
        let body = std::fs::read(&path).expect("read");
        let (sha256, bytes) = (digest(&body), body.len());
        files.push(
            json!({ "component": component, "version": version, "file": file, "sha256": sha256, "bytes": bytes }),
        );
    }
    let index = json!({ "schema": 1, "kubestrap": "0.1.0", "arch": arch(), "files": files, "images": [] });
    let text = serde_json::to_vec_pretty(&index).expect("JSON");
    std::fs::write(place.join("index.json"), &text).expect("write");
    digest(&text)
}

/// A machine with nothing, a bundle, and the arguments that install out of it.
struct Bare {
    _world: World,
    machine: Machine,
    bundle: PathBuf,
    index: String,
}

impl Bare {
    fn new() -> Bare {
        let world = World::new();
        let machine = world.worker("w1");
        let bundle = world.path("bundle");
        std::fs::create_dir(&bundle).expect("mkdir");
        let index = self::bundle(&bundle, VERSION);
        Bare { _world: world, machine, bundle, index }
    }

    fn arguments<'a>(&'a self, verb: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        let place = self.bundle.to_str().expect("a path");
        [verb, &["--from", place, "--index-sha256", &self.index], more].concat()
    }

    fn install(&self, more: &[&str]) -> crate::process::Finished {
        self.machine.run(&self.arguments(&["install"], more))
    }

    fn manifest(&self) -> Value {
        serde_json::from_str(&self.machine.read(MANIFEST)).expect("JSON")
    }
}

#[test]
fn a_second_run_changes_nothing_and_drift_finds_the_content_as_baked() {
    let bare = Bare::new();
    bare.install(&[]).expect(0).says(&["changed  programs", "kubelet 1.36.901", "content sha256:"]);
    let machine = &bare.machine;
    for (path, mode) in [
        ("/usr/local/bin/kubelet", 0o755),
        ("/usr/local/bin/containerd-shim-runc-v2", 0o755),
        ("/usr/local/sbin/runc", 0o755),
        ("/opt/cni/bin/bridge", 0o755),
        ("/etc/containerd/config.toml", 0o644),
        ("/etc/sysctl.d/90-kubestrap.conf", 0o644),
        ("/etc/modules-load.d/kubestrap.conf", 0o644),
        ("/etc/crictl.yaml", 0o644),
        ("/usr/local/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", 0o644),
        (MANIFEST, 0o644),
    ] {
        assert_eq!(machine.mode(path), mode, "{path}");
    }
    let link = std::fs::read_link(machine.path("/etc/systemd/system/multi-user.target.wants/kubelet.service"));
    assert_eq!(link.expect("enabled"), Path::new("/usr/local/lib/systemd/system/kubelet.service"));
    let configuration = machine.read("/etc/containerd/config.toml");
    assert!(configuration.contains("version = 3") && configuration.contains("SystemdCgroup = true"), "{configuration}");
    assert!(!machine.has("/var/cache/kubestrap/install"), "downloads stay in no image");

    let before = machine.picture("/");
    bare.install(&[]).expect(0).says(&["Nothing was changed"]);
    assert!(machine.picture("/") == before, "the second run changed something");
    let said = machine.run(&["drift", "--output", "json"]).expect(0);
    assert_eq!(serde_json::from_str::<Value>(&said.stdout).expect("JSON")["verdict"], "current", "{}", said.said());
    let content = machine.run(&["drift", "--baked"]).expect(0).stdout;
    bare.install(&[]).expect(0).says(&[content.trim()]);

    machine.write("/usr/local/bin/kubelet", "patched");
    machine.run(&["drift"]).expect(20).says(&["kubelet"]);
}

#[test]
fn the_manifest_says_what_came_from_where() {
    let bare = Bare::new();
    bare.install(&[]).expect(0);
    let manifest = bare.manifest();
    let programs = manifest["components"].as_array().expect("components");
    assert_eq!(programs.len(), 11, "{manifest:#}");
    let kubelet = programs.iter().find(|one| one["name"] == "kubelet").expect("kubelet");
    assert_eq!((&kubelet["version"], &kubelet["placed"]), (&json!(VERSION), &json!(true)));
    assert_eq!(kubelet["sha256"], kubelet["from"]["sha256"], "released as it is");
    assert_eq!(kubelet["from"]["checksum_from"], "bundle");
    let url = format!("https://dl.k8s.io/release/v{VERSION}/bin/linux/{}/kubelet", arch());
    assert_eq!(kubelet["from"]["url"], json!(url));
    assert!(kubelet["from"]["source"].as_str().is_some_and(|source| source.contains("bundle")), "{kubelet}");
    assert_eq!((&manifest["schema"], &manifest["arch"]), (&json!(1), &json!(arch())));
    assert!(manifest["baked_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{manifest:#}");
}

#[test]
fn files_of_a_person_are_kept_told_and_overwritten_only_by_force() {
    let bare = Bare::new();
    let machine = &bare.machine;
    for path in ["/usr/local/bin/kubectl", "/opt/cni/bin/bridge", "/etc/containerd/config.toml"] {
        machine.write(path, "mine");
    }
    bare.install(&[]).expect(0).says(&["kept kubectl 1.36.901", "kubestrap did not put this file here", "3 things"]);
    for path in ["/usr/local/bin/kubectl", "/opt/cni/bin/bridge", "/etc/containerd/config.toml"] {
        assert_eq!(machine.read(path), "mine", "{path}");
    }
    let names: Vec<String> =
        bare.manifest()["components"].as_array().expect("list").iter().map(|one| one["path"].to_string()).collect();
    assert!(!names.iter().any(|path| path.contains("kubectl") || path.contains("bridge")), "{names:?}");
    let before = machine.picture("/");
    bare.install(&[]).expect(0).says(&["Nothing was changed", "3 things"]);
    assert!(machine.picture("/") == before, "the second run changed something");

    bare.install(&["--replace"]).expect(0).says(&["4 changes"]);
    assert!(machine.read("/usr/local/bin/kubectl").contains("kubectl 1.36.901"));
    assert!(machine.read("/opt/cni/bin/bridge").contains("bridge"));
    assert_eq!(machine.read("/etc/containerd/config.toml.before-kubestrap"), "mine");
    machine.run(&["drift"]).expect(0);

    // A second time: both texts are kept, and the output says where.
    machine.write("/etc/containerd/config.toml", "mine, and better");
    let place = "/etc/containerd/config.toml.before-kubestrap.2";
    bare.install(&["--replace"]).expect(0).says(&[&format!("kept as {place}\n")]);
    assert_eq!(machine.read("/etc/containerd/config.toml.before-kubestrap"), "mine");
    assert_eq!(machine.read(place), "mine, and better");
    assert!(machine.read("/etc/containerd/config.toml").contains("SystemdCgroup"));
}

#[test]
fn what_the_machine_is_like_is_read_when_nobody_else_installs() {
    let bare = Bare::new();
    let folder = bare.machine.path("/usr/lib/kubestrap");
    std::fs::create_dir_all(&folder).expect("mkdir");
    // What the other one has half done: whoever reads it now works with what is old in a moment.
    bare.machine.write("/usr/lib/kubestrap/installing.json", "[[");
    let other = std::fs::File::open(&folder).expect("open");
    other.lock().expect("lock");
    bare.install(&[]).expect(11).says(&["busy", "another `kubestrap install` runs"]);
    drop(other);
    bare.install(&[]).expect(14).says(&["installing.json"]);
}

#[test]
fn another_version_replaces_what_was_placed() {
    let mut bare = Bare::new();
    bare.install(&[]).expect(0);
    bare.index = bundle(&bare.bundle, "1.36.902");
    bare.install(&[]).expect(0).says(&["it is of an earlier installation"]);
    assert!(bare.machine.read("/usr/local/bin/kubelet").contains("kubelet 1.36.902"));
    bare.machine.run(&["drift"]).expect(0);
}

#[test]
fn a_distributions_containerd_is_kept_and_configured() {
    let bare = Bare::new();
    bare.machine.write("/usr/bin/containerd", "the distribution's");
    bare.machine.write("/usr/sbin/runc", "the distribution's");
    bare.install(&[]).expect(0).says(&["/usr/bin/containerd"]);
    for ours in
        ["/usr/local/bin/containerd", "/usr/local/sbin/runc", "/usr/local/lib/systemd/system/containerd.service"]
    {
        assert!(!bare.machine.has(ours), "{ours}");
    }
    // Below a folder nobody can ask it for its version: every containerd reads this form.
    assert!(bare.machine.read("/etc/containerd/config.toml").contains("version = 2"));
    let manifest = bare.manifest();
    let kept = manifest["components"].as_array().expect("list").iter().find(|one| one["name"] == "containerd");
    assert_eq!(kept.expect("listed")["placed"], json!(false));

    bare.machine.configure("install: { containerd: install }\n");
    bare.install(&[]).expect(0);
    assert!(bare.machine.has("/usr/local/bin/containerd") && bare.machine.has("/usr/local/sbin/runc"));
    assert_eq!(bare.machine.read("/usr/bin/containerd"), "the distribution's");
}

#[test]
fn a_plan_shows_the_difference_and_changes_nothing() {
    let bare = Bare::new();
    let before = bare.machine.picture("/");
    let plan = |more: &[&str]| bare.machine.run(&bare.arguments(&["plan", "install"], more)).expect(0);
    plan(&[]).says(&["wanted   programs", "kubelet 1.36.901", "/etc/sysctl.d/90-kubestrap.conf: it is not there"]);
    let wanted: Value = serde_json::from_str(&plan(&["-o", "json"]).stdout).expect("JSON");
    assert!(wanted["wanted"].as_u64().is_some_and(|count| count > 10), "{wanted:#}");
    assert!(bare.machine.picture("/") == before, "plan changed something");
    bare.install(&[]).expect(0);
    let done: Value = serde_json::from_str(&plan(&["-o", "json"]).stdout).expect("JSON");
    assert_eq!(done["wanted"], 0, "{done:#}");
    assert!(done["content"].as_str().is_some_and(|content| content.starts_with("sha256:")));
}

#[test]
fn what_is_not_what_was_pinned_is_not_placed() {
    let bare = Bare::new();
    let kubelet = bare.bundle.join(format!("files/kubelet/{VERSION}/{}/kubelet", arch()));
    let good = std::fs::read(&kubelet).expect("read");
    std::fs::write(&kubelet, vec![b'x'; good.len()]).expect("write");
    bare.install(&[]).expect(11).says(&["download-rejected", "kubelet"]);
    assert!(!bare.machine.has("/usr/local/bin/kubelet") && !bare.machine.has(MANIFEST));
    // What was placed and configured before stays, and the next run goes on.
    std::fs::write(&kubelet, good).expect("write");
    bare.install(&[]).expect(0);
    assert!(bare.machine.has("/usr/local/bin/kubelet") && bare.machine.has(MANIFEST));

    let machine = bare._world.worker("w2");
    let place = bare.bundle.to_str().expect("a path");
    machine.run(&["install", "--from", place]).expect(10).says(&["is not known", "install.checksums"]);
}

#[test]
fn a_bundle_is_made_of_a_bundle_and_installed_elsewhere() {
    let bare = Bare::new();
    let tar = bare._world.path("bundle.tar");
    let made = bare.install(&["--download-only", tar.to_str().expect("a path")]).expect(0);
    assert!(!bare.machine.has(MANIFEST), "nothing is installed");
    let index = made.stdout.lines().find_map(|line| line.strip_prefix("index sha256:")).expect("the index").to_owned();
    let other = bare._world.worker("w2");
    let from = ["install", "--from", tar.to_str().expect("a path"), "--index-sha256"];
    other.run(&[&from[..], &[&"0".repeat(64)]].concat()).expect(11).says(&["index"]);
    other.run(&[&from[..], &[&index]].concat()).expect(0).says(&["content sha256:"]);
    assert!(other.has("/usr/local/bin/kubelet"));
}

/// As `docker save` makes it.
fn image_archive(world: &World, arch: &str) -> PathBuf {
    let (folder, path) = (world.path(&format!("saved-{arch}")), world.path(&format!("pause-{arch}.tar")));
    std::fs::create_dir_all(&folder).expect("mkdir");
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("write");
    write("config.json", json!({ "architecture": arch, "os": "linux" }).to_string());
    write("layer.tar", "a layer".repeat(1000));
    let tags = ["registry.k8s.io/pause:3.10.2"];
    write("manifest.json", json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]).to_string());
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&path).arg("-C").arg(&folder).args(["config.json", "layer.tar", "manifest.json"]);
    finish(&mut tar).expect(0);
    path
}

#[test]
fn images_in_a_bundle_are_named_and_refused_where_nothing_would_import_them() {
    let bare = Bare::new();
    let made = bare._world.path("with-images");
    let made = made.to_str().expect("a path");
    let download =
        |archive: &Path| bare.install(&["--download-only", made, "--image-archive", archive.to_str().expect("a path")]);
    let other = if arch() == "amd64" { "arm64" } else { "amd64" };
    let said = download(&image_archive(&bare._world, other)).expect(11);
    said.says(&[&format!("pause-{other}.tar"), &format!("registry.k8s.io/pause:3.10.2 is for linux/{other}")]);
    assert!(!Path::new(made).exists(), "nothing was fetched for it");

    let archive = image_archive(&bare._world, arch());
    let said = download(&archive).expect(0).says(&["7 files and 1 images in 1 archives"]);
    let index = said.stdout.lines().find_map(|line| line.strip_prefix("index sha256:")).expect("the index").to_owned();
    let listed: Value =
        serde_json::from_slice(&std::fs::read(Path::new(made).join("index.json")).expect("index")).expect("JSON");
    assert_eq!(listed["images"][0]["sha256"], json!(digest(&std::fs::read(&archive).expect("archive"))));

    let before = bare.machine.picture("/");
    let from = ["install", "--from", made];
    let pinned = [&from[..], &["--index-sha256", &index]].concat();
    let checksums = bare.machine.run(&from);
    assert_ne!(checksums.code, Some(0), "{}", checksums.said());
    bare.machine.run(&pinned).expect(2).says(&["in an image none runs", "without --image-archive"]);
    // Cut short in its place: it is looked at before anything else.
    let there = Path::new(made).join(format!("images/pause-{}.tar", arch()));
    let whole = std::fs::read(&there).expect("read");
    std::fs::write(&there, &whole[..2000]).expect("write");
    bare.machine.run(&pinned).expect(11).says(&["images/pause-", "2000 bytes"]);
    assert!(bare.machine.picture("/") == before, "a refusal changed something");
}

#[test]
fn files_come_out_of_the_store_where_a_bundle_was_copied_to() {
    let bare = Bare::new();
    let folder = bare._world.store_path("install");
    finish(Command::new("cp").arg("-r").arg(&bare.bundle).arg(&folder)).expect(0);
    let mut checksums = String::new();
    for (component, version, file, _) in released(VERSION) {
        let body = std::fs::read(folder.join("files").join(component).join(&version).join(arch()).join(&file));
        let sha256 = digest(&body.expect("read"));
        checksums += &format!("    {component}: {{ \"{version}\": {{ {}: {sha256} }} }}\n", arch());
    }
    let versions =
        format!("kubernetes: {VERSION}, containerd: 2.1.901, runc: 1.3.901, cni_plugins: 1.7.901, crictl: 1.36.901");
    bare.machine
        .configure(&format!("install:\n  from_store: true\n  versions: {{ {versions} }}\n  checksums:\n{checksums}"));
    bare.machine.run(&["install"]).expect(0).says(&["content sha256:"]);
    let manifest = bare.manifest();
    let source = manifest["components"][0]["from"]["source"].as_str().expect("a source");
    assert!(source.contains("/store/install/files/"), "{source}");
}

#[test]
fn mistakes_of_the_configuration_have_their_place() {
    let world = World::new();
    let machine = world.bare_machine("w1", "install: { versions: { kubernetes: v1.36 }, bundel: /srv/b.tar }\n");
    let said = machine.run(&["install"]).expect(10);
    let said = said.says(&["config.yaml:1:36: `install.versions.kubernetes`", "did you mean \"bundle\"?"]);
    assert!(!said.said().contains("`role`"), "a machine that is baked has none: {}", said.said());
    assert!(!machine.has(MANIFEST) && !machine.has("/usr/local"));
    machine.write("/etc/kubestrap/config.yaml", "install: { bundle: /nonexistent.tar }\n");
    machine.run(&["install"]).says(&["/nonexistent.tar"]);
    let bare = Bare::new();
    bare.machine.write("/etc/fstab", "/swapfile none swap sw 0 0\n");
    bare.install(&[]).expect(10).says(&["there is swap", "swap: off"]);
    bare.machine.configure("install: { host: { swap: off } }\n");
    bare.install(&[]).expect(0);
    assert_eq!(bare.machine.read("/etc/fstab"), "# kubestrap: no swap: /swapfile none swap sw 0 0\n");
}

#[test]
fn the_machine_itself_needs_root() {
    if std::fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data)).ok() != Some(0) {
        finish(Command::new(KUBESTRAP).arg("install")).expect(14).says(&["runs as user", "sudo"]);
        return;
    }
    // A place that everybody may enter: the folders above the program may be root's alone.
    let folder = tempfile::tempdir().expect("folder");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let program = folder.path().join("kubestrap");
    if std::fs::hard_link(KUBESTRAP, &program).is_err() {
        std::fs::copy(KUBESTRAP, &program).expect("copy");
    }
    let said = finish(Command::new(&program).arg("install").current_dir("/").uid(65_534).gid(65_534)).expect(14);
    said.says(&["runs as user 65534", "run it as root"]);
}
