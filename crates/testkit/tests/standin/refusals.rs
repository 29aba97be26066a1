use crate::machine::{Machine, said};

/// A change to good documents, and what is said of it.
fn refused_by_init(cases: &[(&str, &str, &str)]) {
    let machine = Machine::new();
    for (from, to, text) in cases {
        let good = machine.init_documents();
        assert!(good.contains(from), "{from:?} is not in the documents");
        let output = machine.init(&good.replacen(from, to, 1));
        assert_eq!(output.status.code(), Some(1), "{to:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{to:?}: {}", said(&output));
        assert!(!machine.path("/etc/kubernetes").exists(), "{to:?}: nothing may be written");
    }
}

#[test]
fn init_refuses_documents_that_are_not_kubeadms() {
    refused_by_init(&[
        ("clusterName:", "clusterNam:", "unknown field `clusterNam`"),
        ("bindPort:", "bindport:", "unknown field `bindport`"),
        ("cgroupDriver:", "cgroupDrivr:", "strict decoding error: unknown field \"cgroupDrivr\""),
        ("cgroupDriver: systemd", "maxPods: many", "of type int"),
        ("ttl: 10m0s", "ttl: 10", "invalid type"),
        ("ttl: 10m0s", "ttl: '10'", "time: missing unit in duration \"10\""),
        ("ttl: 10m0s", "ttl: 10m0s\n  expires: '2030-01-01T00:00:00Z'", "mutually exclusive"),
        ("ttl: 10m0s", "ttl: 10m0s\n  ttl: 10m0s", "duplicate"),
        ("abcdef.0123456789abcdef", "ABCDEF.0123456789abcdef", "the bootstrap token is invalid"),
        ("kubeadm.k8s.io/v1beta4", "kubeadm.k8s.io/v1beta2", "uses an old API spec"),
        ("kubeadm.k8s.io/v1beta4", "kubeadm.k8s.io/v1", "unknown configuration schema.GroupVersionKind"),
        ("kind: ClusterConfiguration", "kind: InitConfiguration", "unknown field"),
        ("kind: KubeletConfiguration", "kind: KubeletConfig", "unknown configuration"),
        ("apiVersion: kubeadm.k8s.io/v1beta4\n", "", "kind and apiVersion is mandatory"),
        ("name: master-0", "name: Master_0", "a lowercase RFC 1123 subdomain"),
        ("name: master-0", "name: master-0, kubeletExtraArgs: {v: '2'}", "invalid type: map, expected a sequence"),
        ("name: master-0", "name: master-0, kubeletExtraArgs: [{name: v, value: 2}]", "expected a string"),
        ("name: master-0", "name: master-0, taints: [{key: a, effect: Never}]", "invalid taint effect"),
        ("name: master-0", "name: master-0, criSocket: run/containerd.sock", "path is not absolute"),
        ("advertiseAddress: 127.0.0.1", "advertiseAddress: here", "ip address is not valid"),
        ("clusterName: prod", "networking: {podSubnet: 10.0.0.0/99}", "invalid CIDR address"),
        ("clusterName: prod", "apiServer: {certSANs: ['a b']}", "altname is not a valid IP address"),
        ("clusterName: prod", "certificatesDir: pki", "path is not absolute"),
        ("kubernetesVersion: v1.36.1", "kubernetesVersion: v1.30.0", "only supports deploying clusters"),
        ("kubernetesVersion: v1.36.1", "kubernetesVersion: stable", "couldn't parse Kubernetes version"),
        ("kubernetesVersion: v1.36.1", "kubernetesVersion: v1.35.0", "the kubelet version is higher"),
    ]);
}

#[test]
fn one_kind_comes_once_and_something_must_come() {
    let machine = Machine::new();
    let twice = format!("{0}---\n{0}", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n");
    for (documents, text) in [
        (twice.as_str(), "kind \"ClusterConfiguration\" is specified twice in YAML file"),
        ("", "no InitConfiguration or ClusterConfiguration kind was found"),
        ("{not yaml", "error converting YAML to JSON"),
    ] {
        let output = machine.init(documents);
        assert!(said(&output).contains(text) && output.status.code() == Some(1), "{}", said(&output));
    }
    let missing = machine.run(&["init", "--config", "/etc/nothing.yaml"]);
    assert!(said(&missing).contains("unable to read config from"), "{}", said(&missing));
    assert!(said(&machine.run(&["init", "--upload-certs"])).contains("error: unknown flag: --upload-certs"));
}

#[test]
fn join_refuses_documents_that_are_not_kubeadms() {
    let good = crate::machine::join_documents("worker-0", "abcdef.0123456789abcdef", "127.0.0.1:1", "sha256:00");
    let machine = Machine::new();
    for (from, to, text) in [
        ("caCertHashes:", "caCertHash:", "unknown field `caCertHash`"),
        ("    caCertHashes: ['sha256:00']\n", "", "using token-based discovery without caCertHashes can be unsafe"),
        ("token: abcdef.0123456789abcdef", "token: abcdef", "the bootstrap token is invalid"),
        ("127.0.0.1:1", "127.0.0.1", "missing port in address"),
        ("127.0.0.1:1", "'127.0.0.1:1; reboot'", "is not valid"),
        ("127.0.0.1:1", "$(id):1", "is not valid"),
        ("discovery: 500ms", "discovery: soon", "time: invalid duration \"soon\""),
        ("kind: JoinConfiguration", "kind: ClusterConfiguration", "unknown field"),
        ("timeouts:", "caCertPath: ca.crt\ntimeouts:", "the ca certificate path must be an absolute path"),
        ("timeouts:", "controlPlane: {localAPIEndpoint: {advertiseAddress: m1}}\ntimeouts:", "ip address is not valid"),
    ] {
        assert!(good.contains(from), "{from:?} is not in the documents");
        let output = machine.join(&good.replacen(from, to, 1));
        assert_eq!(output.status.code(), Some(1), "{to:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{to:?}: {}", said(&output));
        assert!(!machine.path("/etc/kubernetes").exists());
    }
    let without = machine.join("apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n");
    assert!(said(&without).contains("bootstrapToken or file must be set"), "{}", said(&without));
}

#[test]
fn flags_and_labels_a_kubelet_does_not_start_with_are_noticed() {
    let master = Machine::master();
    for (from, to, text) in [
        ("name: cloud-provider", "name: cloud-providr", "unknown flag: --cloud-providr"),
        ("team=web", "node-role.kubernetes.io/worker=", "unknown 'kubernetes.io' or 'k8s.io' labels specified"),
    ] {
        let worker = Machine::new();
        let output = worker.join(&master.join_documents("worker-0").replacen(from, to, 1));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(text), "{}", said(&output));
    }
}

#[test]
fn versions_are_what_the_script_says() {
    let machine = Machine::new();
    machine.script("kubeadm_version: v1.35.2\nkubelet_version: v1.34.9\n");
    assert_eq!(said(&machine.run(&["version", "-o", "short"])), "v1.35.2\n");
    let json: serde_json::Value = serde_json::from_str(&said(&machine.run(&["version", "-o", "json"]))).expect("JSON");
    assert_eq!(json["clientVersion"]["gitVersion"], "v1.35.2");
    assert!(said(&machine.run(&["config", "images", "list"])).contains("registry.k8s.io/kube-apiserver:v1.35.2"));
    let kubelet = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_kubelet")).args(arguments).output().expect("kubelet");
        (said(&output), output.status.code())
    };
    let root = format!("--rootfs={}", machine.path("/").display());
    assert_eq!(kubelet(&["--version", &root]), ("Kubernetes v1.34.9\n".to_owned(), Some(0)));
    assert_eq!(kubelet(&["--verion"]).1, Some(1));
    machine.script("kubeadm_versoin: v1.35.2\n");
    assert!(said(&machine.run(&["version"])).contains("kubeadm_versoin"), "a typing error in a script is told");
}
