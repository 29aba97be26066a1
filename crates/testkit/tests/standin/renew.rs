use crate::machine::{Machine, said};
use kubestrap_testkit::kubeadm::Kubeconfig;
use kubestrap_testkit::{files, pki};

#[test]
fn renewed_certificates_are_others_with_the_same_subject_and_the_old_authority() {
    let master = Machine::master();
    let read = |path: &str| files::read_text(&master.path(path)).expect(path);
    let paths =
        ["pki/apiserver.crt", "pki/etcd/peer.crt", "pki/front-proxy-client.crt", "admin.conf", "scheduler.conf"];
    let before = paths.map(|path| read(&format!("/etc/kubernetes/{path}")));
    let (pin, kubelet) = (master.pin(), read("/etc/kubernetes/kubelet.conf"));
    let output = master.run(&["certs", "renew", "all"]);
    assert!(output.status.success(), "{}", said(&output));
    for line in ["certificate for serving etcd renewed", "Done renewing certificates. You must restart"] {
        assert!(said(&output).contains(line), "{}", said(&output));
    }
    for (path, before) in paths.iter().zip(before) {
        assert_ne!(read(&format!("/etc/kubernetes/{path}")), before, "{path}");
    }
    assert_eq!((master.pin(), read("/etc/kubernetes/kubelet.conf")), (pin, kubelet));
    assert_eq!(master.mode("/etc/kubernetes/admin.conf"), 0o600);
    assert!(pki::expiry(&read("/etc/kubernetes/pki/apiserver.crt")).is_ok());
    // The API server still takes the administrator's certificate for his.
    let admin = Kubeconfig::read(&master.path("/etc/kubernetes/admin.conf")).expect("a kubeconfig");
    assert_eq!(admin.name, "kubernetes-admin");
    assert_eq!(master.get("/api/v1/nodes/master-0").status, 200);
}

#[test]
fn what_cannot_be_renewed_is_named_and_left() {
    let master = Machine::master();
    std::fs::remove_file(master.path("/etc/kubernetes/pki/etcd/ca.key")).expect("removed");
    std::fs::remove_file(master.path("/etc/kubernetes/super-admin.conf")).expect("removed");
    let before = files::read_text(&master.path("/etc/kubernetes/pki/etcd/server.crt")).expect("read");
    let output = master.run(&["certs", "renew", "all"]);
    assert!(output.status.success(), "{}", said(&output));
    for line in
        ["Detected external etcd/ca, certificate for serving etcd can't be renewed", "MISSING! certificate embedded"]
    {
        assert!(said(&output).contains(line), "{}", said(&output));
    }
    assert_eq!(files::read_text(&master.path("/etc/kubernetes/pki/etcd/server.crt")).expect("read"), before);
}
