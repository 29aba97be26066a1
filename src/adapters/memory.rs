//! Our memory holds tokens, keys and cloud credentials: a crash must not write them to a disk or to a crash handler.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use std::os::unix::fs::MetadataExt;

/// What of a process's memory a core dump has, one bit for each kind of mapping (core(5)); kept by exec, inherited.
const DUMPED_MAPPINGS: &str = "/proc/self/coredump_filter";

/// From here on a crash of this process, or of a kubeadm that it starts, leaves no core dump. Call it first.
///
/// Three settings, for none is enough: the limit counts for files only, not for a handler behind a pipe
/// (`kernel.core_pattern`), which for that gets a dump without any mapping; and systemd-coredump writes even then the
/// environment of the dead, with `AWS_SECRET_ACCESS_KEY` in it, to the journal. It is never started for a process that
/// is not dumpable, but that ends with exec: the other two go on to what we start.
///
/// What fails is left as it is: a sandbox may forbid a call, and `LimitCORE=0` of the service says the same.
pub fn never_dump() {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = std::fs::write(DUMPED_MAPPINGS, "0");
    // The folder in /proc of such a process is root's. For another user that would be the end of everything that looks
    // at its own processes there, and that user may read the memory by other means.
    let root = std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0);
    if root {
        let _ = prctl::set_dumpable(false);
    }
}
