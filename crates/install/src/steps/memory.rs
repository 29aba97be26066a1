//! `control-groups` and `swap`: what the kubelet refuses to start with.

use super::{Item, Job, State, Step};
use crate::catalog::Component;
use crate::host::Host;
use async_trait::async_trait;
use kubestrap_core::config::settings::Swap as Wish;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::version::KubeVersion;
use std::time::Duration;

/// The first minor of Kubernetes whose kubelet refuses cgroup v1 by default (`failCgroupV1`, Kubernetes 1.35).
const REFUSES_CGROUP_V1: u32 = 35;
pub(super) const FSTAB: &str = "/etc/fstab";
/// Moving what was swapped out back into memory.
const SWAPOFF: Duration = Duration::from_secs(600);
/// Begins a line of fstab that was turned into a comment.
const COMMENT: &str = "# kubestrap: no swap: ";

/// Whether the kernel has one hierarchy of control groups.
pub struct ControlGroups;

#[async_trait(?Send)]
impl Step for ControlGroups {
    fn name(&self) -> &'static str {
        "control-groups"
    }

    fn describe(&self) -> &'static str {
        "cgroup v2, without which a current kubelet does not start"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        if !job.host.is_live() {
            return Ok(vec![Item::note("cgroup v2", "known when the image boots")]);
        }
        let is_v2 = job.host.exists("/sys/fs/cgroup/cgroup.controllers")?;
        let kubernetes = job.versions.of(Component::Kubelet);
        judge_cgroups(is_v2, kubernetes, job.settings.kubelet.fails_on_cgroup_v1).map(|item| vec![item])
    }

    /// Never wanted: it is the kernel's command line that decides.
    async fn apply(&self, _job: &Job<'_>) -> Outcome<()> {
        Ok(())
    }
}

fn judge_cgroups(is_v2: bool, kubernetes: &str, fails: bool) -> Outcome<Item> {
    const WHAT: &str = "cgroup v2";
    let minor = KubeVersion::parse(kubernetes).map_or(u32::MAX, |version| version.minor);
    if is_v2 {
        return Ok(Item::done(WHAT, "the machine uses it"));
    }
    if minor < REFUSES_CGROUP_V1 {
        let why = "the machine uses cgroup v1, which is in maintenance: a kubelet of 1.35 or newer refuses it";
        return Ok(Item::note(WHAT, why));
    }
    if !fails {
        return Ok(Item::note(
            WHAT,
            "the machine uses cgroup v1, and `failCgroupV1: false` tells the kubelet to bear it",
        ));
    }
    let why = format!("it uses cgroup v1, and the kubelet of Kubernetes {kubernetes} refuses to start with that");
    let advice = "boot with systemd.unified_cgroup_hierarchy=1 (the default of every current distribution), or say \
                  `kubeadm: {KubeletConfiguration: {failCgroupV1: false}}`";
    Err(Failure::new(Cause::Configuration, "use this machine's control groups", why).advise(advice))
}

/// Swap, which the kubelet refuses unless it is told otherwise.
pub struct Swap;

#[async_trait(?Send)]
impl Step for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn describe(&self) -> &'static str {
        "no swap, which the kubelet does not start with unless it is told to"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let fstab = job.host.read(FSTAB)?.unwrap_or_default();
        let active = if job.host.is_live() { active_swap(&job.host) } else { Vec::new() };
        let wish = job.settings.host.swap.or((!job.settings.kubelet.fails_on_swap).then_some(Wish::Keep));
        judge_swap(wish, &active, without_swap(&fstab).is_some(), job.settings.kubelet.fails_on_swap)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        if let Some(text) = job.host.read(FSTAB)?.as_deref().and_then(without_swap) {
            let mode = match job.host.look(FSTAB)? {
                crate::host::Seen::File { mode, .. } => mode,
                _ => 0o644,
            };
            job.host.write(FSTAB, &text, mode)?;
        }
        if job.host.is_live() && !active_swap(&job.host).is_empty() {
            job.host.run(&["swapoff", "--all"], SWAPOFF).await?.well("turn swap off")?;
        }
        Ok(())
    }
}

/// Devices and files that are swapped to now.
fn active_swap(host: &Host) -> Vec<String> {
    let text = host.read("/proc/swaps").ok().flatten().unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// The text of fstab with its lines of swap as comments; `None` when it has none.
fn without_swap(fstab: &str) -> Option<String> {
    let is_swap = |line: &str| {
        let mut words = line.split_whitespace();
        !line.trim_start().starts_with('#') && words.nth(2) == Some("swap")
    };
    if !fstab.lines().any(is_swap) {
        return None;
    }
    let line = |line: &str| if is_swap(line) { format!("{COMMENT}{line}\n") } else { format!("{line}\n") };
    Some(fstab.lines().map(line).collect())
}

fn judge_swap(wish: Option<Wish>, active: &[String], in_fstab: bool, fails: bool) -> Outcome<Vec<Item>> {
    const WHAT: &str = "swap";
    let mut found: Vec<String> = active.iter().map(|device| format!("{device} is in use")).collect();
    found.extend(in_fstab.then(|| format!("{FSTAB} turns it on at boot")));
    if found.is_empty() {
        return Ok(vec![Item::done(WHAT, "there is none")]);
    }
    let found = found.join(", ");
    match wish {
        Some(Wish::Off) => Ok(vec![Item::new(WHAT, State::Wanted, format!("{found}; it is turned off"))]),
        Some(Wish::Keep) if fails => {
            let why = "it stays as `install.host.swap` says; the kubelet needs `failSwapOn: false` for that";
            Ok(vec![Item::note(WHAT, format!("{found}; {why}"))])
        }
        Some(Wish::Keep) => Ok(vec![Item::note(WHAT, format!("{found}; it stays"))]),
        None => {
            let failure =
                Failure::new(Cause::Configuration, "use this machine's memory", format!("there is swap: {found}"));
            Err(failure.advise(
                "the kubelet does not start with it. Say `install: {host: {swap: off}}` and it is turned off, now and in \
                 /etc/fstab; or `swap: keep` together with `kubeadm: {KubeletConfiguration: {failSwapOn: false}}`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_control_groups_are_refused_when_the_kubelet_would_refuse_them() {
        let state = |is_v2, kubernetes, fails| judge_cgroups(is_v2, kubernetes, fails).map(|item| item.state);
        assert_eq!(state(true, "1.36.1", true), Ok(State::Done));
        assert_eq!(state(false, "1.34.1", true), Ok(State::Note));
        assert_eq!(state(false, "1.36.1", false), Ok(State::Note));
        let failure = state(false, "1.36.1", true).expect_err("refused");
        assert!(failure.fix().contains("failCgroupV1: false"), "{failure}");
    }

    #[test]
    fn swap_is_refused_unless_somebody_said_what_becomes_of_it() {
        let active = ["/dev/vdb".to_owned()];
        let state = |wish, active: &[String], in_fstab| {
            judge_swap(wish, active, in_fstab, true).map(|items| items[0].state.clone())
        };
        assert_eq!(state(None, &[], false), Ok(State::Done));
        assert_eq!(state(Some(Wish::Off), &[], false), Ok(State::Done));
        assert_eq!(state(Some(Wish::Off), &active, false), Ok(State::Wanted));
        assert_eq!(state(Some(Wish::Off), &[], true), Ok(State::Wanted));
        assert_eq!(state(Some(Wish::Keep), &active, true), Ok(State::Note));
        for (active, in_fstab, words) in [(&active[..], false, "/dev/vdb is in use"), (&[], true, "/etc/fstab")] {
            let failure = state(None, active, in_fstab).expect_err("refused");
            assert!(failure.detail.contains(words) && failure.fix().contains("swap: off"), "{failure}");
        }
    }

    #[test]
    fn only_lines_of_swap_become_comments() {
        let fstab = "# /dev/x none swap sw 0 0\n/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n";
        let now = without_swap(fstab).expect("changed");
        let wanted = "# /dev/x none swap sw 0 0\n/dev/vda1 / ext4 defaults 0 1\n\
                      # kubestrap: no swap: /swapfile none swap sw 0 0\n";
        assert_eq!(now, wanted);
        assert_eq!(without_swap(&now), None);
    }
}
