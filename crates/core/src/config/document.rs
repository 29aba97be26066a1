//! The form of a configuration document: the one place that names every key.
//!
//! Every field is optional, because a layer may say little. Doc comments become the descriptions of the JSON Schema
//! (`kubestrap config schema`), and the schema drives the search for unknown keys and wrong types. What a value must
//! look like beyond its type is checked in `config/validate`.

mod drift;
mod install;

pub use drift::*;
pub use install::*;

use crate::model::identity::Role;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Configuration of a node. Durations are texts such as `90s`, `10m` or `1h`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "kubestrap configuration")]
pub struct Document {
    /// Name of the cluster: a DNS label. Needed.
    pub cluster: Option<String>,
    /// What this node is in the cluster. Needed.
    pub role: Option<Role>,
    /// Where the cluster's nodes meet: `s3://bucket/prefix` or `file:///folder`. Needed.
    pub store: Option<String>,
    /// `host:port` of the API server, best a DNS name. Needed on masters; workers learn it from the join bundle.
    pub control_plane_endpoint: Option<String>,
    /// What seals the private keys of the cluster, so that further masters can join; the same on all masters.
    pub pki: Option<PkiPart>,
    /// The cluster CA this node insists on: `sha256:` and 64 hex digits, as in kubeadm's discovery hash.
    pub ca_pin: Option<String>,
    /// How the machine learns who it is; `auto` asks DMI.
    pub identity: Option<IdentityKind>,
    /// The Kubernetes cluster.
    pub kubernetes: Option<KubernetesPart>,
    /// This node.
    pub node: Option<NodePart>,
    /// JSON merge patches for the kubeadm documents, by kind, for what is not modelled here.
    pub kubeadm: Option<KubeadmPart>,
    /// Times and limits of joining.
    pub join: Option<JoinPart>,
    /// Manifests applied by the master after init: absolute paths, `*` allowed in the file name.
    pub addons: Option<Vec<String>>,
    /// Options of an `s3://` store.
    pub s3: Option<S3Part>,
    /// Endpoints of AWS.
    pub aws: Option<AwsPart>,
    /// Credentials of ECR, Amazon's image registry.
    pub ecr: Option<EcrPart>,
    /// Images that are pulled while the machine becomes a node; without it none are. Needs containerd.
    pub images: Option<ImagesPart>,
    /// The image this node should run, and what is done when it runs another one.
    pub drift: Option<DriftPart>,
    /// How the node ends when its machine is taken away.
    pub end: Option<EndPart>,
    /// What `kubestrap install` puts on a machine, and from where.
    pub install: Option<InstallPart>,
    /// Where metrics go.
    pub metrics: Option<MetricsPart>,
    /// At most this long between two reports to the store (default 5m).
    pub report_every: Option<String>,
}

/// How the machine learns who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdentityKind {
    /// EC2 when DMI says so, the host otherwise.
    Auto,
    /// From IMDSv2.
    Ec2,
    /// machine-id, host name and default route.
    Host,
}

/// The Kubernetes cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesPart {
    /// Version of the control plane, for example `v1.36.1`; kubeadm's own when absent.
    pub version: Option<String>,
    /// Pod network: a CIDR, or an IPv4 and an IPv6 one with a comma between them.
    pub pod_subnet: Option<String>,
    /// Service network: a CIDR, or an IPv4 and an IPv6 one with a comma between them.
    pub service_subnet: Option<String>,
    /// DNS domain of services (kubeadm's default is `cluster.local`).
    pub dns_domain: Option<String>,
    /// Registry and path the control plane's images are pulled from.
    pub image_repository: Option<String>,
    /// More names and addresses in the API server's certificate.
    pub cert_sans: Option<Vec<String>>,
}

/// This node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePart {
    /// Node name; the EC2 private DNS name or the host name when absent.
    pub name: Option<String>,
    /// Address of the kubelet and the API server; from the identity when absent.
    pub address: Option<String>,
    /// Labels the node registers with. What NodeRestriction forbids to kubelets is refused.
    pub labels: Option<BTreeMap<String, String>>,
    /// Taints the node registers with; `[]` for none. kubeadm's default when absent.
    pub taints: Option<Vec<TaintEntry>>,
    /// Socket of the container runtime, for example `unix:///run/containerd/containerd.sock`; found when absent.
    pub cri_socket: Option<String>,
    /// Whether a cloud controller manager initialises the node.
    pub cloud_provider: Option<CloudProviderKind>,
}

/// Whether a cloud controller manager initialises the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloudProviderKind {
    /// No.
    None,
    /// Yes: the node stays tainted until it was seen by it.
    External,
}

/// A taint, as text or as a map.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TaintEntry {
    /// `key=value:Effect` or `key:Effect`.
    Text(String),
    /// Its parts.
    Parts(TaintParts),
}

/// The parts of a taint.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaintParts {
    /// Key.
    pub key: Option<String>,
    /// Value.
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: Option<String>,
}

/// Patches for kubeadm's documents. `apiVersion`, `kind` and secrets are not patched.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubeadmPart {
    /// kubeadm.k8s.io/v1beta4 InitConfiguration.
    #[serde(rename = "InitConfiguration")]
    pub init: Option<Map<String, Value>>,
    /// kubeadm.k8s.io/v1beta4 ClusterConfiguration.
    #[serde(rename = "ClusterConfiguration")]
    pub cluster: Option<Map<String, Value>>,
    /// kubeadm.k8s.io/v1beta4 JoinConfiguration.
    #[serde(rename = "JoinConfiguration")]
    pub join: Option<Map<String, Value>>,
    /// kubelet.config.k8s.io/v1beta1 KubeletConfiguration.
    #[serde(rename = "KubeletConfiguration")]
    pub kubelet: Option<Map<String, Value>>,
    /// kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration.
    #[serde(rename = "KubeProxyConfiguration")]
    pub kube_proxy: Option<Map<String, Value>>,
}

/// Times and limits of joining.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinPart {
    /// How long a worker waits for a usable join bundle (default 1h).
    pub wait: Option<String>,
    /// Life of a bootstrap token, 10m to 24h (default 1h); it is refreshed at half of it.
    pub token_ttl: Option<String>,
    /// How long the API server may be unreachable during a join (default 30m).
    pub api_wait: Option<String>,
}

/// Options of an `s3://` store.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Part {
    /// Base URL of an S3-compatible server.
    pub endpoint: Option<String>,
    /// Whether the bucket is part of the path instead of the host name (default: true with `endpoint`).
    pub path_style: Option<bool>,
    /// Region of the bucket; found when absent.
    pub region: Option<String>,
    /// KMS key id or ARN every object is encrypted with.
    pub kms_key_id: Option<String>,
    /// Account that must own the bucket: twelve digits, in quotes.
    pub expected_bucket_owner: Option<String>,
}

/// Endpoints of AWS.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsPart {
    /// Base URL of the instance metadata service, for example `http://[fd00:ec2::254]` where there is no IPv4.
    pub metadata_endpoint: Option<String>,
    /// Base URL of EC2's API, for private endpoints.
    pub ec2_endpoint: Option<String>,
    /// Base URL of ECR's API, for private endpoints.
    pub ecr_endpoint: Option<String>,
    /// Base URL of STS, for private endpoints; used where pods pull by a role of their own.
    pub sts_endpoint: Option<String>,
    /// Base URL of Systems Manager's API, for private endpoints.
    pub ssm_endpoint: Option<String>,
    /// Base URL of KMS's API, for private endpoints.
    pub kms_endpoint: Option<String>,
    /// Base URL of Auto Scaling's API, for private endpoints.
    pub autoscaling_endpoint: Option<String>,
}

/// What seals the private keys of the cluster in the store: one of the three.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PkiPart {
    /// KMS key: id, `alias/…` or ARN. Masters need `kms:GenerateDataKey` and `kms:Decrypt` on it.
    pub kms_key_id: Option<String>,
    /// Absolute path of a file with 32 random bytes in base64 (`openssl rand -base64 32`), owned by root, mode 0600.
    pub key_file: Option<String>,
    /// Absolute path of a file with a passphrase of at least 20 characters, owned by root, mode 0600.
    pub passphrase_file: Option<String>,
}

/// Credentials of ECR: for the kubelet's pulls by its plugin, for containerd's own by the agent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EcrPart {
    /// Whether the node gets them (default: on EC2, and where registries or mirrors are listed).
    pub enabled: Option<bool>,
    /// More ECR hosts that the container runtime itself pulls from; on EC2 the one of the own account and region is known.
    pub registries: Option<Vec<String>>,
    /// Hosts that are given the login of an ECR registry, by host (`registry.example.com:5000`): mirrors and caches.
    pub mirrors: Option<BTreeMap<String, String>>,
    /// Audience of service account tokens, for example `sts.amazonaws.com`: pods then pull by their own role.
    pub service_account_audience: Option<String>,
    /// The folder of containerd's `config_path` (default `/etc/containerd/certs.d`).
    pub certs_dir: Option<String>,
}

/// Images that are pulled while the machine becomes a node; a worker pulls kube-proxy too.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagesPart {
    /// Images with their registry, and with a tag or a digest: `registry.example.com/team/agent:1.4`.
    pub pull: Option<Vec<String>>,
    /// The sandbox (pause) image that containerd is configured with; it is pulled and pinned.
    pub sandbox: Option<String>,
}

/// Where metrics go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsPart {
    /// A `.prom` file for node_exporter's textfile collector.
    pub textfile: Option<String>,
    /// `address:port` that answers `GET /metrics`, for example `127.0.0.1:9753`.
    pub listen: Option<String>,
    /// Allows `listen` on an address other machines reach.
    pub allow_remote: Option<bool>,
}
