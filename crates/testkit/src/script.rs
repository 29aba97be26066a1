//! How a stand-in is told to misbehave: `<rootfs>/etc/kubestrap-standin.yaml`. A file and not the environment, so that
//! it is seen by a kubeadm that a systemd unit or a detached job starts.

use crate::files;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Where the script is, below the root.
pub const SCRIPT: &str = "/etc/kubestrap-standin.yaml";
/// What the stand-in remembers between its runs, below the root: fault counters and a log of its runs. It is outside
/// of what `kubeadm reset` removes.
pub const MEMORY: &str = "/var/lib/kubestrap-standin";

/// The whole script; every key has a default and unknown ones are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// What `kubeadm version` says, and the control plane's version when the documents name none.
    pub kubeadm_version: String,
    /// What `kubelet --version` says.
    pub kubelet_version: String,
    /// How long an unhindered `init` takes, in seconds.
    pub init_seconds: f64,
    /// How long an unhindered `join` takes apart from waiting, in seconds.
    pub join_seconds: f64,
    /// How often a join looks for the signature, in seconds (kubeadm `DiscoveryRetryInterval`: 5).
    pub poll_seconds: f64,
    /// Multiplies the timeouts of the documents and their defaults.
    pub timeout_scale: f64,
    /// Exit code of failed preflight checks: 1 in kubeadm 1.36 (`util/errors`), 2 in older ones.
    pub preflight_exit_code: u8,
    /// Whether init and join ask that the kubelet is not newer than the control plane, as preflight does.
    pub check_kubelet_version: bool,
    /// Faults of kubeadm.
    pub faults: Vec<Fault>,
    /// The API server.
    pub api: ApiScript,
    /// etcd.
    pub etcd: EtcdScript,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            kubeadm_version: "v1.36.1".to_owned(),
            kubelet_version: "v1.36.1".to_owned(),
            init_seconds: 0.3,
            join_seconds: 0.1,
            poll_seconds: 0.2,
            timeout_scale: 1.0,
            preflight_exit_code: 1,
            check_kubelet_version: true,
            faults: Vec::new(),
            api: ApiScript::default(),
            etcd: EtcdScript::default(),
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The phase fails with an error and exit code 1.
    Fail,
    /// kubeadm never returns.
    Hang,
    /// kubeadm is killed by SIGKILL.
    Die,
    /// The phase takes longer.
    Slow,
}

/// When, relative to a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// Before its effects.
    #[default]
    Before,
    /// After its effects.
    After,
}

/// One fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `init`, `join` or `reset`.
    pub command: String,
    /// A phase (`certs`) or a part of one (`certs/ca`), as printed in the run log.
    pub phase: String,
    /// What happens.
    pub action: Action,
    /// When.
    #[serde(default)]
    pub at: Moment,
    /// How many times; for ever when absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long, for `slow`.
    #[serde(default)]
    pub seconds: f64,
}

/// The API server's part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiScript {
    /// How long after the start its controllers (signer, cleaner, nodes) begin, in seconds; some 7 s in reality.
    pub controllers_after: f64,
    /// How long a token waits for its signature, in seconds.
    pub signer_delay: f64,
    /// How long a CustomResourceDefinition waits until its resource is served, in seconds.
    pub crd_delay: f64,
    /// How long a node whose kubelet is gone stays Ready, in seconds (kube-controller-manager: 40).
    pub node_grace: f64,
    /// Whether nodes get Ready: `cni` when a DaemonSet other than kube-proxy exists, `always`, `never`.
    pub nodes_ready: NodesReady,
    /// Faults.
    pub faults: Vec<ApiFault>,
}

impl Default for ApiScript {
    fn default() -> Self {
        ApiScript {
            controllers_after: 0.0,
            signer_delay: 0.2,
            crd_delay: 0.2,
            node_grace: 2.0,
            nodes_ready: NodesReady::Cni,
            faults: Vec::new(),
        }
    }
}

/// etcd's part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdScript {
    /// How long a member takes to start, in seconds.
    pub start_seconds: f64,
    /// How long a member must run to count as connected, in seconds (etcd `HealthInterval`: 5).
    pub health_seconds: f64,
    /// How long a learner must run to be in sync, in seconds.
    pub sync_seconds: f64,
    /// How long a request waits for a quorum, in seconds (etcd `ReqTimeout`: 7).
    pub timeout_seconds: f64,
    /// What its status tells of alarms, such as `memberID:1 alarm:NOSPACE `.
    pub alarms: Vec<String>,
    /// Faults; the method is always POST.
    pub faults: Vec<ApiFault>,
}

impl Default for EtcdScript {
    fn default() -> Self {
        EtcdScript {
            start_seconds: 0.0,
            health_seconds: 0.1,
            sync_seconds: 0.05,
            timeout_seconds: 0.3,
            alarms: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// When nodes are Ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodesReady {
    /// When a DaemonSet other than kube-proxy exists: something that looks like a CNI.
    Cni,
    /// As soon as they are registered.
    Always,
    /// Never.
    Never,
}

/// One fault of the API server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiFault {
    /// The method; any when absent.
    #[serde(default)]
    pub method: Option<String>,
    /// What the path contains.
    pub path: String,
    /// The status it is answered with; 0 closes the connection after the request took effect (a lost answer).
    pub status: u16,
    /// How many times; for ever when absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long the answer is delayed, in seconds.
    #[serde(default)]
    pub seconds: f64,
}

impl Script {
    /// Reads the script of a root; the defaults when there is none.
    ///
    /// # Errors
    /// When it can not be read or has unknown keys.
    pub fn load(root: &Path) -> io::Result<Self> {
        let path = files::under(root, SCRIPT);
        match files::read_text(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Script::default()),
            Err(error) => Err(error),
            Ok(text) => serde_saphyr::from_str(&text).map_err(|e| io::Error::other(format!("{}: {e}", path.display()))),
        }
    }

    /// Uses up one of the faults of this place; `None` when there is none left. How often each was used is kept in
    /// the root, for every kubeadm is a new process.
    ///
    /// # Errors
    /// When the counters can not be kept.
    pub fn take_fault(&self, root: &Path, command: &str, phase: &str, at: Moment) -> io::Result<Option<Fault>> {
        let path = files::under(root, MEMORY).join("faults.json");
        let mut used: BTreeMap<String, u32> =
            files::read_text(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        for (index, fault) in self.faults.iter().enumerate() {
            if (fault.command.as_str(), fault.phase.as_str(), fault.at) != (command, phase, at) {
                continue;
            }
            // The place is part of the key: a script that is replaced begins to count anew.
            let count = used.entry(format!("{index} {command} {phase} {:?}", fault.action)).or_default();
            if fault.times.is_none_or(|times| *count < times) {
                *count += 1;
                files::write(&path, serde_json::to_string(&used)?.as_bytes(), 0o600)?;
                return Ok(Some(fault.clone()));
            }
        }
        Ok(None)
    }
}

/// Seconds of a script as a duration; negative and absurd ones are zero.
pub fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}
