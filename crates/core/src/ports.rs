//! The only way out of core. A port is cut low: an adapter makes **one attempt** and translates the answer; a loop, a
//! retry or a judgement belongs in core, so that the simulator tests our logic and not a copy of it.
//!
//! Every port is handed out wrapped in a [`crate::gate::Gate`] (see [`crate::world::World`]), which sees each call
//! before and after it. A method added here does not compile until it is wrapped there.

mod cloud;
mod pki;

pub use cloud::*;
pub use pki::*;

use crate::model::cause::{Failure, Outcome};
use crate::model::secret::Secret;
use async_trait::async_trait;
use jiff::Timestamp;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest object of the store protocol, in bytes.
pub const MAX_OBJECT: usize = 64 * 1024;

/// A version of an object, opaque and compared whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(pub String);

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// At most [`MAX_OBJECT`] bytes: an adapter stops reading there and fails with `ObjectRejected`.
    pub body: Vec<u8>,
    /// Its version.
    pub etag: ETag,
    /// Last-Modified, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The store says that there is no such object (S3: 404 NoSuchKey, never 403).
    Absent,
    /// It still has the ETag that was passed (304).
    Unchanged,
    /// Here it is.
    Found(Object),
}

/// A read with the store's own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What was found.
    pub fetched: Fetched,
    /// The Date header; `None` for stores without a clock of their own (a directory).
    pub served_at: Option<Timestamp>,
}

/// The condition of a write. There is no unconditional one: a write that timed out may land later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Only when there is none (`If-None-Match: *`).
    Absent,
    /// Only over this version (`If-Match`).
    Matches(ETag),
}

/// The answer to a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Done; the new version.
    Stored(ETag),
    /// The condition did not hold (412, or 404 for a replace).
    Refused,
    /// Nobody knows: time-out, 5xx, 409, a broken connection. It may also land later.
    Unknown(Failure),
}

/// The answer to a conditional delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, or was not there.
    Done,
    /// It has another version.
    Refused,
    /// Nobody knows.
    Unknown(Failure),
}

/// A page of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPage {
    /// Keys in ascending order, relative to the store.
    pub keys: Vec<String>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// A rule of the store that deletes objects by age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryRule {
    /// The rule's name.
    pub id: String,
    /// The keys it applies to, relative to the bucket: a prefix, possibly empty.
    pub prefix: String,
    /// Age in days, when it is given in days.
    pub days: Option<u32>,
}

/// The shared store: an S3 bucket and prefix, or a directory. Keys are relative to it (`prod/cluster.json`).
#[async_trait(?Send)]
pub trait Objects {
    /// Reads an object; with `known`, answers [`Fetched::Unchanged`] when it still has that version.
    ///
    /// `Err` for anything but a clear answer; a 403 is `AccessDenied`, never absent.
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading>;
    /// Writes under a condition. `Err` only for what certainly did not take effect (denied, no such bucket, no
    /// connection was made); everything doubtful is [`Written::Unknown`].
    async fn put(&self, key: &str, body: Vec<u8>, condition: Condition) -> Outcome<Written>;
    /// Deletes that version.
    async fn delete(&self, key: &str, version: &ETag) -> Outcome<Deleted>;
    /// One page of keys with this prefix, after `after`.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage>;
    /// Rules that delete objects by age, for `doctor`; empty where there is no such thing.
    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>>;
}

/// What is known of a path without reading it. Symbolic links are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (`0o600`).
    pub mode: u32,
    /// Owner's user id.
    pub uid: u32,
    /// Size in bytes.
    pub len: u64,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket, a device, a pipe.
    Other,
}

/// The machine's files; synchronous, for they are small and local. Paths are absolute on the node.
pub trait Files {
    /// The content of a regular file of at most `limit` bytes; `None` when there is none.
    fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>>;
    /// What is at the path; `None` when there is nothing.
    fn stat(&self, path: &Path) -> Outcome<Option<FileInfo>>;
    /// Names in a folder, sorted; empty when there is no folder.
    fn list(&self, folder: &Path) -> Outcome<Vec<String>>;
    /// Replaces a file atomically and durably (temporary file, fsync, rename, fsync of the folder); missing folders
    /// are made with mode 0700. `mode` is set before the first byte is written.
    fn write(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()>;
    /// Appends durably (fsync); makes the file with this mode.
    fn append(&self, path: &Path, body: &[u8], mode: u32) -> Outcome<()>;
    /// Removes a file; nothing happens when there is none.
    fn remove(&self, path: &Path) -> Outcome<()>;
}

/// A named process that outlives the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// Unit-like name (`kubeadm-init`): two jobs of one name never run at the same time.
    pub name: String,
    /// Tells this run from an earlier one of the same name; returned by `observe`.
    pub run: String,
    /// The program, looked up in PATH, and its arguments. Secrets are never among them.
    pub argv: Vec<String>,
    /// It is killed after this long.
    pub deadline: Duration,
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Nothing of that name was started since boot, or it was forgotten, or it died without a trace (power loss).
    Absent,
    /// It runs.
    Running {
        /// [`JobSpec::run`].
        run: String,
    },
    /// It ended.
    Ended {
        /// [`JobSpec::run`].
        run: String,
        /// How.
        end: JobEnd,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Its deadline passed and it was killed.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
}

/// The answer of a short program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// At most 64 KiB of each stream; may contain secrets: redact before copying.
    pub stdout: String,
    /// Likewise.
    pub stderr: String,
}

/// Programs.
#[async_trait(?Send)]
pub trait Jobs {
    /// Starts a job. When one of that name already runs nothing is started, and that is not an error: `observe` tells
    /// whose run it is. Its output goes to a file of mode 0600.
    async fn start(&self, job: &JobSpec) -> Outcome<()>;
    /// Where the job of that name stands.
    async fn observe(&self, name: &str) -> Outcome<JobState>;
    /// Kills the job of that name and whatever belongs to it; returns when it has ended. Nothing happens when it does
    /// not run.
    async fn stop(&self, name: &str) -> Outcome<()>;
    /// The last bytes of its output, at most `limit`; may contain secrets.
    async fn output(&self, name: &str, limit: usize) -> Outcome<String>;
    /// Removes what is kept about an ended job; nothing happens when there is none.
    async fn forget(&self, name: &str) -> Outcome<()>;
    /// Runs a short program to its end, or to its deadline (killed, `ToolHung`). `ToolMissing` when it is not found.
    async fn run(&self, argv: &[String], deadline: Duration) -> Outcome<ToolOutput>;
}

/// An answer of the instance metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataAnswer {
    /// HTTP status; 404 is a normal answer for most paths.
    pub status: u16,
    /// The body, at most 64 KiB; user-data may be gzip.
    pub body: Vec<u8>,
}

/// The instance metadata service, version 2 only. `Err` when nobody answers.
#[async_trait(?Send)]
pub trait Metadata {
    /// `PUT /latest/api/token` with this time to live (at most 6 h).
    async fn token(&self, ttl: Duration) -> Outcome<MetadataAnswer>;
    /// `GET /latest/<path>` with the token.
    async fn get(&self, path: &str, token: &Secret) -> Outcome<MetadataAnswer>;
}

/// How to speak to an API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Access {
    /// With a kubeconfig of this machine: server, CA and credentials come from it. Read anew when the file changed.
    Kubeconfig(PathBuf),
    /// With the same, to another server than the one it names: a master asks the API server on itself.
    KubeconfigAt(PathBuf, crate::model::names::Endpoint),
    /// Without credentials and **without verifying the server's certificate**, for reachability only (`/healthz`,
    /// `cluster-info`); nothing that comes back may be trusted.
    Unverified(crate::model::names::Endpoint),
}

/// A request to the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// How to speak to it.
    pub access: Access,
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// With its content type.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// An answer of the Kubernetes API, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body, at most 4 MiB.
    pub body: Vec<u8>,
}

/// The Kubernetes API. `Err` only when there was no HTTP answer.
#[async_trait(?Send)]
pub trait Cluster {
    /// One request.
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer>;
}

/// Facts about the machine that are not in files.
pub trait Host {
    /// The host name.
    fn hostname(&self) -> Outcome<String>;
    /// The source address of the default route (IPv4 first, then IPv6); `None` without one.
    fn default_address(&self) -> Outcome<Option<IpAddr>>;
    /// The absolute path of this program's own file, below the root when there is one: what others are to start.
    fn program(&self) -> Outcome<PathBuf>;
}

/// Time and chance. Not gated: it changes nothing outside.
#[async_trait(?Send)]
pub trait Time {
    /// The wall clock. It may be wrong and may jump.
    fn now(&self) -> Timestamp;
    /// Time since boot: what intervals are measured with.
    fn uptime(&self) -> Duration;
    /// Sleeps at least this long.
    async fn sleep(&self, duration: Duration);
    /// Fills the buffer with random bytes.
    fn random(&self, buffer: &mut [u8]);
}
