//! `kernel-modules` and `sysctls`: what pods' traffic needs of the kernel, at boot and now.

use super::{Item, Job, State, Step, Text, files};
use crate::host::Host;
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::collections::BTreeMap;
use std::time::Duration;

const MODULES_FILE: &str = "/etc/modules-load.d/kubestrap.conf";
const SYSCTLS_FILE: &str = "/etc/sysctl.d/90-kubestrap.conf";
/// containerd's snapshotter; iptables' view of bridged traffic.
const MODULES: &[&str] = &["overlay", "br_netfilter"];
/// Kubernetes documentation, "Container Runtimes"; kubeadm's preflight asks for the first.
const SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
];
const LOAD: Duration = Duration::from_secs(60);
const HEAD: &str = "# Written by `kubestrap install`.\n";

/// Kernel modules.
pub struct Modules;

fn modules<'a>(job: &'a Job<'_>) -> Vec<&'a str> {
    let more = job.settings.host.modules.iter().map(String::as_str);
    let mut all: Vec<&str> = MODULES.to_vec();
    all.extend(more.filter(|name| !MODULES.contains(name)));
    all
}

pub(super) fn modules_text(job: &Job<'_>) -> Text {
    Text::new(MODULES_FILE, format!("{HEAD}{}\n", modules(job).join("\n")))
}

#[async_trait(?Send)]
impl Step for Modules {
    fn name(&self) -> &'static str {
        "kernel-modules"
    }

    fn describe(&self) -> &'static str {
        "modules that are loaded at boot and now"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let mut items = files::check(job, &[modules_text(job)])?;
        if job.host.is_live() {
            items.extend(modules(job).into_iter().map(|name| module(&job.host, name)));
        }
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        write(job, &modules_text(job))?;
        if job.host.is_live() {
            for name in modules(job).into_iter().filter(|name| module(&job.host, name).state == State::Wanted) {
                job.host.run(&["modprobe", name], LOAD).await?.well(&format!("load the kernel module {name}"))?;
            }
        }
        Ok(())
    }
}

fn write(job: &Job<'_>, text: &Text) -> Outcome<()> {
    if files::one(job, text, job.replace)?.state == State::Wanted { files::write(job, text) } else { Ok(()) }
}

/// One module of the running kernel.
fn module(host: &Host, name: &str) -> Item {
    let read = |path: &str| host.read(path).ok().flatten().unwrap_or_default();
    let followed = |path: &str| host.followed(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let folder = format!("/lib/modules/{release}");
    // A module that was built in without parameters has no folder there; this one has settings.
    let settings = name == "br_netfilter" && followed("/proc/sys/net/bridge").exists();
    judge_module(
        name,
        settings || followed(&format!("/sys/module/{}", name.replace('-', "_"))).exists(),
        &read("/proc/filesystems"),
        &read(&format!("{folder}/modules.builtin")),
        followed(&folder).is_dir().then_some(folder.as_str()),
    )
}

/// Whether the module is there: loaded, as a file system, or built in. Without a folder of modules nothing can be loaded.
fn judge_module(name: &str, loaded: bool, filesystems: &str, builtin: &str, folder: Option<&str>) -> Item {
    let what = format!("module {name}");
    let file = format!("/{}.ko", name.replace('-', "_"));
    let is_filesystem = filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    if loaded || is_filesystem || builtin.lines().any(|line| line.replace('-', "_").ends_with(&file)) {
        return Item::done(what, "loaded");
    }
    match folder {
        Some(_) => Item::wanted(what, "it is not loaded"),
        None => Item::note(
            what,
            "it is not loaded, and cannot be: there are no modules for the running kernel here (a container?); the \
             machine whose kernel it is must load it",
        ),
    }
}

/// Settings of the kernel.
pub struct Sysctls;

fn sysctls(job: &Job<'_>) -> BTreeMap<String, String> {
    let own = SYSCTLS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    own.chain(job.settings.host.sysctls.clone()).collect()
}

pub(super) fn sysctls_text(job: &Job<'_>) -> Text {
    let lines: Vec<String> = sysctls(job).iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    Text::new(SYSCTLS_FILE, format!("{HEAD}{}", lines.concat()))
}

#[async_trait(?Send)]
impl Step for Sysctls {
    fn name(&self) -> &'static str {
        "sysctls"
    }

    fn describe(&self) -> &'static str {
        "forwarding and bridge filtering, at boot and now"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let mut items = files::check(job, &[sysctls_text(job)])?;
        if job.host.is_live() {
            items.extend(sysctls(job).iter().map(|(name, value)| sysctl(&job.host, name, value)));
        }
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        write(job, &sysctls_text(job))?;
        if !job.host.is_live() {
            return Ok(());
        }
        let is_wanted = |(name, value): &(&String, &String)| sysctl(&job.host, name, value).state == State::Wanted;
        for (name, value) in sysctls(job).iter().filter(is_wanted) {
            job.host.set(&place(name), value).map_err(|error| {
                let failure = Failure::new(Cause::FileAccess, format!("set {name} to {value}"), error.to_string());
                failure.advise("run as root; in a container, set it on the machine whose kernel it is")
            })?;
        }
        Ok(())
    }
}

/// Dots separate names, unless there are slashes (sysctl(8)).
fn place(name: &str) -> String {
    let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    format!("/proc/sys/{name}")
}

fn sysctl(host: &Host, name: &str, value: &str) -> Item {
    judge_sysctl(name, value, host.read(&place(name)).ok().flatten().as_deref())
}

fn judge_sysctl(name: &str, value: &str, is: Option<&str>) -> Item {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match is {
        Some(is) if words(is) == words(value) => Item::done(name, format!("is {value}")),
        Some(is) => Item::wanted(name, format!("is {} and should be {value}", is.trim())),
        None => Item::note(name, "the running kernel has no such setting: its module is not loaded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_counts_however_it_came_into_the_kernel() {
        let state =
            |loaded, filesystems, builtin, folder| judge_module("overlay", loaded, filesystems, builtin, folder).state;
        assert_eq!(state(true, "", "", None), State::Done);
        assert_eq!(state(false, "nodev\ttmpfs\nnodev\toverlay\n", "", None), State::Done);
        assert_eq!(state(false, "", "kernel/fs/overlayfs/overlay.ko\n", Some("/lib")), State::Done);
        assert_eq!(state(false, "nodev\toverlayfs2\n", "kernel/x-overlay.kox\n", Some("/lib")), State::Wanted);
        assert_eq!(state(false, "", "", None), State::Note);
    }

    #[test]
    fn a_sysctl_is_compared_by_its_words() {
        assert_eq!(judge_sysctl("a.b", "1024 65000", Some("1024\t65000\n")).state, State::Done);
        assert_eq!(judge_sysctl("a.b", "1", Some("0\n")).state, State::Wanted);
        assert_eq!(judge_sysctl("a.b", "1", None).state, State::Note);
        assert_eq!(place("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(place("net/ipv4/conf/eth0.1/forwarding"), "/proc/sys/net/ipv4/conf/eth0.1/forwarding");
    }
}
