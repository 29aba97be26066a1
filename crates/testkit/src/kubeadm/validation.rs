//! Semantic checks of the documents (kubeadm `apis/kubeadm/validation/validation.go`), with its texts.

use super::documents::{
    ApiEndpoint, Arg, BootstrapToken, ClusterConfiguration, InitConfiguration, JoinConfiguration,
    NodeRegistrationOptions, Timeouts,
};
use super::{Failure, token};
use crate::golang;
use std::net::IpAddr;

type Errors = Vec<String>;

fn invalid(path: &str, value: &str, detail: &str) -> String {
    format!("{path}: Invalid value: {value:?}: {detail}")
}

/// Turns a list of errors into one, as `field.ErrorList.ToAggregate` does.
///
/// # Errors
/// When the list is not empty.
pub fn aggregate(errors: Vec<String>) -> Result<(), Failure> {
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::new(one.clone())),
        many => Err(Failure::new(format!("[{}]", many.join(", ")))),
    }
}

/// `ValidateInitConfiguration`.
pub fn init(init: &InitConfiguration, cluster: &ClusterConfiguration) -> Errors {
    let mut errors = node(&init.node_registration);
    for (index, token) in init.bootstrap_tokens.iter().flatten().enumerate() {
        errors.extend(bootstrap_token(token, &format!("bootstrapTokens.{index}")));
    }
    errors.extend(endpoint(&init.local_api_endpoint, "localAPIEndpoint"));
    errors.extend(certificate_key(&init.certificate_key, "certificateKey"));
    errors.extend(timeouts(init.timeouts.as_ref()));
    errors.extend(self::cluster(cluster));
    errors
}

/// `ValidateJoinConfiguration`.
pub fn join(join: &JoinConfiguration) -> Errors {
    let mut errors = Vec::new();
    let discovery = &join.discovery;
    match (&discovery.bootstrap_token, &discovery.file) {
        (None, None) => errors.push(invalid("discovery", "", "bootstrapToken or file must be set")),
        (Some(_), Some(_)) => errors.push(invalid("discovery", "", "bootstrapToken and file cannot both be set")),
        _ => {}
    }
    if let Some(bootstrap) = &discovery.bootstrap_token {
        let path = "discovery.bootstrapToken";
        if bootstrap.api_server_endpoint.is_empty() {
            errors.push(format!("{path}: Required value: APIServerEndpoint is not set"));
        }
        if bootstrap.ca_cert_hashes.iter().flatten().next().is_none() && !bootstrap.unsafe_skip_ca_verification {
            errors.push(invalid(
                &format!("{path}.caCertHashes"),
                "",
                "using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification as true \
                 in your kubeadm config file or pass --discovery-token-unsafe-skip-ca-verification flag to continue",
            ));
        }
        errors.extend(token_text(&bootstrap.token, &format!("{path}.token")));
        errors.extend(host_port(&bootstrap.api_server_endpoint, &format!("{path}.apiServerEndpoint")));
        errors.extend(token_text(&discovery.tls_bootstrap_token, "discovery.tlsBootstrapToken"));
    }
    errors.extend(node(&join.node_registration));
    if let Some(control_plane) = &join.control_plane {
        errors.extend(endpoint(&control_plane.local_api_endpoint, "controlPlane.localAPIEndpoint"));
        errors.extend(certificate_key(&control_plane.certificate_key, "controlPlane.certificateKey"));
    }
    if !join.ca_cert_path.starts_with('/') || !join.ca_cert_path.ends_with(".crt") {
        errors.push(invalid("caCertPath", &join.ca_cert_path, "the ca certificate path must be an absolute path"));
    }
    errors.extend(timeouts(join.timeouts.as_ref()));
    errors
}

/// The versions a kubeadm supports: its own minor and the one before (`constants.MinimumControlPlaneVersion`).
///
/// # Errors
/// When the version does not parse or is out of range.
pub fn control_plane_version(version: &str, kubeadm: &str) -> Result<(), Failure> {
    let (wanted, own) = (minor(version), minor(kubeadm));
    let wanted = wanted.ok_or_else(|| {
        Failure::new(format!("couldn't parse Kubernetes version {version:?}: illegal version string {version:?}"))
    })?;
    let own = own.ok_or_else(|| Failure::new(format!("couldn't parse kubeadm version {kubeadm:?}")))?;
    if wanted.0 != own.0 || wanted.1 + 1 < own.1 {
        return Err(Failure::new(format!(
            "this version of kubeadm only supports deploying clusters with the control plane version >= {}.{}.0. \
             Current version: {version}",
            own.0,
            own.1.saturating_sub(1)
        )));
    }
    Ok(())
}

/// Major and minor of `v1.36.1`; `None` when it is not a version.
pub fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).splitn(3, '.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let patch = parts.next()?.split(['-', '+']).next()?;
    patch.parse::<u32>().ok().map(|_| (major, minor))
}

fn cluster(cluster: &ClusterConfiguration) -> Errors {
    let mut errors = Vec::new();
    let networking = &cluster.networking;
    for (path, subnets) in
        [("networking.serviceSubnet", &networking.service_subnet), ("networking.podSubnet", &networking.pod_subnet)]
    {
        for subnet in subnets.split(',').filter(|subnet| !subnet.is_empty()) {
            if !is_cidr(subnet) {
                errors.push(invalid(path, subnets, &format!("couldn't parse subnet: invalid CIDR address: {subnet}")));
            }
        }
    }
    if !is_dns_name(&networking.dns_domain) {
        errors.push(invalid("networking.dnsDomain", &networking.dns_domain, "a lowercase RFC 1123 subdomain"));
    }
    for san in cluster.api_server.cert_sans.iter().flatten() {
        let wildcard = san.strip_prefix("*.").unwrap_or(san);
        if san.parse::<IpAddr>().is_err() && !is_dns_name(wildcard) {
            errors.push(invalid(
                "apiServer.certSANs",
                san,
                "altname is not a valid IP address, DNS label or a DNS label with subdomain wildcards",
            ));
        }
    }
    let components = [
        ("apiServer", &cluster.api_server.extra_args),
        ("controllerManager", &cluster.controller_manager.extra_args),
        ("scheduler", &cluster.scheduler.extra_args),
    ];
    for (path, args) in components {
        errors.extend(extra_args(args.as_deref(), &format!("{path}.extraArgs")));
    }
    if !cluster.certificates_dir.starts_with('/') {
        errors.push(invalid("certificatesDir", &cluster.certificates_dir, "path is not absolute"));
    }
    let control_plane = &cluster.control_plane_endpoint;
    if !control_plane.is_empty() && control_plane.parse::<IpAddr>().is_err() && !is_dns_name(control_plane) {
        errors.extend(host_port(control_plane, "controlPlaneEndpoint"));
    }
    if cluster.etcd.local.is_some() && cluster.etcd.external.is_some() {
        errors.push(invalid("etcd", "", ".Etcd.Local and .Etcd.External are mutually exclusive"));
    }
    let periods = [&cluster.certificate_validity_period, &cluster.ca_certificate_validity_period];
    errors.extend(periods.into_iter().flatten().filter_map(|text| golang::parse_duration(text).err()));
    let algorithms = ["", "ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096"];
    if !algorithms.contains(&cluster.encryption_algorithm.as_str()) {
        errors.push(invalid(
            "encryptionAlgorithm",
            &cluster.encryption_algorithm,
            "Invalid encryption algorithm. Must be one of: [RSA-2048 RSA-3072 RSA-4096 ECDSA-P256 ECDSA-P384]",
        ));
    }
    errors
}

fn node(node: &NodeRegistrationOptions) -> Errors {
    let mut errors = Vec::new();
    if !is_dns_name(&node.name) {
        errors.push(invalid(
            "nodeRegistration.name",
            &node.name,
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ));
    }
    let socket = node.cri_socket.strip_prefix("unix://").unwrap_or(&node.cri_socket);
    if !socket.starts_with('/') {
        errors.push(invalid("nodeRegistration.criSocket", &node.cri_socket, "path is not absolute"));
    }
    if !["Always", "IfNotPresent", "Never"].contains(&node.image_pull_policy.as_str()) {
        errors.push(invalid("nodeRegistration.imagePullPolicy", &node.image_pull_policy, "invalid pull policy"));
    }
    errors.extend(extra_args(node.kubelet_extra_args.as_deref(), "nodeRegistration.kubeletExtraArgs"));
    for taint in node.taints.iter().flatten() {
        // kubeadm does not look at them, but the kubelet does not start with a wrong one (`ParseTaints`).
        if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str()) || taint.key.is_empty() {
            errors.push(invalid("nodeRegistration.taints", &taint.effect, "invalid taint effect"));
        }
    }
    errors
}

fn extra_args(args: Option<&[Arg]>, path: &str) -> Errors {
    let empty = args.into_iter().flatten().enumerate().filter(|(_, arg)| arg.name.is_empty());
    empty.map(|(i, _)| invalid(path, "", &format!("argument at index {i} has no name"))).collect()
}

fn endpoint(endpoint: &ApiEndpoint, path: &str) -> Errors {
    let mut errors = Vec::new();
    let address = &endpoint.advertise_address;
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        errors.push(invalid(&format!("{path}.advertiseAddress"), address, "ip address is not valid"));
    }
    if !(0..=65535).contains(&endpoint.bind_port) {
        errors.push(invalid(&format!("{path}.bindPort"), &endpoint.bind_port.to_string(), "port number is not valid"));
    }
    errors
}

fn bootstrap_token(token: &BootstrapToken, path: &str) -> Errors {
    let mut errors: Errors = token_text(&token.token, &format!("{path}.token")).into_iter().collect();
    for usage in token.usages.iter().flatten() {
        if !["signing", "authentication"].contains(&usage.as_str()) {
            let detail =
                format!("invalid bootstrap token usage string: {usage}, valid usage options: [authentication signing]");
            errors.push(invalid(&format!("{path}.usages"), usage, &detail));
        }
    }
    for group in token.groups.iter().flatten() {
        let rest = group.strip_prefix("system:bootstrappers:").unwrap_or_default();
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == ':' || c == '-';
        if rest.is_empty() || !rest.chars().all(fine) || rest.ends_with([':', '-']) {
            let detail = format!(
                "bootstrap group {group:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)"
            );
            errors.push(invalid(&format!("{path}.groups"), group, &detail));
        }
    }
    if token.expires.is_some() && token.ttl.is_some() {
        errors.push(invalid(path, "", "the BootstrapToken .TTL and .Expires fields are mutually exclusive"));
    }
    errors.extend(token.ttl.as_deref().and_then(|ttl| golang::parse_duration(ttl).err()));
    errors
}

fn token_text(text: &str, path: &str) -> Option<String> {
    // The real one prints the token too: a caller must redact what kubeadm says.
    token::parse(text).is_none().then(|| invalid(path, text, "the bootstrap token is invalid"))
}

fn host_port(text: &str, path: &str) -> Option<String> {
    let problem = match text.rsplit_once(':') {
        None => "missing port in address".to_owned(),
        Some((host, port)) => {
            let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let good = inner.map_or_else(|| is_dns_name(host), |h| h.parse::<IpAddr>().is_ok());
            match (good, port.parse::<u16>()) {
                (true, Ok(1..)) => return None,
                (false, _) => format!("address {text}: host {host:?} is not valid"),
                _ => format!("address {text}: port {port:?} is not valid"),
            }
        }
    };
    Some(invalid(path, text, &problem))
}

fn certificate_key(key: &str, path: &str) -> Option<String> {
    let good = key.is_empty() || (key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()));
    (!good).then(|| invalid(path, key, "certificate key must be 32 bytes, hex encoded"))
}

fn timeouts(timeouts: Option<&Timeouts>) -> Errors {
    let given = timeouts.map(Timeouts::all).unwrap_or_default();
    given.into_iter().filter_map(|(_, text)| golang::parse_duration(text).err()).collect()
}

fn is_cidr(text: &str) -> bool {
    let parsed =
        text.split_once('/').and_then(|(ip, bits)| Some((ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?)));
    parsed.is_some_and(|(ip, bits)| bits <= if ip.is_ipv4() { 32 } else { 128 })
}

/// Whether `text` is an RFC 1123 subdomain.
pub fn is_dns_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-');
    text.len() <= 253 && text.split('.').all(label)
}
