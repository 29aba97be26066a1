//! Brings released files into the cache: several at a time, verified on the way.

mod cache;
mod http;
#[cfg(test)]
mod tests;

pub use http::{Answer, Body, Http};

pub(crate) use cache::{broken, digest, hex, mismatch};
pub(crate) use http::{Trouble, get, shown};

use crate::catalog::Artifact;
use crate::progress::{Ended, Progress};
use crate::source::{Opened, Source};
use cache::{Cache, Turn, Unfinished};
use futures_util::{StreamExt, TryStreamExt, stream};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long, how often, how much, and how many at once.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Files at a time.
    pub parallel: usize,
    /// Attempts for a file; only what may pass (5xx, timeouts, broken connections) is tried again.
    pub attempts: u32,
    /// Before the second attempt; doubled each time, with jitter of up to a half.
    pub pause: Duration,
    /// The longest time without an answer or another piece of the body.
    pub stall: Duration,
    /// The longest time for a file, with all attempts.
    pub whole: Duration,
    /// The largest file, in bytes.
    pub bytes: u64,
}

impl Default for Limits {
    /// The largest file so far is the kubelet with 83 MB; the slowest link that is served has 60 kB/s for it.
    fn default() -> Limits {
        Limits {
            parallel: 4,
            attempts: 5,
            pause: Duration::from_secs(1),
            stall: Duration::from_secs(30),
            whole: Duration::from_secs(30 * 60),
            bytes: 512 * 1024 * 1024,
        }
    }
}

/// How often a file that another process writes is looked at.
const WAIT: Duration = Duration::from_millis(200);

/// A file of the cache whose content was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What it is.
    pub artifact: Artifact,
    /// Where it is.
    pub path: PathBuf,
}

/// Brings the files into `cache` (made when absent, 0700), in the order of `artifacts`. What is there and still has the
/// right content is not fetched again, so that a run goes on where another stopped. The first failure ends it.
pub async fn fetch(
    artifacts: &[Artifact],
    source: &Source<'_>,
    cache: &Path,
    http: &dyn Http,
    progress: &dyn Progress,
) -> Outcome<Vec<Fetched>> {
    fetch_within(&Limits::default(), artifacts, source, cache, http, progress).await
}

/// [`fetch`] with other limits.
pub async fn fetch_within(
    limits: &Limits,
    artifacts: &[Artifact],
    source: &Source<'_>,
    cache: &Path,
    http: &dyn Http,
    progress: &dyn Progress,
) -> Outcome<Vec<Fetched>> {
    source.check(artifacts)?;
    let cache = Cache::open(cache)?;
    let job = Job { limits, source, cache: &cache, http, progress };
    let all = artifacts.iter().map(|artifact| job.bring(artifact));
    stream::iter(all).buffered(limits.parallel.max(1)).try_collect().await
}

struct Job<'a> {
    limits: &'a Limits,
    source: &'a Source<'a>,
    cache: &'a Cache,
    http: &'a dyn Http,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    async fn bring(&self, artifact: &Artifact) -> Outcome<Fetched> {
        let what = artifact.title();
        let end = Instant::now() + self.limits.whole;
        let (path, how) = loop {
            match self.cache.turn(artifact)? {
                Turn::Have(path) => break (path, Ended::Cached),
                Turn::Write(file) => break (self.download(artifact, file, end).await?, Ended::Fetched),
                Turn::Wait if Instant::now() >= end => return Err(self.too_long(artifact)),
                Turn::Wait => sleep(WAIT).await,
            }
        };
        self.progress.end(&what, how);
        Ok(Fetched { artifact: artifact.clone(), path })
    }

    fn too_long(&self, artifact: &Artifact) -> Failure {
        let why = format!("it is not there after {} s", self.limits.whole.as_secs());
        Failure::new(Cause::Deadline, format!("fetch {} from {}", artifact.title(), self.source.place(artifact)), why)
    }

    /// Attempts until one succeeds, one fails for good, or there have been enough.
    async fn download(&self, artifact: &Artifact, mut file: Unfinished, end: Instant) -> Outcome<PathBuf> {
        let mut attempt = 1;
        let failure = loop {
            let trouble = match timeout_at(end, self.attempt(artifact, &mut file)).await {
                Ok(Ok(())) => return file.finish(artifact),
                Ok(Err(trouble)) => trouble,
                Err(_) => break self.too_long(artifact),
            };
            let why = match trouble {
                Trouble::Final(why) => break why,
                Trouble::Passing(why) => why,
            };
            if attempt >= self.limits.attempts {
                break Failure { detail: format!("{} (after {attempt} attempts)", why.detail), ..why };
            }
            let pause = jittered(self.limits.pause * 2_u32.saturating_pow(attempt - 1));
            self.progress.again(&artifact.title(), &why, pause);
            sleep(pause).await;
            file.restart()?;
            attempt += 1;
        };
        file.discard();
        Err(failure)
    }

    async fn attempt(&self, artifact: &Artifact, file: &mut Unfinished) -> Result<(), Trouble> {
        let what = artifact.title();
        let failed =
            |cause, why: String| Failure::new(cause, format!("fetch {what} from {}", self.source.place(artifact)), why);
        let Opened { length, mut body } = self.in_time(self.source.open(artifact, self.http), &failed).await?;
        let too_large = |bytes: u64| {
            let why = format!("it has {bytes} bytes or more, and {} are allowed", self.limits.bytes);
            Trouble::Final(failed(Cause::DownloadRejected, why))
        };
        if let Some(length) = length.filter(|length| *length > self.limits.bytes) {
            return Err(too_large(length));
        }
        self.progress.begin(&what, length);
        while let Some(bytes) = self.in_time(async { Ok(body.next().await?) }, &failed).await? {
            if file.written() + bytes.len() as u64 > self.limits.bytes {
                return Err(too_large(file.written() + bytes.len() as u64));
            }
            // A full disk is not waited for here: who runs this is told.
            file.write(&bytes).map_err(Trouble::Final)?;
            self.progress.advance(&what, file.written());
        }
        match length {
            Some(length) if length != file.written() => {
                let why = format!("the connection ended after {} of {length} bytes", file.written());
                Err(Trouble::Passing(failed(Cause::DownloadUnavailable, why)))
            }
            _ => Ok(()),
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Trouble>>,
        failed: &impl Fn(Cause, String) -> Failure,
    ) -> Result<T, Trouble> {
        timeout(self.limits.stall, work).await.unwrap_or_else(|_| {
            let why = format!("nothing came for {} s", self.limits.stall.as_secs_f32());
            Err(Trouble::Passing(failed(Cause::DownloadUnavailable, why)))
        })
    }
}

/// `pause` and up to half of it more: machines that were started together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() % 1024;
    pause + pause.mul_f64(chance as f64 / 2048.0)
}
