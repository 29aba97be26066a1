//! `services`: containerd runs, with the program and the configuration that are there now. The kubelet is not started:
//! kubeadm does that when it has written its configuration.

use super::{Item, Job, Runtime, State, Step, containerd, units};
use crate::host::{Seen, digest_of};
use async_trait::async_trait;
use kubestrap_core::model::cause::Outcome;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What containerd was last started with by us, since boot: `/run` is empty then.
pub(super) const STARTED_WITH: &str = "/run/kubestrap-install/containerd";
const ASK: Duration = Duration::from_secs(30);
/// containerd reads its data bases when it starts.
const START: Duration = Duration::from_secs(180);

/// Starts containerd.
pub struct Services;

#[async_trait(?Send)]
impl Step for Services {
    fn name(&self) -> &'static str {
        "services"
    }

    fn describe(&self) -> &'static str {
        "containerd runs with what is there now"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        if !job.host.is_live() {
            return Ok(vec![Item::note("containerd", "starts when the image boots")]);
        }
        if !job.host.exists("/run/systemd/system")? {
            let why = "systemd does not run here: start containerd in the way of this machine";
            return Ok(vec![Item::note("containerd", why)]);
        }
        let mut items = Vec::new();
        for unit in ["containerd.service", "kubelet.service"] {
            if property(job, unit, "NeedDaemonReload").await? == "yes" {
                items.push(Item::wanted(unit, "systemd has not read the unit that is there now"));
            }
        }
        items.push(running(job).await?);
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        // Also for units that systemd never heard of, and for what they want.
        job.host.run(&["systemctl", "daemon-reload"], ASK).await?.well("make systemd read its units")?;
        if running(job).await?.state != State::Wanted {
            return Ok(());
        }
        let with = inputs(job)?;
        // Killed between the start and its record, it must not count as started with what an older record says.
        job.host.remove(STARTED_WITH)?;
        job.host.run(&["systemctl", "restart", "containerd.service"], START).await?.well("start containerd")?;
        job.host.write(STARTED_WITH, &with, 0o644)
    }
}

async fn property(job: &Job<'_>, unit: &str, name: &str) -> Outcome<String> {
    let argv = ["systemctl", "show", "--timestamp=unix", "--value", "--property", name, unit];
    let said = job.host.run(&argv, ASK).await?.well(&format!("ask systemd for {unit}"))?;
    Ok(said.trim().to_owned())
}

/// Whether containerd runs, and was started after its files were written.
async fn running(job: &Job<'_>) -> Outcome<Item> {
    const WHAT: &str = "containerd";
    match property(job, "containerd.service", "ActiveState").await?.as_str() {
        "active" => {}
        state => return Ok(Item::wanted(WHAT, format!("its service is {state}"))),
    }
    let started = property(job, "containerd.service", "ExecMainStartTimestamp").await?;
    let started: i64 = started.trim_start_matches('@').parse().unwrap_or(0);
    let files = paths(job);
    let changed = files.iter().filter_map(|path| job.host.followed(path).ok()?.metadata().ok());
    let changed = changed.map(|data| data.ctime()).max().unwrap_or(0);
    let is_known = job.host.read(STARTED_WITH)?.is_some_and(|text| inputs(job).is_ok_and(|now| now == text));
    Ok(if changed < started || is_known {
        Item::done(WHAT, "runs")
    } else {
        Item::wanted(WHAT, "it was started before its files were written")
    })
}

/// What containerd reads when it starts.
fn paths(job: &Job<'_>) -> Vec<String> {
    let mut paths: Vec<String> = containerd::texts(job).into_iter().map(|text| text.path).collect();
    paths.retain(|path| path.starts_with("/etc/containerd/"));
    if job.runtime == Runtime::Ours {
        paths.extend(
            units::texts(job).into_iter().map(|text| text.path).filter(|path| path.ends_with("containerd.service")),
        );
        paths.push("/usr/local/bin/containerd".to_owned());
    }
    paths
}

/// The content of all that.
fn inputs(job: &Job<'_>) -> Outcome<String> {
    let mut text = String::new();
    for path in paths(job) {
        if let Seen::File { sha256, .. } = job.host.look_behind(&path)? {
            text += &format!("{path} {sha256}\n");
        }
    }
    Ok(digest_of(&text))
}
