//! Ports that answer every question with the same hostile bytes, and change nothing. Nothing waits: a sleep moves the
//! clock.

use async_trait::async_trait;
use jiff::Timestamp;
use kubestrap_core::gate::Open;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::node::Silent;
use kubestrap_core::ports::{
    ApiAnswer, ApiRequest, Cloud, Cluster, Condition, Deleted, ETag, ExpiryRule, Fetched, FileInfo, FileKind, Files,
    GroupInfo, Host, ImageInfo, ImageQuery, InstanceInfo, JobSpec, JobState, Jobs, KeyPage, LifecycleAnswer,
    LifecycleHook, LifecycleResult, Metadata, MetadataAnswer, Object, Objects, Reading, RegistryToken, TemplateInfo,
    TemplateVersion, Time, TokenRequest, ToolOutput, Written,
};
use kubestrap_core::world::{Ports, World};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// 2026-11-21T00:00:00Z: the corpora's dates lie around it.
const NOW: i64 = 1_795_219_200;
/// No future here waits for anything; one that is polled so often never ends.
const POLLS: usize = 100_000;

/// Answers with these bytes.
pub struct Echo {
    bytes: Vec<u8>,
    status: u16,
    slept: Cell<Duration>,
}

/// A world whose every answer is these bytes; API and metadata answer with this status.
pub fn world(bytes: &[u8], status: u16) -> World {
    let echo = Rc::new(Echo { bytes: bytes.to_vec(), status, slept: Cell::default() });
    let ports = Ports {
        objects: echo.clone(),
        files: echo.clone(),
        jobs: echo.clone(),
        metadata: echo.clone(),
        cloud: echo.clone(),
        cluster: echo.clone(),
        vault: Rc::new(kubestrap_core::ports::Nobody),
        etcd: Rc::new(kubestrap_core::ports::Nobody),
        host: echo.clone(),
        time: echo,
    };
    World::new(ports, Rc::new(Open), Rc::new(Silent))
}

/// The result of a future that never really waits.
///
/// # Panics
/// When it is still pending after very many polls: it hangs.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..POLLS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it never ends");
}

fn unchanged<T>() -> Outcome<T> {
    Err(Failure::new(Cause::Internal, "change something", "the fuzzer's world is read-only"))
}

#[async_trait(?Send)]
impl Objects for Echo {
    async fn get(&self, _key: &str, _known: Option<&ETag>) -> Outcome<Reading> {
        let object = Object { body: self.bytes.clone(), etag: ETag("\"fuzz\"".to_owned()), modified: Some(self.now()) };
        Ok(Reading { fetched: Fetched::Found(object), served_at: Some(self.now()) })
    }
    async fn put(&self, _key: &str, _body: Vec<u8>, _condition: Condition) -> Outcome<Written> {
        unchanged()
    }
    async fn delete(&self, _key: &str, _version: &ETag) -> Outcome<Deleted> {
        unchanged()
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage> {
        let key = format!("{prefix}fuzz/report.json");
        Ok(KeyPage { keys: if after.is_none() { vec![key] } else { Vec::new() }, more: false })
    }
    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        Ok(Vec::new())
    }
}

impl Files for Echo {
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        if self.bytes.len() as u64 > limit {
            let why = format!("it is larger than {limit} bytes");
            return Err(Failure::new(Cause::FileAccess, format!("read {}", path.display()), why));
        }
        Ok(Some(self.bytes.clone()))
    }
    fn stat(&self, _path: &Path) -> Outcome<Option<FileInfo>> {
        Ok(Some(FileInfo { kind: FileKind::File, mode: 0o600, uid: 0, len: self.bytes.len() as u64 }))
    }
    fn list(&self, _folder: &Path) -> Outcome<Vec<String>> {
        Ok(Vec::new())
    }
    fn write(&self, _path: &Path, _body: &[u8], _mode: u32) -> Outcome<()> {
        unchanged()
    }
    fn append(&self, _path: &Path, _body: &[u8], _mode: u32) -> Outcome<()> {
        unchanged()
    }
    fn remove(&self, _path: &Path) -> Outcome<()> {
        unchanged()
    }
}

#[async_trait(?Send)]
impl Jobs for Echo {
    async fn start(&self, _job: &JobSpec) -> Outcome<()> {
        unchanged()
    }
    async fn observe(&self, _name: &str) -> Outcome<JobState> {
        Ok(JobState::Absent)
    }
    async fn stop(&self, _name: &str) -> Outcome<()> {
        unchanged()
    }
    async fn output(&self, _name: &str, _limit: usize) -> Outcome<String> {
        Ok(String::from_utf8_lossy(&self.bytes).into_owned())
    }
    async fn forget(&self, _name: &str) -> Outcome<()> {
        unchanged()
    }
    async fn run(&self, _argv: &[String], _deadline: Duration) -> Outcome<ToolOutput> {
        let stdout = String::from_utf8_lossy(&self.bytes).into_owned();
        Ok(ToolOutput { code: Some(0), stdout, stderr: String::new() })
    }
}

#[async_trait(?Send)]
impl Metadata for Echo {
    async fn token(&self, _ttl: Duration) -> Outcome<MetadataAnswer> {
        Ok(MetadataAnswer { status: 200, body: self.bytes.clone() })
    }
    async fn get(&self, _path: &str, _token: &Secret) -> Outcome<MetadataAnswer> {
        Ok(MetadataAnswer { status: self.status, body: self.bytes.clone() })
    }
}

#[async_trait(?Send)]
impl Cloud for Echo {
    async fn instances(&self, _region: &str, _ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        Ok(Vec::new())
    }
    async fn credentials(&self) -> Outcome<String> {
        Ok("none".to_owned())
    }
    async fn registry_token(&self, _request: &TokenRequest) -> Outcome<RegistryToken> {
        let authorization = Secret::new(String::from_utf8_lossy(&self.bytes));
        Ok(RegistryToken { authorization, expires_at: None })
    }
    async fn images(&self, _region: &str, _query: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Ok(vec![ImageInfo {
            id: text.clone(),
            name: text.clone(),
            architecture: text.clone(),
            state: text.clone(),
            created_at: None,
            deprecated_at: None,
            owner: text.clone(),
            tags: BTreeMap::from([(text.clone(), text)]),
        }])
    }
    async fn parameter(&self, _region: &str, _name: &str) -> Outcome<Option<String>> {
        Ok(Some(String::from_utf8_lossy(&self.bytes).into_owned()))
    }
    async fn launch_template(&self, _region: &str, _of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        Ok(Some(TemplateInfo { version: 1, image: Some(String::from_utf8_lossy(&self.bytes).into_owned()) }))
    }
    async fn group_of(&self, _region: &str, _instance_id: &str) -> Outcome<Option<GroupInfo>> {
        Ok(None)
    }
    async fn terminate_in_group(&self, _region: &str, _instance_id: &str) -> Outcome<()> {
        unchanged()
    }
    async fn complete_lifecycle(
        &self,
        _region: &str,
        _hook: &LifecycleHook,
        _result: LifecycleResult,
    ) -> Outcome<LifecycleAnswer> {
        unchanged()
    }
    async fn heartbeat(&self, _region: &str, _hook: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        unchanged()
    }
}

#[async_trait(?Send)]
impl Cluster for Echo {
    async fn call(&self, _request: ApiRequest) -> Outcome<ApiAnswer> {
        Ok(ApiAnswer { status: self.status, body: self.bytes.clone() })
    }
}

impl Host for Echo {
    fn hostname(&self) -> Outcome<String> {
        Ok(String::from_utf8_lossy(&self.bytes).into_owned())
    }
    fn default_address(&self) -> Outcome<Option<IpAddr>> {
        Ok(None)
    }
    fn program(&self) -> Outcome<PathBuf> {
        Ok(PathBuf::from("/usr/bin/kubestrap"))
    }
}

#[async_trait(?Send)]
impl Time for Echo {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).unwrap_or_default() + self.slept.get()
    }
    fn uptime(&self) -> Duration {
        self.slept.get()
    }
    async fn sleep(&self, duration: Duration) {
        // A race against a deadline must not be won by the deadline: whoever sleeps is polled again first.
        let mut polls = 0;
        std::future::poll_fn(|_| {
            polls += 1;
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        self.slept.set(self.slept.get() + duration);
    }
    fn random(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}
