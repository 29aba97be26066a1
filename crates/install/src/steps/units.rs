//! `units`: the services of containerd and the kubelet as their projects ship them, and that they start at boot.
//!
//! They go to /usr/local/lib/systemd/system: before a distribution's own in /usr/lib, and behind what a person has in
//! /etc. They are enabled by the links that `systemctl enable` makes, in an image too.

use super::{Item, Job, Runtime, State, Step, Text, files};
use crate::host::Seen;
use async_trait::async_trait;
use kubestrap_core::model::cause::Outcome;

/// Where our units are.
const FOLDER: &str = "/usr/local/lib/systemd/system";
/// Where systemd looks for units, in its order, as far as files of others are there.
const OTHERS: &[&str] = &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// What both units are installed into.
pub(super) const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// kubernetes/release, `cmd/krel/templates/latest/kubelet/kubelet.service`, with our path.
const KUBELET: &str = "\
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/local/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
";

/// kubernetes/release, `cmd/krel/templates/latest/kubeadm/10-kubeadm.conf`, with our path. The file for overrides is
/// /etc/default/kubelet in its packages for Debian, and /etc/sysconfig/kubelet in those for others.
const KUBEADM: &str = "\
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"
Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"
# kubeadm generates this file, with KUBELET_KUBEADM_ARGS in it.
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# For KUBELET_EXTRA_ARGS, as a last resort: node.labels, node.taints and kubeadm.KubeletConfiguration come first.
EnvironmentFile=-/etc/default/kubelet
EnvironmentFile=-/etc/sysconfig/kubelet
ExecStart=
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
";

/// containerd, `containerd.service`.
const CONTAINERD: &str = "\
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target local-fs.target dbus.service

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
";

/// Writes the units, and the links that enable them.
pub struct Units;

#[async_trait(?Send)]
impl Step for Units {
    fn name(&self) -> &'static str {
        "units"
    }

    fn describe(&self) -> &'static str {
        "the services kubelet and containerd, and that they start at boot"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let mut items = files::check(job, &texts(job))?;
        for unit in ["containerd.service", "kubelet.service"] {
            items.push(enabled(job, unit)?);
            items.extend(shadowed(job, unit)?);
        }
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        for text in texts(job) {
            if files::one(job, &text, job.replace)?.state == State::Wanted {
                files::write(job, &text)?;
            }
        }
        for unit in ["containerd.service", "kubelet.service"] {
            if enabled(job, unit)?.state == State::Wanted {
                job.host.link(&file_of(job, unit)?, &format!("{WANTS}/{unit}"))?;
            }
        }
        Ok(())
    }
}

/// The files of this step.
pub(super) fn texts(job: &Job<'_>) -> Vec<Text> {
    let mut texts = vec![
        Text::new(&format!("{FOLDER}/kubelet.service"), KUBELET.to_owned()),
        Text::new(&format!("{FOLDER}/kubelet.service.d/10-kubeadm.conf"), KUBEADM.to_owned()),
    ];
    if job.runtime == Runtime::Ours {
        texts.push(Text::new(&format!("{FOLDER}/containerd.service"), CONTAINERD.to_owned()));
    }
    texts
}

/// The file that systemd takes for the unit; ours when there is no other.
fn file_of(job: &Job<'_>, unit: &str) -> Outcome<String> {
    let ours = format!("{FOLDER}/{unit}");
    let folders = std::iter::once(OTHERS[0]).chain([FOLDER]).chain(OTHERS[1..].iter().copied());
    for path in folders.map(|folder| format!("{folder}/{unit}")) {
        if job.host.exists(&path)? {
            return Ok(path);
        }
    }
    Ok(ours)
}

fn enabled(job: &Job<'_>, unit: &str) -> Outcome<Item> {
    let what = format!("{unit} at boot");
    let masked = format!("{}/{unit}", OTHERS[0]);
    if let Seen::Link(target) = job.host.look(&masked)?
        && target.as_os_str() == "/dev/null"
    {
        return Ok(Item::kept(what, format!("somebody masked it: `systemctl unmask {unit}` if it is to start")));
    }
    Ok(match job.host.look(&format!("{WANTS}/{unit}"))? {
        Seen::Absent => Item::wanted(what, "it does not start at boot"),
        _ => Item::done(what, "enabled"),
    })
}

/// A unit in /etc wins over ours.
fn shadowed(job: &Job<'_>, unit: &str) -> Outcome<Option<Item>> {
    let path = format!("{}/{unit}", OTHERS[0]);
    let is_ours = texts(job).iter().any(|text| text.path.ends_with(&format!("/{unit}")));
    let is_file = matches!(job.host.look(&path)?, Seen::File { .. });
    Ok((is_ours && is_file).then(|| Item::kept(path, format!("this unit wins over the one in {FOLDER}"))))
}
