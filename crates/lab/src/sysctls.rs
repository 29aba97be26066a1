//! Settings of the whole kernel that machines change, or that must change for them; put back when the lab goes.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a kubelet sets (`protectKernelDefaults: false`), saved and put back.
const TOUCHED: &[&str] = &["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
/// What a dozen machines need: each systemd, containerd and kubelet takes some inotify instances, and all belong to the
/// same user. The least value that is enough.
const RAISED: &[(&str, u64)] = &[("fs/inotify/max_user_instances", 8192), ("fs/inotify/max_user_watches", 524_288)];

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

fn read(name: &str) -> Option<String> {
    Some(std::fs::read_to_string(path(name)).ok()?.trim().to_owned())
}

/// All of them as they are now. What this kernel does not have is left out.
pub fn now() -> BTreeMap<String, String> {
    let names = TOUCHED.iter().copied().chain(RAISED.iter().map(|(name, _)| *name));
    names.filter_map(|name| Some((name.to_owned(), read(name)?))).collect()
}

/// Raises what is too low. A setting that may not be written is left: fewer machines will fit.
pub fn raise() {
    for (name, least) in RAISED {
        if read(name).and_then(|value| value.parse::<u64>().ok()).is_some_and(|value| value < *least) {
            let _ = std::fs::write(path(name), least.to_string());
        }
    }
}

/// Puts them back.
pub fn restore(saved: &BTreeMap<String, String>) {
    for (name, value) in saved {
        if read(name).as_ref() != Some(value) {
            let _ = std::fs::write(path(name), value);
        }
    }
}
