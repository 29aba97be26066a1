//! Short programs, run to their end.

use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::ToolOutput;
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is kept of each stream, in bytes.
const KEPT: usize = 64 * 1024;
/// What a child may know of our environment: never credentials, never configuration.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What of our environment is [`PASSED`]; a value that is not UTF-8 is not.
pub(super) fn passed() -> impl Iterator<Item = (String, String)> {
    PASSED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
}

/// Leaves only [`PASSED`] of the environment.
pub(super) fn minimal_environment(command: &mut Command) {
    command.env_clear().envs(passed());
}

pub(super) async fn run(argv: &[String], deadline: Duration) -> Outcome<ToolOutput> {
    let attempted = format!("run `{}`", argv.join(" "));
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Failure::new(Cause::Internal, "run a program", "none was named"));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    minimal_environment(&mut command);
    let spawned = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(Cause::ToolMissing, &attempted, format!("{program} is not installed")),
        _ => Failure::new(Cause::ToolFailed, &attempted, error.to_string()),
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (stdout, stderr) = futures_util::future::join(read(stdout), read(stderr)).await;
        let status = child.wait().await?;
        Ok::<_, std::io::Error>(ToolOutput { code: status.code(), stdout: stdout?, stderr: stderr? })
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result.map_err(|error| Failure::new(Cause::ToolFailed, &attempted, error.to_string())),
        Err(_) => {
            let why = format!("it did not end within {} s and was killed", deadline.as_secs());
            Err(Failure::new(Cause::ToolHung, &attempted, why))
        }
    }
}

/// Reads to the end, so that the writer never blocks, and keeps the beginning.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        let room = KEPT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}
