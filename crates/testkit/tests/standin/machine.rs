use kubestrap_testkit::client::{self, Answer, Credentials};
use kubestrap_testkit::kubeadm::Kubeconfig;
use kubestrap_testkit::{apiserver, files, pki, ports};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const TOKEN: &str = "abcdef.0123456789abcdef";

/// A machine: a root folder. Its API server ends with it.
pub struct Machine {
    root: TempDir,
    pub port: u16,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = apiserver::stop(self.root.path());
    }
}

impl Machine {
    pub fn new() -> Self {
        let machine = Machine { root: TempDir::new().expect("folder"), port: ports::free_port().expect("port") };
        machine.script("init_seconds: 0\njoin_seconds: 0\npoll_seconds: 0.02\napi: {signer_delay: 0, crd_delay: 0}\n");
        machine
    }

    /// A master that is initialised.
    pub fn master() -> Self {
        let machine = Machine::new();
        let output = machine.init(&machine.init_documents());
        assert!(output.status.success(), "{}", said(&output));
        machine
    }

    pub fn path(&self, absolute: &str) -> PathBuf {
        files::under(self.root.path(), absolute)
    }

    pub fn write(&self, absolute: &str, text: &str) {
        files::write(&self.path(absolute), text.as_bytes(), 0o600).expect("write");
    }

    pub fn script(&self, text: &str) {
        self.write("/etc/kubestrap-standin.yaml", text);
    }

    /// The quick script of tests with something more.
    pub fn script_with(&self, more: &str) {
        self.script(&format!("init_seconds: 0\njoin_seconds: 0\npoll_seconds: 0.02\n{more}\n"));
    }

    pub fn mode(&self, absolute: &str) -> u32 {
        std::fs::metadata(self.path(absolute)).unwrap_or_else(|e| panic!("{absolute}: {e}")).permissions().mode()
            & 0o777
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubeadm"));
        command.args(arguments).arg("--rootfs").arg(self.root.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run")
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn")
    }

    pub fn init(&self, documents: &str) -> Output {
        self.write("/etc/kubeadm.yaml", documents);
        self.run(&["init", "--config", "/etc/kubeadm.yaml", "--skip-token-print"])
    }

    pub fn join(&self, documents: &str) -> Output {
        self.write("/etc/kubeadm.yaml", documents);
        self.run(&["join", "--config", "/etc/kubeadm.yaml"])
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn pin(&self) -> String {
        pki::pin(&files::read_text(&self.path("/etc/kubernetes/pki/ca.crt")).expect("CA")).expect("pin")
    }

    pub fn init_documents(&self) -> String {
        self.init_documents_with_ttl("10m0s")
    }

    pub fn init_documents_with_ttl(&self, ttl: &str) -> String {
        let port = self.port;
        format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens:\n- token: {TOKEN}\n  ttl: {ttl}\n\
             nodeRegistration: {{name: master-0}}\nlocalAPIEndpoint: {{advertiseAddress: 127.0.0.1, bindPort: {port}}}\n\
             ---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: prod\n\
             controlPlaneEndpoint: 127.0.0.1:{port}\nkubernetesVersion: v1.36.1\n\
             ---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: systemd\n"
        )
    }

    /// What a worker joins this master with.
    pub fn join_documents(&self, name: &str) -> String {
        join_documents(name, TOKEN, &self.endpoint(), &self.pin())
    }

    pub fn call(&self, who: &Credentials, method: &str, path: &str, body: Option<(&str, &Value)>) -> Answer {
        let body = body.map(|(content_type, value)| (content_type, value.to_string().into_bytes()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(client::call(&self.endpoint(), who, method, path, body)).expect("an answer")
    }

    /// What the holder of a kubeconfig of this machine shows.
    pub fn credentials(&self, kubeconfig: &str) -> Credentials {
        Kubeconfig::read(&self.path(kubeconfig))
            .and_then(|config| config.credentials(self.root.path()))
            .expect(kubeconfig)
    }

    pub fn admin(&self) -> Credentials {
        self.credentials("/etc/kubernetes/admin.conf")
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call(&self.admin(), "GET", path, None)
    }
}

pub fn join_documents(name: &str, token: &str, endpoint: &str, pin: &str) -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken:\n    token: {token}\n\
         \x20   apiServerEndpoint: {endpoint}\n    caCertHashes: ['{pin}']\nnodeRegistration:\n  name: {name}\n\
         \x20 taints: [{{key: dedicated, value: web, effect: NoSchedule}}]\n  kubeletExtraArgs:\n\
         \x20 - {{name: node-labels, value: 'team=web,topology.kubernetes.io/zone=a'}}\n\
         \x20 - {{name: provider-id, value: 'aws:///a/i-1'}}\n  - {{name: cloud-provider, value: external}}\n\
         timeouts: {{discovery: 500ms, tlsBootstrap: 2s}}\n"
    )
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until something is so, at most five seconds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(5), "not within five seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
