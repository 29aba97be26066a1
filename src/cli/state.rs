//! The state directory: one process at a time, and bound to the machine that made it.

use super::Global;
use kubestrap_core::journal::STATE_FOLDER;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::node::Node;
use kubestrap_core::ports::Files;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Locked for as long as an agent lives; removed by nobody.
const LOCK: &str = "/var/lib/kubestrap/lock";
/// Whose state this is.
const OWNER: &str = "/var/lib/kubestrap/identity.json";

/// The lock of a state directory; released when it is dropped, or when the process dies in whatever way.
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Lock {
    /// Takes it. `Busy` when another process has it.
    pub fn take(global: &Global) -> Outcome<Lock> {
        let attempted = || format!("lock {LOCK}");
        let access = |error: std::io::Error| io_failure(attempted(), &error);
        let path = global.below_root(Path::new(LOCK));
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(access)?;
        }
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(access)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                // For people only: who holds it is known by the lock. A full disk must not keep us out.
                let _ = lock.set_len(0).and_then(|()| (&*lock).write_all(std::process::id().to_string().as_bytes()));
                Ok(Lock(lock))
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let who = holder.parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
                Err(Failure::new(Cause::Busy, attempted(), format!("another kubestrap{who} works on this machine")))
            }
            Err((_, errno)) => Err(io_failure(attempted(), &errno.into())),
        }
    }

    /// Whether an agent holds it. Nothing is made.
    pub fn is_held(global: &Global) -> bool {
        let file = File::options().write(true).open(global.below_root(Path::new(LOCK)));
        file.is_ok_and(|file| matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK))))
    }
}

fn io_failure(attempted: String, error: &std::io::Error) -> Failure {
    let cause = match error.kind() {
        std::io::ErrorKind::StorageFull => Cause::DiskFull,
        _ => Cause::FileAccess,
    };
    Failure::new(cause, attempted, error.to_string())
}

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    schema: u32,
    identity: String,
}

/// Binds the state to this machine the first time, and refuses another machine's afterwards (a cloned disk): with it
/// would come the journal, which is the proof for resets.
pub fn bind(node: &Node) -> Outcome<()> {
    bind_files(&*node.world.files, &node.identity.key())
}

fn bind_files(files: &dyn Files, identity: &str) -> Outcome<()> {
    let attempted = || format!("use the state in {STATE_FOLDER}");
    match files.read(Path::new(OWNER), 64 * 1024)? {
        None => {
            let owner = Owner { schema: 1, identity: identity.to_owned() };
            let body = serde_json::to_vec(&owner)
                .map_err(|error| Failure::new(Cause::Internal, attempted(), error.to_string()))?;
            files.write(Path::new(OWNER), &body, 0o600)
        }
        Some(body) => match serde_json::from_slice::<Owner>(&body) {
            Ok(owner) if owner.identity == identity => Ok(()),
            Ok(owner) => {
                let why = format!("it belongs to {}, and this machine is {identity}", owner.identity);
                Err(Failure::new(Cause::ClonedState, attempted(), why))
            }
            Err(error) => {
                let why = format!("{OWNER} is damaged: {error}");
                Err(Failure::new(Cause::ClonedState, attempted(), why))
            }
        },
    }
}
