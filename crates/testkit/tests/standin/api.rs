use crate::machine::{Machine, TOKEN, eventually, said};
use kubestrap_testkit::client::{Answer, Credentials};
use serde_json::{Value, json};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

#[test]
fn everybody_may_do_what_they_may_in_a_fresh_cluster() {
    let (master, worker) = (Machine::master(), Machine::new());
    let joined = worker.join(&master.join_documents("worker-0"));
    assert!(joined.status.success(), "{}", said(&joined));
    let nobody = Credentials::default();
    let token = Credentials { token: Some(TOKEN.to_owned()), ..Credentials::default() };
    let wrong = Credentials { token: Some("abcdef.aaaaaaaaaaaaaaaa".to_owned()), ..Credentials::default() };
    let node = worker.credentials("/etc/kubernetes/kubelet.conf");
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    for (who, path, status) in [
        (&nobody, "/readyz", 200),
        (&nobody, "/version", 200),
        (&nobody, info, 200),
        (&nobody, SECRETS, 403),
        (&nobody, "/api/v1/nodes", 403),
        (&nobody, "/apis", 403),
        (&token, "/api/v1/nodes/worker-0", 200),
        (&token, "/api/v1/nodes", 403),
        (&token, SECRETS, 403),
        (&wrong, info, 401),
        (&node, "/api/v1/nodes/worker-0", 200),
        (&node, "/api/v1/nodes/master-0", 403),
        (&node, SECRETS, 403),
        (&node, "/apis", 200),
    ] {
        let answer = master.call(who, "GET", path, None);
        assert_eq!(answer.status, status, "{path}: {}", answer.message());
    }
    let patch = |path: &str, body: Value| master.call(&node, "PATCH", path, Some((MERGE, &body))).status;
    assert_eq!(patch("/api/v1/nodes/worker-0", json!({"spec": {"unschedulable": true}})), 200);
    assert_eq!(patch("/api/v1/nodes/worker-0", json!({"spec": {"taints": null}})), 403, "NodeRestriction");
    assert_eq!(patch("/api/v1/nodes/master-0", json!({"spec": {"unschedulable": true}})), 403);
    let refused = master.call(&nobody, "GET", SECRETS, None);
    assert_eq!((&refused.body["kind"], &refused.body["reason"]), (&json!("Status"), &json!("Forbidden")));
}

#[test]
fn tokens_are_secrets_that_are_signed_listed_and_deleted() {
    let master = Machine::master();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-qwerty", "namespace": "kube-system", "labels": {"a": "b"}},
        "stringData": {
            "token-id": "qwerty", "token-secret": "0123456789abcdef", "expiration": "2099-01-01T00:00:00Z",
            "usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true",
        },
    });
    let create = || master.call(&master.admin(), "POST", SECRETS, Some(("application/json", &secret)));
    assert_eq!(create().status, 201);
    assert_eq!((create().status, create().body["reason"].clone()), (409, json!("AlreadyExists")));
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let signed = || master.get(info).body["data"]["jws-kubeconfig-qwerty"].is_string();
    eventually("it is signed", signed);
    for (query, count) in [
        ("fieldSelector=type%3Dbootstrap.kubernetes.io/token", 2),
        ("labelSelector=a%3Db", 1),
        ("fieldSelector=metadata.name%3Dbootstrap-token-abcdef", 1),
        ("labelSelector=a!%3Db", 1),
    ] {
        let list = master.get(&format!("{SECRETS}?{query}")).body;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{query}");
    }
    let path = format!("{SECRETS}/bootstrap-token-qwerty");
    assert_eq!(master.call(&master.admin(), "DELETE", &path, None).status, 200);
    assert_eq!(master.call(&master.admin(), "DELETE", &path, None).status, 404);
    eventually("its signature goes", || !signed());
}

fn apply(master: &Machine, path: &str, object: &Value) -> Answer {
    master.call(&master.admin(), "PATCH", path, Some((APPLY, object)))
}

#[test]
fn manifests_are_applied_by_the_server() {
    let master = Machine::master();
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}, "data": data});
    let path = "/api/v1/namespaces/default/configmaps/x";
    let by = |manager: &str| format!("{path}?fieldManager={manager}");
    assert_eq!(apply(&master, path, &map(json!({}))).status, 422, "a field manager is required");
    assert_eq!(apply(&master, &by("a"), &map(json!({"one": "1"}))).status, 201);
    assert_eq!(apply(&master, &by("a"), &map(json!({"one": "2"}))).status, 200);
    let conflict = apply(&master, &by("b"), &map(json!({"one": "3"})));
    assert_eq!((conflict.status, conflict.message().contains("conflict with \"a\": .data.one")), (409, true));
    assert_eq!(apply(&master, &format!("{}&force=true", by("b")), &map(json!({"one": "3"}))).status, 200);
    let elsewhere = "/api/v1/namespaces/nowhere/configmaps/x?fieldManager=a";
    let refused =
        apply(&master, elsewhere, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}));
    assert_eq!((refused.status, refused.message()), (404, "namespaces \"nowhere\" not found".to_owned()));
    assert_eq!(
        apply(&master, &by("a"), &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})).status,
        400
    );
}

#[test]
fn a_custom_resource_is_served_when_its_definition_is_established() {
    let master = Machine::master();
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "felines.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "felines", "kind": "Feline"},
                 "versions": [{"name": "v1", "served": true, "storage": true}]},
    });
    let feline =
        json!({"apiVersion": "example.com/v1", "kind": "Feline", "metadata": {"name": "tom"}, "spec": {"lives": 9}});
    let path = "/apis/example.com/v1/namespaces/default/felines/tom?fieldManager=test";
    assert_eq!(apply(&master, path, &feline).status, 404);
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/felines.example.com?fieldManager=test";
    assert_eq!(apply(&master, definition, &crd).status, 201);
    eventually("it is served", || master.get("/apis/example.com/v1").status == 200);
    assert_eq!(master.get("/apis/example.com/v1").body["resources"][0]["kind"], "Feline");
    assert_eq!(apply(&master, path, &feline).status, 201);
    let groups = master.get("/apis").body["groups"].clone();
    assert!(groups.as_array().is_some_and(|all| all.iter().any(|group| group["name"] == "example.com")));
}

#[test]
fn a_stale_write_is_refused_and_a_network_makes_nodes_ready() {
    let master = Machine::master();
    let path = "/api/v1/nodes/master-0";
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}});
    let answer = master.call(&master.admin(), "PATCH", path, Some((MERGE, &stale)));
    assert_eq!((answer.status, answer.body["reason"].clone()), (409, json!("Conflict")));
    let cni = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "cni", "namespace": "kube-system"}, "spec": {}});
    let applied = apply(&master, "/apis/apps/v1/namespaces/kube-system/daemonsets/cni?fieldManager=test", &cni);
    assert_eq!(applied.status, 201);
    eventually("Ready", || {
        let conditions = master.get(path).body["status"]["conditions"].clone();
        conditions.as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    });
}
