//! Several control planes: joins, what they refuse, and what etcd says of it.

#[path = "../../../../tests/integration/network.rs"]
mod network;

use self::network::Network;
use crate::machine::{Machine, TOKEN, eventually, said};
use kubestrap_testkit::balancer::Balancer;
use kubestrap_testkit::client::{self, Answer, Credentials};
use kubestrap_testkit::{apiserver, files, pki};
use serde_json::{Value, json};
use std::process::Output;

const SHARED: [&str; 8] =
    ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "etcd/ca.crt", "etcd/ca.key"];
/// Two minutes of patience are some seconds.
const QUICK: &str = "timeout_scale: 0.01\napi: {signer_delay: 0, crd_delay: 0}";

struct Cluster {
    network: Network,
    machines: Vec<Machine>,
}

impl Cluster {
    fn new() -> Cluster {
        let network = Network::new();
        let first = Machine::new();
        balance(&network, &first);
        first.script_with("api: {signer_delay: 0, crd_delay: 0}");
        let (address, port, endpoint) = (network.address(1), network.port, network.endpoint());
        let made = first.init(&format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens: [{{token: {TOKEN}}}]\n\
             nodeRegistration: {{name: m1, kubeletExtraArgs: [{{name: node-ip, value: {address}}}]}}\n\
             localAPIEndpoint: {{advertiseAddress: {address}, bindPort: {port}}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: {endpoint}\n"
        ));
        assert!(made.status.success(), "{}", said(&made));
        Cluster { network, machines: vec![first] }
    }

    fn of(count: usize) -> Cluster {
        let mut cluster = Cluster::new();
        for n in 2..=count {
            let machine = cluster.next();
            let joined = cluster.join(&machine, n, &[]);
            assert!(joined.status.success(), "{}", said(&joined));
            cluster.machines.push(machine);
            let pod = format!("/api/v1/namespaces/kube-system/pods/etcd-m{n}");
            eventually("its pods are known", || cluster.get(&cluster.endpoint(), &pod).status == 200);
        }
        cluster
    }

    /// A machine with the files that control planes share.
    fn next(&self) -> Machine {
        let machine = Machine::new();
        machine.script_with(QUICK);
        for file in SHARED {
            let path = format!("/etc/kubernetes/pki/{file}");
            machine.write(&path, &files::read_text(&self.machines[0].path(&path)).expect("a shared file"));
        }
        machine
    }

    fn join(&self, machine: &Machine, n: usize, more: &[&str]) -> Output {
        let address = self.network.address(u8::try_from(n).expect("small"));
        machine.write(
            "/etc/kubeadm.yaml",
            &format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken:\n\
                 \x20   token: {TOKEN}\n    apiServerEndpoint: {}\n    caCertHashes: ['{}']\n\
                 nodeRegistration: {{name: m{n}, kubeletExtraArgs: [{{name: node-ip, value: {address}}}]}}\n\
                 controlPlane: {{localAPIEndpoint: {{advertiseAddress: {address}, bindPort: {}}}}}\n",
                self.endpoint(),
                self.machines[0].pin(),
                self.network.port,
            ),
        );
        machine.run(&[&["join", "--config", "/etc/kubeadm.yaml"], more].concat())
    }

    fn etcd(&self, n: usize, path: &str, body: Value) -> Answer {
        let folder = self.machines[0].path("/etc/kubernetes/pki/etcd");
        let ca = Some(files::read_text(&folder.join("ca.crt")).expect("CA"));
        let identity = Some(pki::read_pair(&folder.join("server")).expect("pair"));
        self.etcd_as(&Credentials { ca, identity, token: None }, n, path, body).expect("an answer")
    }

    fn etcd_as(&self, who: &Credentials, n: usize, path: &str, body: Value) -> std::io::Result<Answer> {
        let at = format!("{}:2379", self.network.address(u8::try_from(n).expect("small")));
        let body = Some(("application/json", body.to_string().into_bytes()));
        ask(client::call(&at, who, "POST", path, body))
    }

    fn members(&self, n: usize) -> Vec<Value> {
        self.etcd(n, "/v3/cluster/member/list", json!({})).body["members"].as_array().expect("members").clone()
    }

    /// Names of those who vote.
    fn voters(&self, n: usize) -> Vec<String> {
        let members = self.members(n).into_iter().filter(|member| member["isLearner"] != true);
        members.map(|member| member["name"].as_str().unwrap_or("-").to_owned()).collect()
    }

    fn get(&self, endpoint: &str, path: &str) -> Answer {
        let admin = self.machines[0].admin();
        ask(client::call(endpoint, &admin, "GET", path, None)).expect("an answer")
    }

    fn endpoint(&self) -> String {
        self.network.endpoint().to_string()
    }

    fn cut(&self, n: usize) {
        apiserver::stop(&self.machines[n - 1].path("/")).expect("stop");
    }
}

/// A balancer before the API servers; it ends with the tests.
fn balance(network: &Network, first: &Machine) {
    first.write("/targets", &network.targets());
    let (at, targets) = (network.endpoint(), first.path("/targets"));
    std::thread::spawn(move || {
        let balancer = Balancer::new(targets).expect("a balancer");
        ask(async { balancer.serve(tokio::net::TcpListener::bind(at).await.expect("listen")).await })
    });
}

fn ask<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

#[test]
fn three_control_planes_are_one_cluster() {
    let cluster = Cluster::of(3);
    assert_eq!(cluster.voters(3), ["m1", "m2", "m3"]);
    for n in 1..=3 {
        let at = format!("{}:{}", cluster.network.address(n), cluster.network.port);
        let node = cluster.get(&at, "/api/v1/nodes/m3").body;
        assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
        assert_eq!(node["spec"]["taints"][0]["key"], "node-role.kubernetes.io/control-plane");
        assert_eq!(node["status"]["addresses"][0]["address"], cluster.network.address(3).to_string());
    }
    let pod = cluster.get(&cluster.endpoint(), "/api/v1/namespaces/kube-system/pods/etcd-m2").body;
    let url = format!("https://{}:2379", cluster.network.address(2));
    assert_eq!(pod["metadata"]["annotations"]["kubeadm.kubernetes.io/etcd.advertise-client-urls"], url);
    let third = &cluster.machines[2];
    for (path, mode) in [
        ("/etc/kubernetes/admin.conf", 0o600),
        ("/etc/kubernetes/manifests/etcd.yaml", 0o600),
        ("/etc/kubernetes/pki/etcd/server.key", 0o600),
    ] {
        assert_eq!(third.mode(path), mode, "{path}");
    }
    for path in ["/etc/kubernetes/super-admin.conf", "/etc/kubernetes/bootstrap-kubelet.conf"] {
        assert!(!third.path(path).exists(), "{path}");
    }
    let statuses: Vec<Value> = (1..=3).map(|n| cluster.etcd(n, "/v3/maintenance/status", json!({})).body).collect();
    assert!(statuses.iter().all(|status| status["leader"] == statuses[0]["leader"] && status["errors"].is_null()));
    // The API goes on without the first one, and leadership with it.
    cluster.cut(1);
    assert_eq!(cluster.get(&cluster.endpoint(), "/readyz").status, 200);
    let leader = || cluster.etcd(2, "/v3/maintenance/status", json!({})).body["leader"].clone();
    assert_ne!(leader(), statuses[0]["leader"]);
}

#[test]
fn what_is_not_there_or_not_right_is_refused_in_kubeadms_words() {
    let cluster = Cluster::new();
    for (file, text) in [
        ("ca.crt", "failure loading certificate for CA: couldn't load the certificate file /etc/kubernetes/pki/ca.crt"),
        ("sa.pub", "failure loading key for service account: couldn't load the public key file"),
        ("etcd/ca.crt", "failure loading certificate for etcd CA"),
        ("front-proxy-ca.crt", "failure loading certificate for front-proxy CA"),
    ] {
        let machine = cluster.next();
        std::fs::remove_file(machine.path(&format!("/etc/kubernetes/pki/{file}"))).expect("remove");
        let refused = cluster.join(&machine, 2, &[]);
        assert_eq!(refused.status.code(), Some(1), "{file}");
        assert!(said(&refused).contains("error execution phase preflight:"), "{}", said(&refused));
        assert!(said(&refused).contains(text), "{}", said(&refused));
        assert!(!machine.path("/etc/kubernetes/manifests").exists(), "nothing is made");
    }
    let keyless = cluster.next();
    std::fs::remove_file(keyless.path("/etc/kubernetes/pki/ca.key")).expect("remove");
    let refused = cluster.join(&keyless, 2, &[]);
    assert!(said(&refused).contains("W assuming external key for CA"), "{}", said(&refused));
    assert!(said(&refused).contains("could not load expected certificate \"apiserver\""), "{}", said(&refused));
    let stranger = Cluster::new();
    let other = stranger.next();
    let refused = cluster.join(&other, 2, &[]);
    assert!(said(&refused).contains("error execution phase check-etcd: could not retrieve the list of etcd endpoints"));
    assert!(said(&refused).contains("x509: certificate signed by unknown authority"), "{}", said(&refused));
    let mixed = cluster.next();
    mixed.write(
        "/etc/kubernetes/pki/ca.key",
        &files::read_text(&other.path("/etc/kubernetes/pki/ca.key")).expect("key"),
    );
    let refused = cluster.join(&mixed, 2, &[]);
    assert!(said(&refused).contains("provided PrivateKey doesn't match parent's PublicKey"), "{}", said(&refused));
    let unknown = cluster.join(&cluster.next(), 2, &["--skip-phases", "nonsense"]);
    assert!(said(&unknown).contains("invalid phase name: nonsense"), "{}", said(&unknown));
    assert_eq!(cluster.members(1).len(), 1);
}

#[test]
fn a_dead_member_is_in_the_way_until_it_is_removed() {
    let cluster = Cluster::of(3);
    cluster.cut(3);
    let fourth = cluster.next();
    let refused = cluster.join(&fourth, 4, &[]);
    let text = "error execution phase etcd-join: error creating local etcd static pod manifest file: etcdserver: \
                unhealthy cluster";
    assert!(said(&refused).contains(text), "{}", said(&refused));
    assert!(fourth.run(&["reset", "-f"]).status.success());
    let dead = cluster.members(1)[2]["ID"].clone();
    let removed = cluster.etcd(1, "/v3/cluster/member/remove", json!({"ID": dead}));
    assert_eq!((removed.status, cluster.members(2).len()), (200, 2));
    for pod in ["etcd-m3", "kube-apiserver-m3"] {
        let path = format!("/api/v1/namespaces/kube-system/pods/{pod}?gracePeriodSeconds=0");
        let admin = cluster.machines[0].admin();
        let gone = ask(client::call(&cluster.endpoint(), &admin, "DELETE", &path, None)).expect("an answer");
        assert_eq!(gone.status, 200, "{}", gone.message());
    }
    let fourth = cluster.next();
    let joined = cluster.join(&fourth, 4, &[]);
    assert!(joined.status.success(), "{}", said(&joined));
    assert_eq!(cluster.voters(4), ["m1", "m2", "m4"]);
    // The dead one's mirrors stay away, for its kubelet does not live.
    let pod = cluster.get(&cluster.endpoint(), "/api/v1/namespaces/kube-system/pods/etcd-m3");
    assert_eq!(pod.status, 404);
    // It was removed while it was away: its etcd does not come back.
    let third = &cluster.machines[2];
    assert_eq!(third.run(&["standin-apiserver"]).status.code(), Some(1));
}

#[test]
fn a_learner_that_nobody_starts_stops_every_other_join() {
    let cluster = Cluster::new();
    let second = cluster.next();
    second.script_with(&format!(
        "{QUICK}\nfaults: [{{command: join, phase: etcd-join/add, action: die, at: after, times: 1}}]"
    ));
    assert_eq!(cluster.join(&second, 2, &[]).status.code(), None);
    let members = cluster.members(1);
    assert_eq!((&members[1]["isLearner"], &members[1]["name"]), (&json!(true), &Value::Null));
    let refused = cluster.join(&cluster.next(), 3, &[]);
    assert!(said(&refused).contains("etcdserver: too many learner members in cluster"), "{}", said(&refused));
    let removed = cluster.etcd(1, "/v3/cluster/member/remove", json!({"ID": members[1]["ID"]}));
    assert_eq!(removed.status, 200);
    assert!(second.run(&["reset", "-f"]).status.success());
    let second = cluster.next();
    let joined = cluster.join(&second, 2, &[]);
    assert!(joined.status.success(), "{}", said(&joined));
}

#[test]
fn a_join_that_died_late_is_completed_by_its_last_phases() {
    let cluster = Cluster::new();
    let second = cluster.next();
    second.script_with(&format!(
        "{QUICK}\nfaults: [{{command: join, phase: kubelet-wait-bootstrap, action: die, at: after, times: 1}}]"
    ));
    assert_eq!(cluster.join(&second, 2, &[]).status.code(), None);
    assert_eq!(cluster.voters(1), ["m1", "m2"]);
    let node = || cluster.get(&cluster.endpoint(), "/api/v1/nodes/m2").body["metadata"]["labels"].clone();
    assert!(node()["node-role.kubernetes.io/control-plane"].is_null());
    let done = "preflight,control-plane-prepare,check-etcd,kubelet-start,etcd-join,kubelet-wait-bootstrap";
    let joined = cluster.join(&second, 2, &["--skip-phases", done]);
    assert!(joined.status.success(), "{}", said(&joined));
    assert_eq!(node()["node-role.kubernetes.io/control-plane"], "");
    // A reset of a whole control plane takes its member with it.
    assert!(second.run(&["reset", "-f"]).status.success());
    assert_eq!(cluster.voters(1), ["m1"]);
}

#[test]
fn without_a_quorum_nothing_is_answered_but_what_the_member_knows_itself() {
    let cluster = Cluster::of(2);
    let ids: Vec<Value> = cluster.members(1).iter().map(|member| member["ID"].clone()).collect();
    cluster.cut(2);
    assert_eq!(cluster.members(1).len(), 2);
    let list = cluster.etcd(1, "/v3/cluster/member/list", json!({"linearizable": true}));
    assert_eq!((list.status, list.body), (503, json!({"code": 14, "message": "etcdserver: request timed out"})));
    let status = cluster.etcd(1, "/v3/maintenance/status", json!({})).body;
    assert_eq!((&status["leader"], &status["errors"]), (&Value::Null, &json!(["etcdserver: no leader"])));
    let at = format!("{}:{}", cluster.network.address(1), cluster.network.port);
    assert_eq!((cluster.get(&at, "/readyz").status, cluster.get(&at, "/api/v1/nodes").status), (500, 500));
    // A removal is not answered, and carried out when the other one is back.
    let removed = cluster.etcd(1, "/v3/cluster/member/remove", json!({"ID": ids[1]}));
    assert_eq!(removed.status, 503);
    drop(cluster.machines[1].spawn(&["standin-apiserver", "--detach"]));
    eventually("the removal is carried out", || cluster.voters(1) == ["m1"]);
    eventually("the API is back", || cluster.get(&at, "/readyz").status == 200);
}

#[test]
fn etcd_talks_to_its_own_clients_alone_and_names_what_is_wrong() {
    let cluster = Cluster::of(2);
    let ca = Some(files::read_text(&cluster.machines[0].path("/etc/kubernetes/pki/etcd/ca.crt")).expect("CA"));
    let nobody = Credentials { ca, ..Credentials::default() };
    assert!(cluster.etcd_as(&nobody, 1, "/v3/cluster/member/list", json!({})).is_err());
    let admin = Credentials { ca: nobody.ca.clone(), ..cluster.machines[0].admin() };
    assert!(
        cluster.etcd_as(&admin, 1, "/v3/cluster/member/list", json!({})).is_err(),
        "the cluster's CA is another one"
    );
    let members = cluster.members(1);
    for (path, body, status, text) in [
        ("/v3/cluster/member/remove", json!({"ID": "7"}), 404, "etcdserver: member not found"),
        ("/v3/cluster/member/add", json!({"peerURLs": ["nonsense"]}), 400, "etcdserver: given member URLs are invalid"),
        (
            "/v3/cluster/member/add",
            json!({"peerURLs": members[0]["peerURLs"], "isLearner": true}),
            400,
            "etcdserver: Peer URLs already exists",
        ),
        (
            "/v3/cluster/member/promote",
            json!({"ID": members[0]["ID"]}),
            400,
            "etcdserver: can only promote a learner member",
        ),
        ("/v3/kv/range", json!({}), 400, "etcdserver: key is not provided"),
        ("/v3/nonsense", json!({}), 404, "Not Found"),
    ] {
        let answer = cluster.etcd(1, path, body);
        assert_eq!((answer.status, answer.message().as_str()), (status, text), "{path}");
    }
    let leader = cluster.etcd(1, "/v3/maintenance/status", json!({})).body["leader"].clone();
    let (first, second) = (&members[0]["ID"], &members[1]["ID"]);
    let (at, to) = if leader == *first { (1, second) } else { (2, first) };
    let moved = cluster.etcd(at, "/v3/maintenance/transfer-leadership", json!({"targetID": to}));
    assert_eq!(moved.status, 200, "{}", moved.message());
    let again = cluster.etcd(at, "/v3/maintenance/transfer-leadership", json!({"targetID": to}));
    assert_eq!((again.status, again.message().as_str()), (400, "etcdserver: not leader"));
}

#[test]
fn init_uses_authorities_that_are_there_and_refuses_half_of_one() {
    let cluster = Cluster::new();
    let master = cluster.next();
    let made = master.init(&master.init_documents());
    assert!(made.status.success(), "{}", said(&made));
    assert!(said(&made).contains("[certs] Using existing etcd/ca certificate authority"), "{}", said(&made));
    assert_eq!(master.pin(), cluster.machines[0].pin());
    let half = cluster.next();
    std::fs::remove_file(half.path("/etc/kubernetes/pki/ca.key")).expect("remove");
    let refused = half.init(&half.init_documents());
    let text = "error: invalid or incomplete external CA: failure loading key for apiserver: couldn't load the private \
                key file /etc/kubernetes/pki/apiserver.key";
    assert!(said(&refused).contains(text), "{}", said(&refused));
}
