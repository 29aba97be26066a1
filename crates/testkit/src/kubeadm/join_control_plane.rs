//! What `kubeadm join` does more on a control plane: preflight, control-plane-prepare, check-etcd, etcd-join,
//! control-plane-join and wait-control-plane (`cmd/phases/join/`).

use super::config::{self, InitInput};
use super::documents::{InitConfiguration, JoinConfiguration, JoinControlPlane};
use super::etcd_client::{Etcd, Limits};
use super::init_api::{self, local_health, taint};
use super::{Failure, Kubeconfig, Run, certs, init, manifests, preflight};
use crate::client;
use crate::etcd::Place;
use serde_json::Value;
use tokio::runtime::Runtime;

const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// A machine that becomes a control plane.
pub struct ControlPlane<'a> {
    run: &'a Run,
    join: &'a JoinConfiguration,
    runtime: &'a Runtime,
    input: InitInput,
}

impl<'a> ControlPlane<'a> {
    /// With the cluster's configuration, which discovery has read.
    ///
    /// # Errors
    /// When that is not one.
    pub fn new(
        run: &'a Run,
        join: &'a JoinConfiguration,
        own: &JoinControlPlane,
        runtime: &'a Runtime,
        cluster: &Value,
        kubelet: &Value,
    ) -> Result<Self, Failure> {
        let init = InitConfiguration {
            node_registration: join.node_registration.clone(),
            local_api_endpoint: own.local_api_endpoint.clone(),
            timeouts: join.timeouts.clone(),
            ..InitConfiguration::default()
        };
        let cluster = config::cluster(cluster, &run.script.kubeadm_version)?;
        let input = InitInput { init, cluster, kubelet: kubelet.clone(), kube_proxy: Value::Null };
        Ok(ControlPlane { run, join, runtime, input })
    }

    /// `address:port` of this machine's API server.
    pub fn local_endpoint(&self) -> String {
        init::local_endpoint(&self.input)
    }

    /// The checks that need the cluster's configuration.
    ///
    /// # Errors
    /// What is missing, and what is in the way.
    pub fn preflight(&self) -> Result<(), Failure> {
        let ready = if self.input.cluster.control_plane_endpoint.is_empty() {
            Err("unable to add a new control plane instance to a cluster that doesn't have a stable \
                 controlPlaneEndpoint address"
                .to_owned())
        } else {
            certs::shared_exist(self.run, &self.input)
        };
        ready.map_err(|why| {
            Failure::new(format!(
                "\nOne or more conditions for hosting a new control plane instance is not satisfied.\n\n{why}\n\nPlease \
                 ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must \
                 be shared among control plane instances are provided.\n\n"
            ))
        })?;
        println!("[preflight] Running pre-flight checks before initializing the new control plane instance");
        preflight::further_control_plane(self.run, &self.input)?;
        println!("[preflight] Pulling images required for setting up a Kubernetes cluster");
        Ok(())
    }

    /// `control-plane-prepare`: certificates, kubeconfigs, and manifests without etcd's.
    ///
    /// # Errors
    /// When an authority is not there, or not one.
    pub fn prepare(&self) -> Result<(), Failure> {
        let run = self.run;
        run.phase("control-plane-prepare/certs", || certs::make(run, &self.input))?;
        run.phase("control-plane-prepare/kubeconfig", || {
            println!(
                "[kubeconfig] Generating kubeconfig files\n[kubeconfig] Using kubeconfig folder \"/etc/kubernetes\""
            );
            init::kubeconfigs(run, &self.input, &["admin", "controller-manager", "scheduler"])
                .map_err(|failure| Failure::new(format!("error generating kubeconfig files: {}", failure.message)))
        })?;
        run.phase("control-plane-prepare/control-plane", || manifests::control_plane(run, &self.input))
    }

    fn admin(&self) -> Result<Kubeconfig, Failure> {
        Kubeconfig::read(&self.run.path(ADMIN)).map_err(|e| {
            Failure::new(format!("couldn't create Kubernetes client: failed to load admin kubeconfig: {e}"))
        })
    }

    fn etcd(&self) -> Result<Etcd<'_>, Failure> {
        let limits = Limits::of(self.run, self.join.timeouts.as_ref());
        Etcd::from_cluster(self.run, self.runtime, &self.admin()?, limits)
    }

    /// `check-etcd`.
    ///
    /// # Errors
    /// When a majority of the members does not answer.
    pub fn check_etcd(&self) -> Result<(), Failure> {
        println!("[check-etcd] Checking that the etcd cluster is healthy");
        let healthy = self.etcd()?.check_health();
        healthy.map_err(|why| Failure::new(format!("etcd cluster is not healthy: {why}")))
    }

    /// `etcd-join`: a learner is announced, started and promoted.
    ///
    /// # Errors
    /// When etcd refuses, or the learner does not start in time.
    pub fn join_etcd(&self) -> Result<(), Failure> {
        let of = |why: String| Failure::new(format!("error creating local etcd static pod manifest file: {why}"));
        let run = self.run;
        let peer = manifests::etcd_url(&self.input, 2380);
        let etcd = self.etcd().map_err(|failure| of(failure.message))?;
        run.enter("etcd-join/add")?;
        let members = etcd.add_learner(&peer).map_err(of)?;
        run.leave("etcd-join/add")?;
        println!("[etcd] Announced new etcd member joining to the existing etcd cluster");
        println!("[etcd] Creating static Pod manifest for \"etcd\"");
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let name = |member: &Value| {
            let own = (member["peerURLs"][0] == peer.as_str()).then(|| self.input.init.node_registration.name.clone());
            own.or_else(|| text(&member["name"])).or_else(|| text(&member["ID"])).unwrap_or_default()
        };
        let others: Vec<String> = members
            .iter()
            .map(|member| format!("{}={}", name(member), member["peerURLs"][0].as_str().unwrap_or_default()))
            .collect();
        Place::at(&etcd.share().map_err(of)?).adopt(&run.root)?;
        run.enter("etcd-join/start")?;
        manifests::etcd(run, &self.input, &others)?;
        std::fs::create_dir_all(init::etcd_folder(run, &self.input).join("member"))?;
        init_api::start_server(run)?;
        run.leave("etcd-join/start")?;
        run.enter("etcd-join/promote")?;
        let id = etcd.member_id(&peer).map_err(of)?.ok_or_else(|| of("no member id found for peer URL".to_owned()))?;
        etcd.promote(&id).map_err(of)?;
        run.leave("etcd-join/promote")?;
        println!("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s");
        let unavailable = |_| of("timeout waiting for etcd cluster to be available".to_owned());
        etcd.check_health().map_err(unavailable)
    }

    /// Waits until this machine's API server answers, as a kubelet does that has nobody else to ask.
    ///
    /// # Errors
    /// When it does not within the time of the TLS bootstrap.
    pub fn wait_local(&self) -> Result<(), Failure> {
        let given = self.join.timeouts.as_ref().and_then(|t| t.tls_bootstrap.as_deref());
        let limit = self.run.timeout(given, std::time::Duration::from_secs(300));
        local_health(self.runtime, &self.local_endpoint(), &self.admin()?.ca, limit)
            .map_err(|_| Failure::new("failed while waiting for TLS bootstrap: context deadline exceeded"))
    }

    /// `control-plane-join/mark-control-plane`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn mark(&self) -> Result<(), Failure> {
        let node = &self.input.init.node_registration;
        println!("[mark-control-plane] Marking the node {} as control-plane", node.name);
        let taints: Vec<Value> = node.taints.iter().flatten().map(taint).collect();
        let patch = init_api::marks(&taints);
        let of = |why: String| Failure::new(format!("error applying control-plane label and taints: {why}"));
        let admin = self.admin()?;
        let (path, shown) = (format!("/api/v1/nodes/{}", node.name), admin.credentials(&self.run.root)?);
        let body = Some(("application/merge-patch+json", patch.to_string().into_bytes()));
        let limit = Limits::of(self.run, self.join.timeouts.as_ref()).api;
        let asked = client::patiently(admin.endpoint(), &shown, "PATCH", &path, body, limit);
        let answer = self.runtime.block_on(asked);
        let answer = answer.map_err(|e| of(e.to_string()))?;
        if answer.status == 200 { Ok(()) } else { Err(of(answer.message())) }
    }

    /// `wait-control-plane`.
    ///
    /// # Errors
    /// When the API server of this machine does not get healthy in time.
    pub fn wait(&self) -> Result<(), Failure> {
        let given = self.join.timeouts.as_ref().and_then(|t| t.control_plane_component_health_check.as_deref());
        let limit = self.run.timeout(given, init_api::HEALTH_TIMEOUT);
        local_health(self.runtime, &self.local_endpoint(), &self.admin()?.ca, limit)
    }
}

/// What is printed at the end.
pub fn print_done() {
    println!(
        "\nThis node has joined the cluster and a new control plane instance was created:\n\n* Certificate signing \
         request was sent to apiserver and approval was received.\n* The Kubelet was informed of the new secure \
         connection details.\n* Control plane label and taint were applied to the new node.\n* The Kubernetes control \
         plane instances scaled up.\n* A new etcd member was added to the local/stacked etcd cluster.\n"
    );
}

/// `remove-etcd-member` of `kubeadm reset`: what it can find out with the files of this machine and its API server.
/// The real one warns and goes on when it cannot, and so does this.
///
/// # Errors
/// Why the member stays.
pub fn leave_etcd(run: &Run) -> Result<(), String> {
    if Place::of(&run.root).cluster().is_ok_and(|cluster| cluster.members.len() < 2) {
        // The only one is not removed, and need not be asked.
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let admin = Kubeconfig::read(&run.path(ADMIN)).map_err(|e| e.to_string())?;
    let shown = admin.credentials(&run.root).map_err(|e| e.to_string())?;
    let get = |path: &str| {
        let answer = runtime.block_on(client::call(admin.endpoint(), &shown, "GET", path, None));
        let answer = answer.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.message()) }
    };
    get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
        .map_err(|why| format!("failed to get config map: {why}"))?;
    let kubelet = Kubeconfig::read(&run.path("/etc/kubernetes/kubelet.conf"))
        .map_err(|why| format!("failed to get node registration: {why}"))?;
    let node = kubelet.node_name(&run.root).map_err(|why| format!("failed to get node registration: {why}"))?;
    let pod = get(&format!("/api/v1/namespaces/kube-system/pods/kube-apiserver-{node}"))
        .map_err(|why| format!("failed to getAPIEndpoint: {why}"))?;
    let local = pod["metadata"]["annotations"][manifests::API_ANNOTATION].as_str().unwrap_or_default();
    let host = local.rsplit_once(':').map_or(local, |(host, _)| host);
    let peer = format!("https://{host}:2380");
    let limits = Limits::of(run, None);
    let etcd = Etcd::from_cluster(run, &runtime, &admin, limits).map_err(|failure| failure.message)?;
    match etcd.member_id(&peer)? {
        Some(id) => etcd.remove(&id),
        None => Ok(()),
    }
}

/// The phases that `--skip-phases` may name.
pub const PHASES: [&str; 13] = [
    "preflight",
    "control-plane-prepare",
    "control-plane-prepare/download-certs",
    "control-plane-prepare/certs",
    "control-plane-prepare/kubeconfig",
    "control-plane-prepare/control-plane",
    "check-etcd",
    "kubelet-start",
    "etcd-join",
    "kubelet-wait-bootstrap",
    "control-plane-join",
    "control-plane-join/mark-control-plane",
    "wait-control-plane",
];
