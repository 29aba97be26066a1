//! The world a node lives in: every port behind one gate.

use crate::gate::{Call, Gate, Method, pass, pass_sync};
use crate::model::cause::Outcome;
use crate::model::secret::Secret;
use crate::node::Observer;
use crate::ports::{
    Access, ApiAnswer, ApiRequest, Authorities, ClientRequest, Cloud, Cluster, Condition, DataKey, Deleted, ETag, Etcd,
    EtcdAccess, ExpiryRule, FileInfo, Files, GroupInfo, Host, ImageInfo, ImageQuery, InstanceInfo, JobSpec, JobState,
    Jobs, KeyAlgorithm, KeyPage, KeyPair, KmsRequest, LifecycleAnswer, LifecycleHook, LifecycleResult, Metadata,
    MetadataAnswer, Objects, Reading, RegistryToken, SealKey, TemplateInfo, TemplateVersion, Time, TokenRequest,
    ToolOutput, Vault, Written,
};
use async_trait::async_trait;
use std::cell::Cell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use zeroize::Zeroizing;

/// One request to the store. S3 answers in tens of milliseconds; ten seconds is a store in trouble.
const OBJECT_DEADLINE: Duration = Duration::from_secs(10);
/// One IMDS request; it is link-local.
const METADATA_DEADLINE: Duration = Duration::from_secs(3);
/// One request to EC2, ECR, Systems Manager or Auto Scaling; a listing may take some pages.
const CLOUD_DEADLINE: Duration = Duration::from_secs(20);
/// One Kubernetes API request; kubeadm's own is 60 s, but nothing we ask for is that slow.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(20);
/// One request to an etcd member; a change waits for a quorum.
const ETCD_DEADLINE: Duration = Duration::from_secs(10);
/// Starting or observing a job: systemd under load.
const JOB_DEADLINE: Duration = Duration::from_secs(30);

/// The adapters, before they are gated.
#[derive(Clone)]
pub struct Ports {
    /// The shared store.
    pub objects: Rc<dyn Objects>,
    /// Local files.
    pub files: Rc<dyn Files>,
    /// Programs.
    pub jobs: Rc<dyn Jobs>,
    /// IMDS.
    pub metadata: Rc<dyn Metadata>,
    /// EC2.
    pub cloud: Rc<dyn Cloud>,
    /// The Kubernetes API.
    pub cluster: Rc<dyn Cluster>,
    /// Keys, certificates, KMS.
    pub vault: Rc<dyn Vault>,
    /// etcd.
    pub etcd: Rc<dyn Etcd>,
    /// Facts about the machine.
    pub host: Rc<dyn Host>,
    /// Time and chance.
    pub time: Rc<dyn Time>,
}

/// Every port, behind the gate. The only way to get one is [`World::new`].
#[derive(Clone)]
pub struct World {
    /// The shared store.
    pub objects: Rc<dyn Objects>,
    /// Local files.
    pub files: Rc<dyn Files>,
    /// Programs.
    pub jobs: Rc<dyn Jobs>,
    /// IMDS.
    pub metadata: Rc<dyn Metadata>,
    /// EC2.
    pub cloud: Rc<dyn Cloud>,
    /// The Kubernetes API.
    pub cluster: Rc<dyn Cluster>,
    /// Keys, certificates, KMS.
    pub vault: Rc<dyn Vault>,
    /// etcd.
    pub etcd: Rc<dyn Etcd>,
    /// Facts about the machine.
    pub host: Rc<dyn Host>,
    /// Time and chance.
    pub time: Rc<dyn Time>,
    /// Whoever wants to know what happens.
    pub observer: Rc<dyn Observer>,
}

impl World {
    /// Puts the gate before every port.
    pub fn new(ports: Ports, gate: Rc<dyn Gate>, observer: Rc<dyn Observer>) -> Self {
        let gated = Rc::new(Gated { time: ports.time.clone(), gate, tickets: Cell::new(0), ports });
        World {
            objects: gated.clone(),
            files: gated.clone(),
            jobs: gated.clone(),
            metadata: gated.clone(),
            cloud: gated.clone(),
            cluster: gated.clone(),
            vault: gated.clone(),
            etcd: gated.clone(),
            host: gated.clone(),
            time: gated.time.clone(),
            observer,
        }
    }
}

struct Gated {
    ports: Ports,
    gate: Rc<dyn Gate>,
    time: Rc<dyn Time>,
    tickets: Cell<u64>,
}

impl Gated {
    fn ticket(&self) -> u64 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }

    async fn go<T>(&self, call: Call, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        pass(&*self.gate, &*self.time, self.ticket(), call, work).await
    }

    fn go_sync<T>(&self, call: &Call, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        pass_sync(&*self.gate, self.ticket(), call, work)
    }
}

fn reads(method: Method, subject: impl Into<String>, deadline: Option<Duration>) -> Call {
    Call { name: method.name(), subject: subject.into(), changes: false, deadline }
}

fn changes(method: Method, subject: impl Into<String>, deadline: Option<Duration>) -> Call {
    Call { name: method.name(), subject: subject.into(), changes: true, deadline }
}

#[async_trait(?Send)]
impl Objects for Gated {
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading> {
        self.go(reads(Method::ObjectsGet, key, Some(OBJECT_DEADLINE)), self.ports.objects.get(key, known)).await
    }

    async fn put(&self, key: &str, body: Vec<u8>, condition: Condition) -> Outcome<Written> {
        let call = changes(Method::ObjectsPut, key, Some(OBJECT_DEADLINE));
        match self.go(call, self.ports.objects.put(key, body, condition)).await {
            // A write that was cut off may have taken effect, and may still do so.
            Err(failure) if failure.cause == crate::model::cause::Cause::Deadline => Ok(Written::Unknown(failure)),
            answer => answer,
        }
    }

    async fn delete(&self, key: &str, version: &ETag) -> Outcome<Deleted> {
        let call = changes(Method::ObjectsDelete, key, Some(OBJECT_DEADLINE));
        match self.go(call, self.ports.objects.delete(key, version)).await {
            Err(failure) if failure.cause == crate::model::cause::Cause::Deadline => Ok(Deleted::Unknown(failure)),
            answer => answer,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage> {
        self.go(reads(Method::ObjectsList, prefix, Some(OBJECT_DEADLINE)), self.ports.objects.list(prefix, after)).await
    }

    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        self.go(reads(Method::ObjectsExpiryRules, "", Some(OBJECT_DEADLINE)), self.ports.objects.expiry_rules()).await
    }
}

impl Files for Gated {
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        self.go_sync(&reads(Method::FilesRead, path.to_string_lossy(), None), || self.ports.files.read(path, limit))
    }

    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>> {
        self.go_sync(&reads(Method::FilesStat, path.to_string_lossy(), None), || self.ports.files.stat(path))
    }

    fn list(&self, folder: &Path) -> Outcome<Vec<String>> {
        self.go_sync(&reads(Method::FilesList, folder.to_string_lossy(), None), || self.ports.files.list(folder))
    }

    fn write(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        self.go_sync(&changes(Method::FilesWrite, path.to_string_lossy(), None), || {
            self.ports.files.write(path, body, mode)
        })
    }

    fn append(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()> {
        let call = changes(Method::FilesAppend, path.to_string_lossy(), None);
        self.go_sync(&call, || self.ports.files.append(path, body, mode))
    }

    fn remove(&self, path: &Path) -> Outcome<()> {
        self.go_sync(&changes(Method::FilesRemove, path.to_string_lossy(), None), || self.ports.files.remove(path))
    }
}

#[async_trait(?Send)]
impl Jobs for Gated {
    async fn start(&self, job: &JobSpec) -> Outcome<()> {
        self.go(changes(Method::JobsStart, &job.name, Some(JOB_DEADLINE)), self.ports.jobs.start(job)).await
    }

    async fn observe(&self, name: &str) -> Outcome<JobState> {
        self.go(reads(Method::JobsObserve, name, Some(JOB_DEADLINE)), self.ports.jobs.observe(name)).await
    }

    async fn stop(&self, name: &str) -> Outcome<()> {
        self.go(changes(Method::JobsStop, name, Some(JOB_DEADLINE)), self.ports.jobs.stop(name)).await
    }

    async fn output(&self, name: &str, limit: usize) -> Outcome<String> {
        self.go(reads(Method::JobsOutput, name, Some(JOB_DEADLINE)), self.ports.jobs.output(name, limit)).await
    }

    async fn forget(&self, name: &str) -> Outcome<()> {
        self.go(changes(Method::JobsForget, name, Some(JOB_DEADLINE)), self.ports.jobs.forget(name)).await
    }

    async fn run(&self, argv: &[String], deadline: Duration) -> Outcome<ToolOutput> {
        // Only programs that look are run this way (versions, states); what changes something is a job.
        let call = reads(Method::JobsRun, argv.join(" "), Some(deadline + Duration::from_secs(1)));
        self.go(call, self.ports.jobs.run(argv, deadline)).await
    }
}

#[async_trait(?Send)]
impl Metadata for Gated {
    async fn token(&self, ttl: Duration) -> Outcome<MetadataAnswer> {
        self.go(reads(Method::MetadataToken, "", Some(METADATA_DEADLINE)), self.ports.metadata.token(ttl)).await
    }

    async fn get(&self, path: &str, token: &Secret) -> Outcome<MetadataAnswer> {
        self.go(reads(Method::MetadataGet, path, Some(METADATA_DEADLINE)), self.ports.metadata.get(path, token)).await
    }
}

#[async_trait(?Send)]
impl Cloud for Gated {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        let call = reads(Method::CloudInstances, format!("{region} {}", ids.join(",")), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.instances(region, ids)).await
    }

    async fn credentials(&self) -> Outcome<String> {
        self.go(reads(Method::CloudCredentials, "", Some(CLOUD_DEADLINE)), self.ports.cloud.credentials()).await
    }

    async fn registry_token(&self, request: &TokenRequest) -> Outcome<RegistryToken> {
        let call = reads(Method::CloudRegistryToken, request.api.to_string(), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.registry_token(request)).await
    }

    async fn images(&self, region: &str, query: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        let call = reads(Method::CloudImages, format!("{region} {query}"), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.images(region, query)).await
    }

    async fn parameter(&self, region: &str, name: &str) -> Outcome<Option<String>> {
        let call = reads(Method::CloudParameter, format!("{region} {name}"), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.parameter(region, name)).await
    }

    async fn launch_template(&self, region: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        let call = reads(Method::CloudLaunchTemplate, format!("{region} {of}"), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.launch_template(region, of)).await
    }

    async fn group_of(&self, region: &str, instance_id: &str) -> Outcome<Option<GroupInfo>> {
        let call = reads(Method::CloudGroupOf, format!("{region} {instance_id}"), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.group_of(region, instance_id)).await
    }

    async fn terminate_in_group(&self, region: &str, instance_id: &str) -> Outcome<()> {
        let call = changes(Method::CloudTerminateInGroup, format!("{region} {instance_id}"), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.terminate_in_group(region, instance_id)).await
    }

    async fn complete_lifecycle(
        &self,
        region: &str,
        hook: &LifecycleHook,
        result: LifecycleResult,
    ) -> Outcome<LifecycleAnswer> {
        let subject = format!("{region} {hook} {}", result.as_str());
        let call = changes(Method::CloudCompleteLifecycle, subject, Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.complete_lifecycle(region, hook, result)).await
    }

    async fn heartbeat(&self, region: &str, hook: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        let call = changes(Method::CloudHeartbeat, format!("{region} {hook}"), Some(CLOUD_DEADLINE));
        self.go(call, self.ports.cloud.heartbeat(region, hook)).await
    }
}

#[async_trait(?Send)]
impl Cluster for Gated {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        let path = request.path.split('?').next().unwrap_or_default();
        let through = match &request.access {
            Access::Kubeconfig(file) => file.to_string_lossy().into_owned(),
            Access::KubeconfigAt(file, server) => format!("{} at {server}", file.to_string_lossy()),
            Access::Unverified(endpoint) => endpoint.to_string(),
        };
        let subject = format!("{} {path} via {through}", request.method);
        let call = if request.method == "GET" {
            reads(Method::ClusterCall, subject, Some(CLUSTER_DEADLINE))
        } else {
            changes(Method::ClusterCall, subject, Some(CLUSTER_DEADLINE))
        };
        self.go(call, self.ports.cluster.call(request)).await
    }
}

#[async_trait(?Send)]
impl Vault for Gated {
    fn authorities(&self, algorithm: KeyAlgorithm, life: Duration) -> Outcome<Authorities> {
        self.go_sync(&reads(Method::VaultAuthorities, "", None), || self.ports.vault.authorities(algorithm, life))
    }

    fn client(&self, authority: &KeyPair, request: &ClientRequest) -> Outcome<KeyPair> {
        self.go_sync(&reads(Method::VaultClient, &request.user, None), || self.ports.vault.client(authority, request))
    }

    fn seal(&self, key: &SealKey, bound: &[u8], plain: &[u8]) -> Outcome<Vec<u8>> {
        self.go_sync(&reads(Method::VaultSeal, "", None), || self.ports.vault.seal(key, bound, plain))
    }

    fn open(&self, key: &SealKey, bound: &[u8], sealed: &[u8]) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        self.go_sync(&reads(Method::VaultOpen, "", None), || self.ports.vault.open(key, bound, sealed))
    }

    fn stretch(&self, passphrase: &Secret, salt: &[u8], rounds: u32) -> Outcome<SealKey> {
        self.go_sync(&reads(Method::VaultStretch, "", None), || self.ports.vault.stretch(passphrase, salt, rounds))
    }

    // A data key is not kept anywhere by KMS: asking for one changes nothing.
    async fn data_key(&self, request: &KmsRequest) -> Outcome<DataKey> {
        let call = reads(Method::VaultDataKey, &request.key_id, Some(CLOUD_DEADLINE));
        self.go(call, self.ports.vault.data_key(request)).await
    }

    async fn unwrap_key(&self, request: &KmsRequest, wrapped: &[u8]) -> Outcome<SealKey> {
        let call = reads(Method::VaultUnwrapKey, &request.key_id, Some(CLOUD_DEADLINE));
        self.go(call, self.ports.vault.unwrap_key(request, wrapped)).await
    }
}

/// What only reads, of etcd's API.
const ETCD_READS: &[&str] = &["/v3/cluster/member/list", "/v3/maintenance/status", "/v3/maintenance/alarm"];

#[async_trait(?Send)]
impl Etcd for Gated {
    async fn call(&self, access: &EtcdAccess, path: &'static str, body: Vec<u8>) -> Outcome<ApiAnswer> {
        let subject = format!("{} {path}", access.endpoint);
        let call = if ETCD_READS.contains(&path) {
            reads(Method::EtcdCall, subject, Some(ETCD_DEADLINE))
        } else {
            changes(Method::EtcdCall, subject, Some(ETCD_DEADLINE))
        };
        self.go(call, self.ports.etcd.call(access, path, body)).await
    }
}

impl Host for Gated {
    fn hostname(&self) -> Outcome<String> {
        self.go_sync(&reads(Method::HostHostname, "", None), || self.ports.host.hostname())
    }

    fn default_address(&self) -> Outcome<Option<IpAddr>> {
        self.go_sync(&reads(Method::HostDefaultAddress, "", None), || self.ports.host.default_address())
    }

    fn program(&self) -> Outcome<PathBuf> {
        self.go_sync(&reads(Method::HostProgram, "", None), || self.ports.host.program())
    }
}
