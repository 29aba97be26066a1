//! Writes the shipped lock, `src/lock/known.yaml`, from kubespray's table of checksums:
//!
//! ```text
//! cargo run -p kubestrap-install --example known -- KUBESPRAY/roles/kubespray_defaults/vars/main/checksums.yml COMMIT \
//!     > crates/install/src/lock/known.yaml
//! ```
//!
//! The newest patches of the newest minors are taken; pre-releases are not.

use kubestrap_install::catalog::{Arch, Component};
use kubestrap_install::lock::check_sha256;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How many of the newest patches of each minor.
const PATCHES: usize = 5;

/// How many of the newest minors: four of Kubernetes, containerd down to 1.7, and of the others what is still mended.
fn minors(component: Component) -> usize {
    match component {
        Component::Containerd => 5,
        Component::Runc => 2,
        Component::CniPlugins => 3,
        Component::Crictl | Component::Kubeadm | Component::Kubelet | Component::Kubectl => 4,
    }
}

/// By architecture and version.
type Table = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Deserialize)]
struct Checksums {
    containerd_static_archive_checksums: Table,
    runc_checksums: Table,
    cni_binary_checksums: Table,
    crictl_checksums: Table,
    kubeadm_checksums: Table,
    kubelet_checksums: Table,
    kubectl_checksums: Table,
}

impl Checksums {
    fn of(&self, component: Component) -> &Table {
        match component {
            Component::Containerd => &self.containerd_static_archive_checksums,
            Component::Runc => &self.runc_checksums,
            Component::CniPlugins => &self.cni_binary_checksums,
            Component::Crictl => &self.crictl_checksums,
            Component::Kubeadm => &self.kubeadm_checksums,
            Component::Kubelet => &self.kubelet_checksums,
            Component::Kubectl => &self.kubectl_checksums,
        }
    }
}

/// Major, minor and patch of a release.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let numbers: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    numbers.ok()?.try_into().ok()
}

/// The versions to keep, newest first.
fn kept(table: &Table, most: usize) -> Vec<String> {
    let all = table.get(Arch::Amd64.label()).into_iter().flat_map(BTreeMap::keys);
    let mut versions: Vec<[u32; 3]> = all.filter_map(|version| numbers(version)).collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let mut minors: Vec<([u32; 2], usize)> = Vec::new();
    versions.retain(|[major, minor, _]| {
        if minors.last().is_none_or(|(last, _)| last != &[*major, *minor]) {
            minors.push(([*major, *minor], 0));
        }
        let count = minors.len();
        minors.last_mut().is_some_and(|(_, patches)| {
            *patches += 1;
            count <= most && *patches <= PATCHES
        })
    });
    versions.iter().map(|[major, minor, patch]| format!("{major}.{minor}.{patch}")).collect()
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, commit] = arguments.as_slice() else { return Err("usage: known CHECKSUMS.YML COMMIT".to_owned()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let checksums: Checksums = serde_saphyr::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    println!("# SHA-256 of released files, so that they can be verified without asking the place they came from.");
    println!(
        "# Facts from kubernetes-sigs/kubespray (Apache-2.0), roles/kubespray_defaults/vars/main/checksums.yml at commit"
    );
    println!("# {commit}, by examples/known.rs. The newest version of each component is the");
    println!("# default; containerd is the static archive.");
    for component in Component::ALL {
        let table = checksums.of(component);
        println!("{component}:");
        for version in kept(table, minors(component)) {
            println!("  \"{version}\":");
            for arch in Arch::ALL {
                let found = table.get(arch.label()).and_then(|versions| versions.get(&version));
                let sha256 = found.ok_or_else(|| format!("{component} {version} has no {arch}"))?;
                println!("    {arch}: {}", check_sha256(sha256)?);
            }
        }
    }
    Ok(())
}
