//! From nothing: a machine with nothing but Debian, a bundle, and the two commands.

use super::support::{BUCKET, await_ready, expect, master, one_cluster};
use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::{Boot, Machine};
use crate::{Result, attempted, fail};
use serde_json::Value;
use std::time::Instant;

/// See the module.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "install",
    about: "nothing but Debian: `kubestrap install` from a bundle with images, `kubestrap run`; a second install changes nothing",
    needs: Needs::Kubernetes,
    shares: false,
    run: from_nothing,
}];

/// Makes `/root/released` of what the machine has, as `install --download-only` would have made it of releases: the same names,
/// archives and index. Its versions are none that the shipped lock knows. Debian has no crictl: a script that says so is in its place.
const MAKE_BUNDLE: &str = r#"
set -eu
arch=$(dpkg --print-architecture)
kubernetes=$(kubeadm version -o short); kubernetes=${kubernetes#v}-lab
containerd=$(containerd --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n1)-lab
runc=$(runc --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n1)-lab
mkdir -p /root/made/bin /root/released
cp /usr/bin/containerd /usr/bin/containerd-shim-runc-v2 /usr/bin/ctr /root/made/bin/
printf '#!/bin/sh\necho "this lab has no crictl" >&2\nexit 1\n' >/root/made/crictl
chmod 755 /root/made/crictl
put() { mkdir -p "/root/released/files/$1/$2/$arch"; printf '/root/released/files/%s/%s/%s/%s' "$1" "$2" "$arch" "$3"; }
tar -I 'gzip -1' -cf "$(put containerd "$containerd" "containerd-static-$containerd-linux-$arch.tar.gz")" -C /root/made bin
cp /usr/sbin/runc "$(put runc "$runc" "runc.$arch")"
tar -I 'gzip -1' -cf "$(put cni-plugins 1.0.0 "cni-plugins-linux-$arch-v1.0.0.tgz")" -C /usr/lib/cni .
tar -I 'gzip -1' -cf "$(put crictl 1.0.0 "crictl-v1.0.0-linux-$arch.tar.gz")" -C /root/made crictl
for name in kubeadm kubelet kubectl; do cp "/usr/bin/$name" "$(put "$name" "$kubernetes" "$name")"; done
cd /root/released
find files -type f | sort | while IFS=/ read -r _ component version arch file; do
    path="files/$component/$version/$arch/$file"
    jq -n --arg component "$component" --arg version "$version" --arg file "$file" \
        --arg sha256 "$(sha256sum "$path" | cut -d' ' -f1)" --argjson bytes "$(stat -c %s "$path")" \
        '{component: $component, version: $version, file: $file, sha256: $sha256, bytes: $bytes}'
done | jq -s --arg arch "$arch" '{schema: 1, kubestrap: "0.1.0", arch: $arch, files: ., images: []}' >index.json
rm -r /root/made
"#;

/// Takes everything away that a node is made of. The lab binds kubeadm, kubelet and kubectl over files of the tree.
const MAKE_BARE: &str = r#"
set -eu
systemctl disable --now kubelet containerd 2>/dev/null
rm -rf /var/lib/containerd/*
for name in kubeadm kubelet kubectl; do umount "/usr/bin/$name"; rm "/usr/bin/$name"; done
rm -rf /usr/bin/containerd* /usr/bin/ctr /usr/sbin/runc /usr/lib/cni /opt/cni /etc/containerd /etc/crictl.yaml /etc/default/kubelet
rm -rf /usr/lib/systemd/system/containerd.service /lib/systemd/system/containerd.service
rm -rf /usr/lib/systemd/system/kubelet.service /usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf
systemctl daemon-reload
for name in containerd ctr runc kubeadm kubelet kubectl crictl; do
    if command -v "$name"; then echo "$name is still there"; exit 1; fi
done
"#;

/// What this kernel does not allow: nobody's OOM score may be lowered.
const LIMITS: &[(&str, &str)] = &[
    (
        "/etc/containerd/conf.d/50-lab.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n",
    ),
    ("/etc/systemd/system/containerd.service.d/50-lab.conf", "[Service]\nOOMScoreAdjust=0\n"),
];

const INSTALL: &str =
    "kubestrap install --from /root/bundle --index-sha256 $(sha256sum /root/bundle/index.json | cut -d' ' -f1)";

/// The bundle as a user makes it, with the images of this Kubernetes.
const ADD_IMAGES: &str = "kubestrap install --download-only /root/bundle --from /root/released --index-sha256 \
                          $(sha256sum /root/released/index.json | cut -d' ' -f1) --image-archive /root/images/*.tar";

/// The same bundle with one byte of the last image's layer changed.
const MAKE_BAD: &str = "cp -al /root/bundle /root/bad && cp --remove-destination /root/bundle/images/pause.tar /root/bad/images/ && \
                        printf X | dd of=/root/bad/images/pause.tar bs=1 seek=100000 conv=notrunc status=none";

/// The kubelet's images, by name.
const IMAGES: &str = "ctr -n k8s.io images list -q";

fn from_nothing(lab: &mut Lab) -> Result<()> {
    lab.fabric().bucket(BUCKET)?;
    let machine = lab.machine(&master("bare", "install", "")?.boot(Boot::Plain))?;
    machine.power_on()?;
    machine.wait_booted()?;
    machine.shell(MAKE_BUNDLE)?;
    let archives = bring_archives(lab, &machine)?;
    lab.say(machine.shell(ADD_IMAGES)?.trim());
    machine.shell(MAKE_BARE)?;
    machine.shell(MAKE_BAD)?;
    for (path, text) in LIMITS {
        machine.write(path, text, 0o644)?;
    }
    lab.say("the machine has nothing but Debian, kubestrap and a bundle with images");
    let plan = machine.shell(&INSTALL.replacen("install", "plan install", 1))?;
    expect(plan.contains("wanted   programs"), &format!("the plan wants programs:\n{plan}"))?;
    expect(!machine.exists("/usr/local/bin/kubelet"), "the plan changed nothing")?;
    a_changed_archive_is_refused(&machine)?;
    let began = Instant::now();
    let said = machine.shell(INSTALL)?;
    lab.say(&format!("installed after {:.1} s\n{said}", began.elapsed().as_secs_f64()));
    for link in ["containerd.service", "kubelet.service"] {
        machine.shell(&format!("systemctl is-enabled {link}"))?;
    }
    machine.shell("systemctl is-active containerd && test -S /run/containerd/containerd.sock")?;
    images_are_there(&machine, archives)?;
    nothing_to_do(lab, &machine)?;

    machine.shell("systemctl start --no-block kubestrap")?;
    await_ready(lab, &machine, &machine)?;
    one_cluster(lab, "install", &machine, &[])?;
    let kubelet = machine.shell("readlink /proc/$(systemctl show --value -p MainPID kubelet)/exe")?;
    expect(kubelet.trim() == "/usr/local/bin/kubelet", &format!("the kubelet that runs is ours, not {kubelet}"))?;
    nothing_to_do(lab, &machine)?;
    content_is_as_baked(&machine)
}

/// The lab's image archives; how many there are.
fn bring_archives(lab: &Lab, machine: &Machine) -> Result<usize> {
    let Some(kubernetes) = lab.kubernetes() else { return fail("there is no Kubernetes folder") };
    let archives = crate::tree::images::archives(&kubernetes)?;
    for archive in &archives {
        let there = machine.place(&format!("/root/images/{}", archive.file_name().unwrap_or_default().display()))?;
        attempted(std::fs::create_dir_all(there.parent().unwrap_or(&there)), "make the images' folder")?;
        attempted(std::fs::copy(archive, &there), format!("copy {}", archive.display()))?;
    }
    Ok(archives.len())
}

/// The last of the archives is bad: it is named, and none of the others is imported.
fn a_changed_archive_is_refused(machine: &Machine) -> Result<()> {
    let bad = INSTALL.replacen("--from /root/bundle", "--from /root/bad", 1);
    let done = machine.exec(&["sh", "-c", &bad])?;
    let said = format!("{}{}", done.stdout, done.stderr);
    expect(
        done.code == Some(11) && said.contains("images/pause.tar has the SHA-256"),
        &format!("it is refused:\n{said}"),
    )?;
    let images = machine.shell(IMAGES)?;
    expect(images.is_empty(), &format!("nothing is imported:\n{images}"))
}

/// By containerd, and by the bake manifest.
fn images_are_there(machine: &Machine, archives: usize) -> Result<()> {
    let manifest = machine.shell("jq -r '.imported[].name' /usr/lib/kubestrap/manifest.json")?;
    let listed = machine.shell(IMAGES)?;
    let missing = manifest.lines().find(|name| !listed.lines().any(|image| image == *name));
    expect(
        manifest.lines().count() == archives && missing.is_none(),
        &format!("all images are there:\n{manifest}\n{listed}"),
    )?;
    let pinned = machine.shell("ctr -n k8s.io images list | grep -F io.cri-containerd.pinned=pinned")?;
    expect(pinned.contains("/pause:"), &format!("the sandbox image is pinned:\n{pinned}"))?;
    expect(!machine.exists("/var/cache/kubestrap/install"), "no copies of archives are left")
}

/// A second run, by its own words and by the files.
fn nothing_to_do(lab: &Lab, machine: &Machine) -> Result<()> {
    let pictures = "find /usr/local /opt /etc /usr/lib/kubestrap -xdev -type f -newer /root/bundle/index.json \
                    -printf '%p %T@ %m\\n' | grep -v /etc/kubernetes/ | sort; systemctl show -p ExecMainPID containerd";
    let before = machine.shell(pictures)?;
    let began = Instant::now();
    let said = machine.shell(INSTALL)?;
    expect(said.contains("Nothing was changed"), &format!("the second install changes nothing:\n{said}"))?;
    let after = machine.shell(pictures)?;
    expect(before == after, &format!("no file was changed:\n{before}\n{after}"))?;
    lab.say(&format!("install again: nothing was changed, after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

fn content_is_as_baked(machine: &Machine) -> Result<()> {
    let said = machine.shell("kubestrap drift --output json")?;
    let drift: Value = attempted(serde_json::from_str(&said), "read what drift says")?;
    expect(drift["verdict"] == "current", &format!("the content is as baked: {drift}"))?;
    let differences = drift["content"]["differences"].as_array().is_some_and(Vec::is_empty);
    expect(differences, &format!("there are no differences: {drift}"))
}
