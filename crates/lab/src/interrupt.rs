//! Ctrl-C and SIGTERM: what is going on stops, its logs are collected, and the machines are removed.

use crate::folder::Folder;
use crate::{Result, attempted, fail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What is going on has this long to notice; logs of a dozen machines are collected meanwhile.
const GRACE: Duration = Duration::from_secs(30);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants this to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// To be asked before anything is made that would have to be removed, and while something is waited for.
///
/// # Errors
/// When somebody wants this to end.
pub fn check() -> Result<()> {
    if interrupted() { fail("interrupted") } else { Ok(()) }
}

/// Listens from now on. The first signal makes [`check`] fail; when that does not end the program in half a minute, or a
/// second signal comes, the machines are removed from here.
///
/// # Errors
/// When the thread cannot be started.
pub fn listen(folder: &Folder) -> Result<()> {
    let folder = folder.clone();
    // Handlers, not a mask: a mask would be inherited by every program that is started, and none could be interrupted.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = attempted(runtime, "listen for signals")?;
    let thread = std::thread::Builder::new().name("interrupt".to_owned());
    let started = thread.spawn(move || {
        if let Err(error) = runtime.block_on(wait()) {
            eprintln!("lab: cannot listen for Ctrl-C: {error}");
            return;
        }
        if let Err(error) = crate::lab::clean_up(&folder) {
            eprintln!("lab: {error}; `cargo xtask lab down` tries again");
        }
        std::process::exit(130);
    });
    attempted(started.map(drop), "listen for signals")
}

/// Returns when what is going on did not end by itself.
async fn wait() -> Result<()> {
    let (mut control_c, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! { _ = control_c.recv() => {}, _ = terminate.recv() => {} }
    eprintln!("\nlab: interrupted; collecting logs and removing the machines (once more: at once)");
    INTERRUPTED.store(true, Ordering::Relaxed);
    tokio::select! { _ = control_c.recv() => {}, _ = terminate.recv() => {}, () = tokio::time::sleep(GRACE) => {} }
    Ok(())
}
