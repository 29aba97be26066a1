//! The state directory: one process at a time.

use super::{Global, trust};
use crate::adapters::durable;
use crate::adapters::killpoint::{Point, cross};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The records of jobs, which have locks of their own: a wrapper may be writing there.
const JOBS: &str = "/var/lib/kubestrap/jobs";
/// Where the agent writes more; what a dead one left there may be a login of ECR.
const ELSEWHERE: [&str; 2] = ["/etc/kubernetes/kubestrap", "/etc/containerd/certs.d"];
/// Locked for as long as an agent lives; removed by nobody.
const LOCK: &str = "/var/lib/kubestrap/lock";

/// The lock of a state directory; released when it is dropped, or when the process dies in whatever way.
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Lock {
    /// Takes it. `Busy` when another process has it.
    pub fn take(global: &Global) -> Outcome<Lock> {
        let attempted = || format!("lock {LOCK}");
        let access = |error: std::io::Error| io_failure(attempted(), &error);
        let path = global.below_root(Path::new(LOCK));
        if let Some(folder) = path.parent() {
            // Looked at before it is made, for making follows a link; and then it is ours.
            trust::refuse_unsafe(folder)?;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(access)?;
            cross(Point::StateFolderMade, folder);
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&path).map_err(access)?;
        cross(Point::StateLockOpened, &path);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                cross(Point::StateLocked, &path);
                // For people only: who holds it is known by the lock. A full disk must not keep us out.
                let _ = lock.set_len(0).and_then(|()| {
                    cross(Point::StateLockEmptied, &path);
                    (&*lock).write_all(std::process::id().to_string().as_bytes())
                });
                cross(Point::StateLockNamed, &path);
                durable::sweep_dead(durable::folder_of(&path), &global.below_root(Path::new(JOBS)));
                for folder in ELSEWHERE {
                    durable::sweep_dead(&global.below_root(Path::new(folder)), Path::new(""));
                }
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
