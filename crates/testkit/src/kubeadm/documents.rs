//! The documents of `kubeadm.k8s.io/v1beta4`, field for field (kubeadm `apis/kubeadm/v1beta4/types.go`, 1.36). Unknown
//! fields and wrong types are refused.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

macro_rules! document {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident : $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        #[allow(missing_docs)] // The fields are kubeadm's own; its reference documents them.
        pub struct $name {
            $($(#[$attribute])* #[serde(skip_serializing_if = "is_default")] pub $field: $type,)*
        }
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

document!(
    /// `InitConfiguration`.
    InitConfiguration {
        api_version: String,
        kind: String,
        bootstrap_tokens: Option<Vec<BootstrapToken>>,
        dry_run: bool,
        node_registration: NodeRegistrationOptions,
        #[serde(rename = "localAPIEndpoint")]
        local_api_endpoint: ApiEndpoint,
        certificate_key: String,
        skip_phases: Option<Vec<String>>,
        patches: Option<Patches>,
        timeouts: Option<Timeouts>,
    }
);
document!(
    /// A bootstrap token (`bootstraptoken/v1`).
    BootstrapToken {
        token: String,
        description: String,
        ttl: Option<String>,
        expires: Option<String>,
        usages: Option<Vec<String>>,
        groups: Option<Vec<String>>,
    }
);
document!(
    /// `ClusterConfiguration`.
    ClusterConfiguration {
        api_version: String,
        kind: String,
        etcd: Etcd,
        networking: Networking,
        kubernetes_version: String,
        control_plane_endpoint: String,
        api_server: ApiServer,
        controller_manager: ControlPlaneComponent,
        scheduler: ControlPlaneComponent,
        dns: Dns,
        proxy: Proxy,
        certificates_dir: String,
        image_repository: String,
        feature_gates: Option<BTreeMap<String, bool>>,
        cluster_name: String,
        encryption_algorithm: String,
        certificate_validity_period: Option<String>,
        #[serde(rename = "caCertificateValidityPeriod")]
        ca_certificate_validity_period: Option<String>,
    }
);
document!(
    /// `controllerManager` and `scheduler`.
    ControlPlaneComponent {
        extra_args: Option<Vec<Arg>>,
        extra_volumes: Option<Vec<HostPathMount>>,
        extra_envs: Option<Vec<EnvVar>>,
    }
);
document!(
    /// `apiServer`.
    ApiServer {
        extra_args: Option<Vec<Arg>>,
        extra_volumes: Option<Vec<HostPathMount>>,
        extra_envs: Option<Vec<EnvVar>>,
        #[serde(rename = "certSANs")]
        cert_sans: Option<Vec<String>>,
    }
);
document!(
    /// `dns`.
    Dns { image_repository: String, image_tag: String, disabled: bool }
);
document!(
    /// `proxy`.
    Proxy { disabled: bool }
);
document!(
    /// `localAPIEndpoint`.
    ApiEndpoint { advertise_address: String, bind_port: i32 }
);
document!(
    /// `nodeRegistration`.
    NodeRegistrationOptions {
        name: String,
        cri_socket: String,
        taints: Option<Vec<Taint>>,
        kubelet_extra_args: Option<Vec<Arg>>,
        ignore_preflight_errors: Option<Vec<String>>,
        image_pull_policy: String,
        image_pull_serial: Option<bool>,
    }
);
document!(
    /// A taint (`core/v1`).
    Taint { key: String, value: String, effect: String, time_added: Option<String> }
);
document!(
    /// `networking`.
    Networking {
        service_subnet: String,
        pod_subnet: String,
        dns_domain: String,
    }
);
document!(
    /// `etcd`.
    Etcd { local: Option<LocalEtcd>, external: Option<ExternalEtcd> }
);
document!(
    /// `etcd.local`.
    LocalEtcd {
        image_repository: String,
        image_tag: String,
        data_dir: String,
        extra_args: Option<Vec<Arg>>,
        extra_envs: Option<Vec<EnvVar>>,
        #[serde(rename = "serverCertSANs")]
        server_cert_sans: Option<Vec<String>>,
        #[serde(rename = "peerCertSANs")]
        peer_cert_sans: Option<Vec<String>>,
    }
);
document!(
    /// `etcd.external`.
    ExternalEtcd {
        endpoints: Option<Vec<String>>,
        #[serde(rename = "httpEndpoints")]
        http_endpoints: Option<Vec<String>>,
        ca_file: String,
        cert_file: String,
        key_file: String,
    }
);
document!(
    /// `JoinConfiguration`.
    JoinConfiguration {
        api_version: String,
        kind: String,
        dry_run: bool,
        node_registration: NodeRegistrationOptions,
        ca_cert_path: String,
        discovery: Discovery,
        control_plane: Option<JoinControlPlane>,
        skip_phases: Option<Vec<String>>,
        patches: Option<Patches>,
        timeouts: Option<Timeouts>,
    }
);
document!(
    /// `controlPlane` of a join.
    JoinControlPlane {
        #[serde(rename = "localAPIEndpoint")]
        local_api_endpoint: ApiEndpoint,
        certificate_key: String,
    }
);
document!(
    /// `discovery`.
    Discovery {
        bootstrap_token: Option<BootstrapTokenDiscovery>,
        file: Option<FileDiscovery>,
        tls_bootstrap_token: String,
    }
);
document!(
    /// `discovery.bootstrapToken`.
    BootstrapTokenDiscovery {
        token: String,
        api_server_endpoint: String,
        ca_cert_hashes: Option<Vec<String>>,
        #[serde(rename = "unsafeSkipCAVerification")]
        unsafe_skip_ca_verification: bool,
    }
);
document!(
    /// `discovery.file`.
    FileDiscovery { kube_config_path: String }
);
document!(
    /// A volume of a control plane component.
    HostPathMount { name: String, host_path: String, mount_path: String, read_only: bool, path_type: String }
);
document!(
    /// `patches`.
    Patches { directory: String }
);
document!(
    /// `ResetConfiguration`.
    ResetConfiguration {
        api_version: String,
        kind: String,
        cleanup_tmp_dir: bool,
        certificates_dir: String,
        cri_socket: String,
        dry_run: bool,
        force: bool,
        ignore_preflight_errors: Option<Vec<String>>,
        skip_phases: Option<Vec<String>>,
        unmount_flags: Option<Vec<String>>,
        timeouts: Option<Timeouts>,
    }
);
document!(
    /// An argument.
    Arg { name: String, value: String }
);
document!(
    /// An environment variable (`core/v1`).
    EnvVar { name: String, value: String, value_from: Option<Value> }
);
document!(
    /// `timeouts`; Go durations.
    Timeouts {
        control_plane_component_health_check: Option<String>,
        kubelet_health_check: Option<String>,
        #[serde(rename = "kubernetesAPICall")]
        kubernetes_api_call: Option<String>,
        #[serde(rename = "etcdAPICall")]
        etcd_api_call: Option<String>,
        tls_bootstrap: Option<String>,
        discovery: Option<String>,
        upgrade_manifests: Option<String>,
    }
);

impl Timeouts {
    /// Every timeout that is given, with its field's name.
    pub fn all(&self) -> Vec<(&'static str, &str)> {
        let fields = [
            ("controlPlaneComponentHealthCheck", &self.control_plane_component_health_check),
            ("kubeletHealthCheck", &self.kubelet_health_check),
            ("kubernetesAPICall", &self.kubernetes_api_call),
            ("etcdAPICall", &self.etcd_api_call),
            ("tlsBootstrap", &self.tls_bootstrap),
            ("discovery", &self.discovery),
            ("upgradeManifests", &self.upgrade_manifests),
        ];
        fields.into_iter().filter_map(|(name, value)| value.as_deref().map(|value| (name, value))).collect()
    }
}

impl NodeRegistrationOptions {
    /// The value of a kubelet flag; the last one wins, as on a command line.
    pub fn kubelet_arg(&self, name: &str) -> Option<&str> {
        self.kubelet_extra_args.iter().flatten().rev().find(|arg| arg.name == name).map(|arg| arg.value.as_str())
    }
}
