use crate::machine::{Machine, TOKEN, eventually, join_documents, said};
use kubestrap_testkit::{apiserver, ports};
use serde_json::json;

#[test]
fn init_leaves_what_kubeadm_leaves_with_its_modes() {
    let master = Machine::master();
    for (path, mode) in [
        ("/etc/kubernetes/pki/ca.key", 0o600),
        ("/etc/kubernetes/pki/ca.crt", 0o644),
        ("/etc/kubernetes/pki/sa.key", 0o600),
        ("/etc/kubernetes/pki/etcd/ca.key", 0o600),
        ("/etc/kubernetes/pki/front-proxy-client.key", 0o600),
        ("/etc/kubernetes/admin.conf", 0o600),
        ("/etc/kubernetes/super-admin.conf", 0o600),
        ("/etc/kubernetes/kubelet.conf", 0o600),
        ("/etc/kubernetes/manifests/kube-apiserver.yaml", 0o600),
        ("/etc/kubernetes/manifests", 0o700),
        ("/var/lib/etcd", 0o700),
        ("/var/lib/etcd/member", 0o700),
        ("/var/lib/etcd/standin.json", 0o600),
        ("/var/lib/kubelet/pki/kubelet-client-current.pem", 0o600),
        ("/var/lib/kubelet/config.yaml", 0o644),
        ("/var/lib/kubelet/kubeadm-flags.env", 0o644),
        ("/var/lib/kubestrap-standin/runs.jsonl", 0o600),
    ] {
        assert_eq!(master.mode(path), mode, "{path}");
    }
    assert_eq!(master.get("/version").body["gitVersion"], "v1.36.1");
    let node = master.get("/api/v1/nodes/master-0").body;
    assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}])
    );
}

#[test]
fn the_token_is_printed_unless_it_must_not_be() {
    let quiet = Machine::new();
    let output = quiet.init(&quiet.init_documents());
    assert!(output.status.success() && !said(&output).contains("0123456789abcdef"), "{}", said(&output));
    let loud = Machine::new();
    loud.write("/etc/kubeadm.yaml", &loud.init_documents());
    assert!(said(&loud.run(&["init", "--config", "/etc/kubeadm.yaml"])).contains(&format!("--token {TOKEN}")));
}

#[test]
fn a_second_init_is_refused_and_keeps_the_ca() {
    let master = Machine::master();
    let before = master.pin();
    let again = master.init(&master.init_documents());
    assert_eq!(again.status.code(), Some(1));
    for line in [
        "[ERROR FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml]: \
         /etc/kubernetes/manifests/kube-apiserver.yaml already exists",
        "[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty",
        "error: error execution phase preflight: preflight checks failed",
    ] {
        assert!(said(&again).contains(line), "{}", said(&again));
    }
    assert_eq!(master.pin(), before);
    master.script_with("preflight_exit_code: 2");
    assert_eq!(master.init(&master.init_documents()).status.code(), Some(2), "as kubeadm before 1.36");
}

#[test]
fn a_worker_joins_and_its_node_says_what_the_document_said() {
    let (master, worker) = (Machine::master(), Machine::new());
    let joined = worker.join(&master.join_documents("worker-0"));
    assert!(joined.status.success(), "{}", said(&joined));
    assert_eq!(worker.mode("/etc/kubernetes/kubelet.conf"), 0o600);
    assert!(!worker.path("/etc/kubernetes/bootstrap-kubelet.conf").exists(), "it holds a token");
    assert_eq!(worker.pin(), master.pin());
    let node = master.get("/api/v1/nodes/worker-0").body;
    assert_eq!(node["spec"]["providerID"], "aws:///a/i-1");
    assert_eq!(node["metadata"]["labels"]["team"], "web");
    let taints: Vec<&str> =
        node["spec"]["taints"].as_array().expect("taints").iter().filter_map(|t| t["key"].as_str()).collect();
    assert_eq!(taints, ["dedicated", "node.cloudprovider.kubernetes.io/uninitialized"]);

    let again = worker.join(&master.join_documents("worker-0"));
    assert_eq!(again.status.code(), Some(1));
    for name in ["kubelet.conf", "pki-ca.crt"] {
        assert!(said(&again).contains(&format!("[ERROR FileAvailable--etc-kubernetes-{name}]")), "{}", said(&again));
    }
    let reset = worker.run(&["reset", "-f"]);
    assert!(reset.status.success(), "{}", said(&reset));
    assert!(worker.join(&master.join_documents("worker-0")).status.success(), "a NotReady node may join again");
}

#[test]
fn a_ready_node_of_the_same_name_is_in_the_way_until_its_kubelet_is_missed() {
    let master = Machine::new();
    master.script_with("api: {signer_delay: 0, nodes_ready: always, node_grace: 0.2}");
    assert!(master.init(&master.init_documents()).status.success());
    let (first, second) = (Machine::new(), Machine::new());
    assert!(first.join(&master.join_documents("worker-0")).status.success());
    let ready = |status: &str| {
        let conditions = master.get("/api/v1/nodes/worker-0").body["status"]["conditions"].clone();
        conditions.as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == status))
    };
    eventually("Ready", || ready("True"));
    let refused = second.join(&master.join_documents("worker-0"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("a Node with name \"worker-0\" and status \"Ready\" already exists in the cluster")
    );
    assert!(second.path("/etc/kubernetes/bootstrap-kubelet.conf").exists(), "as the real one leaves it");
    assert!(first.run(&["reset", "-f"]).status.success());
    eventually("Unknown", || ready("Unknown"));
    assert!(second.run(&["reset", "-f"]).status.success());
    assert!(second.join(&master.join_documents("worker-0")).status.success());
}

#[test]
fn an_expired_token_is_cleaned_away_and_joins_nobody() {
    let (master, worker) = (Machine::new(), Machine::new());
    assert!(master.init(&master.init_documents_with_ttl("2s")).status.success());
    let secret = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    assert_eq!(master.get(secret).status, 200);
    eventually("the token is gone", || master.get(secret).status == 404);
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    eventually("so is its signature", || master.get(info).body["data"]["jws-kubeconfig-abcdef"].is_null());
    let refused = worker.join(&master.join_documents("worker-0"));
    assert_eq!(refused.status.code(), Some(1));
    let text = "couldn't validate the identity of the API Server: could not find a JWS signature in the cluster-info \
                ConfigMap for token ID \"abcdef\"";
    assert!(said(&refused).contains(text), "{}", said(&refused));
    assert!(!worker.path("/etc/kubernetes").exists(), "nothing is written before the cluster is known");
}

#[test]
fn what_discovery_does_not_trust_it_refuses() {
    let master = Machine::master();
    let other = format!("sha256:{}", "0".repeat(64));
    for (token, pin, text) in [
        (TOKEN, other.as_str(), "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys"),
        ("abcdef.aaaaaaaaaaaaaaaa", &master.pin(), "failed to verify JWS signature of received cluster info object"),
        ("zzzzzz.0123456789abcdef", &master.pin(), "could not find a JWS signature"),
        (TOKEN, "sha256:abcd", "expected a 32 byte SHA-256 hash, found 2 bytes"),
        (TOKEN, "md5:abcd", "unknown hash format \"md5\""),
    ] {
        let worker = Machine::new();
        let refused = worker.join(&join_documents("worker-0", token, &master.endpoint(), pin));
        assert_eq!(refused.status.code(), Some(1));
        assert!(said(&refused).contains(text), "{}", said(&refused));
        assert!(!worker.path("/etc/kubernetes").exists());
    }
    let nobody = format!("127.0.0.1:{}", ports::free_port().expect("port"));
    let refused = Machine::new().join(&join_documents("worker-0", TOKEN, &nobody, &other));
    assert!(said(&refused).contains("failed to request the cluster-info ConfigMap"), "{}", said(&refused));
}

#[test]
fn reset_removes_everything_and_a_new_init_is_a_new_cluster() {
    let master = Machine::master();
    let before = master.pin();
    assert_eq!(master.run(&["reset"]).status.code(), Some(1), "not without a yes");
    assert!(apiserver::running(&master.path("/")).is_some());
    assert!(master.run(&["reset", "-f"]).status.success());
    assert!(apiserver::running(&master.path("/")).is_none());
    for path in [
        "/etc/kubernetes/admin.conf",
        "/etc/kubernetes/pki/ca.crt",
        "/var/lib/etcd/standin.json",
        "/var/lib/kubelet/config.yaml",
    ] {
        assert!(!master.path(path).exists(), "{path}");
    }
    assert!(master.init(&master.init_documents()).status.success());
    assert_ne!(master.pin(), before);
}

#[test]
fn a_restarted_api_server_knows_what_it_knew() {
    let master = Machine::master();
    apiserver::stop(&master.path("/")).expect("stop");
    drop(master.spawn(&["standin-apiserver", "--detach"]));
    eventually("it runs", || apiserver::running(&master.path("/")).is_some());
    assert_eq!(master.get("/api/v1/nodes/master-0").status, 200);
}

#[test]
fn a_server_whose_root_was_removed_ends_and_brings_nothing_back() {
    let master = Machine::master();
    let pid = apiserver::running(&master.path("/")).expect("running");
    std::fs::remove_dir_all(master.path("/")).expect("remove");
    let line = format!("/proc/{pid}/cmdline");
    eventually("it ends", || std::fs::read(&line).map_or(true, |line| line.is_empty()));
    assert!(!master.path("/var").exists());
}
