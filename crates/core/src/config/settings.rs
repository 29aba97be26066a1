//! Validated settings: what the rest of core reads. Made only by [`crate::config`]'s validation.

mod drift;
mod install;

pub use drift::*;
pub use install::*;

use crate::ecr::host::Registry;
use crate::model::identity::{Identity, Role};
use crate::model::names::{CaHash, ClusterName, Endpoint};
use crate::model::version::KubeVersion;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the cluster's nodes meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// `s3://bucket/prefix`; the prefix is without slashes at its ends and may be empty.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix.
        prefix: String,
    },
    /// `file:///folder`.
    Folder(PathBuf),
}

/// Options of an S3 store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Settings {
    /// Base URL of an S3-compatible server.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; the default when there is an endpoint.
    pub path_style: bool,
    /// The bucket's region; found from the bucket when absent.
    pub region: Option<String>,
    /// SSE-KMS key id or ARN for every write.
    pub kms_key_id: Option<String>,
    /// Twelve digits; every request carries it when it is set.
    pub expected_bucket_owner: Option<String>,
}

/// How the machine learns who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentitySource {
    /// EC2 when DMI says so, the host otherwise.
    #[default]
    Auto,
    /// IMDSv2.
    Ec2,
    /// machine-id, host name, default route.
    Host,
}

/// Whether a cloud controller manager initialises nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloudProvider {
    /// None: the node is usable as soon as it is Ready.
    #[default]
    None,
    /// `--cloud-provider=external`: the node is tainted until a cloud controller manager has seen it.
    External,
}

/// A taint the node registers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, possibly empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What is said of the Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubernetesSettings {
    /// The control plane's version; kubeadm's own when absent.
    pub version: Option<KubeVersion>,
    /// `networking.podSubnet`.
    pub pod_subnet: Option<String>,
    /// `networking.serviceSubnet`.
    pub service_subnet: Option<String>,
    /// `networking.dnsDomain`.
    pub dns_domain: Option<String>,
    /// `imageRepository`.
    pub image_repository: Option<String>,
    /// More names and addresses in the API server's certificate.
    pub cert_sans: Vec<String>,
}

/// What is said of this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSettings {
    /// Node name; from the identity when absent.
    pub name: Option<String>,
    /// Address; from the identity when absent.
    pub address: Option<IpAddr>,
    /// Labels, checked against what a kubelet may set on itself.
    pub labels: BTreeMap<String, String>,
    /// Taints; `None` leaves kubeadm's default (the control-plane taint on masters).
    pub taints: Option<Vec<Taint>>,
    /// CRI socket; kubeadm's own detection when absent.
    pub cri_socket: Option<String>,
    /// Whether a cloud controller manager initialises it.
    pub cloud_provider: CloudProvider,
}

/// Patches (RFC 7386 JSON merge patches) for the kubeadm documents, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubeadmPatches {
    /// `InitConfiguration`.
    pub init: Map<String, Value>,
    /// `ClusterConfiguration`.
    pub cluster: Map<String, Value>,
    /// `JoinConfiguration`.
    pub join: Map<String, Value>,
    /// `KubeletConfiguration`.
    pub kubelet: Map<String, Value>,
    /// `KubeProxyConfiguration`.
    pub kube_proxy: Map<String, Value>,
}

/// What the cluster's private keys are sealed with before they go into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PkiSettings {
    /// A KMS key: id, alias or ARN.
    Kms(String),
    /// A file with 32 random bytes, base64; the same on every master.
    KeyFile(PathBuf),
    /// A file with a passphrase of at least 20 characters; the same on every master.
    PassphraseFile(PathBuf),
}

impl std::fmt::Display for PkiSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PkiSettings::Kms(key_id) => write!(f, "KMS key {key_id}"),
            PkiSettings::KeyFile(path) => write!(f, "the key file {}", path.display()),
            PkiSettings::PassphraseFile(path) => write!(f, "the passphrase in {}", path.display()),
        }
    }
}

/// Times and limits of joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSettings {
    /// How long a worker waits for a usable bundle (default 1 h).
    pub wait: Duration,
    /// Life of a bootstrap token (default 1 h, at least 10 min); refreshed at half of it.
    pub token_ttl: Duration,
    /// How long the API server may be unreachable during a join before the agent gives up (default 30 min).
    pub api_wait: Duration,
}

/// Credentials of ECR.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EcrSettings {
    /// What was said; see [`EcrSettings::is_on`].
    pub enabled: Option<bool>,
    /// Registries that the container runtime itself pulls from, beside the own one of an EC2 instance.
    pub registries: Vec<Registry>,
    /// Hosts, with their port when they have one, that are given the login of a registry.
    pub mirrors: BTreeMap<String, Registry>,
    /// Audience of service account tokens for the kubelet's plugin.
    pub audience: Option<String>,
    /// containerd's `config_path`; [`EcrSettings::certs_dir`] has the default.
    pub certs_dir: Option<PathBuf>,
}

/// Where containerd's documentation has its hosts.
const CERTS_DIR: &str = "/etc/containerd/certs.d";

impl EcrSettings {
    /// Whether this machine gets credentials: as it was said, else on EC2 and where a registry or a mirror is listed.
    pub fn is_on(&self, identity: &Identity) -> bool {
        self.enabled.unwrap_or_else(|| identity.ec2().is_some() || self.is_asked_for())
    }

    /// Whether somebody wrote that he wants them, so that what stands in the way is an error and not a remark.
    pub fn is_asked_for(&self) -> bool {
        self.enabled == Some(true) || !self.registries.is_empty() || !self.mirrors.is_empty() || self.audience.is_some()
    }

    /// The folder that holds a folder for every host.
    pub fn certs_dir(&self) -> &Path {
        self.certs_dir.as_deref().unwrap_or(Path::new(CERTS_DIR))
    }
}

/// Images that are pulled while the machine becomes a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageSettings {
    /// References with their registry, and with a tag or a digest.
    pub pull: Vec<String>,
    /// The sandbox image, which is pinned too.
    pub sandbox: Option<String>,
}

/// Where numbers go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// A `.prom` file for node_exporter's textfile collector.
    pub textfile: Option<PathBuf>,
    /// A local address that answers `GET /metrics`.
    pub listen: Option<SocketAddr>,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Cluster name.
    pub cluster: ClusterName,
    /// Master or worker.
    pub role: Role,
    /// The store.
    pub store: StoreLocation,
    /// Its options when it is S3.
    pub s3: S3Settings,
    /// Where the API server is reached; required on masters (a DNS name is best), taken from the bundle on workers.
    pub control_plane_endpoint: Option<Endpoint>,
    /// What seals the private keys of the cluster; without it there is one master.
    pub pki: Option<PkiSettings>,
    /// The CA a worker insists on.
    pub ca_pin: Option<CaHash>,
    /// How identity is found.
    pub identity: IdentitySource,
    /// IMDS base URL (`http://169.254.169.254` when absent).
    pub metadata_endpoint: Option<String>,
    /// EC2 base URL, for tests and private endpoints.
    pub ec2_endpoint: Option<String>,
    /// ECR base URL, for tests and private endpoints.
    pub ecr_endpoint: Option<String>,
    /// STS base URL, for tests and private endpoints.
    pub sts_endpoint: Option<String>,
    /// Systems Manager base URL, for tests and private endpoints.
    pub ssm_endpoint: Option<String>,
    /// KMS base URL, for tests and private endpoints.
    pub kms_endpoint: Option<String>,
    /// Auto Scaling base URL, for tests and private endpoints.
    pub autoscaling_endpoint: Option<String>,
    /// Credentials of ECR.
    pub ecr: EcrSettings,
    /// The cluster.
    pub kubernetes: KubernetesSettings,
    /// The node.
    pub node: NodeSettings,
    /// Patches.
    pub kubeadm: KubeadmPatches,
    /// Joining.
    pub join: JoinSettings,
    /// Manifests applied by the master after init: files or `dir/*.yaml`.
    pub addons: Vec<PathBuf>,
    /// Images that are pulled ahead; `None`: nothing is.
    pub images: Option<ImageSettings>,
    /// The image it should run.
    pub drift: DriftSettings,
    /// How it ends.
    pub end: EndSettings,
    /// Metrics.
    pub metrics: MetricsSettings,
    /// At most this long between two reports (default 5 min).
    pub report_every: Duration,
}
