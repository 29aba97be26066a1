//! systemd's notification protocol (sd_notify(3)): READY, STATUS, EXTEND_TIMEOUT_USEC, WATCHDOG, STOPPING.
//!
//! Without NOTIFY_SOCKET nothing is sent. A notification that cannot be delivered is only logged: systemd will draw
//! its own conclusions.

use kubestrap_core::model::report::Phase;
use kubestrap_core::node::{Event, Observer};
use sd_notify::NotifyState;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How often systemd is asked for more time while the machine is not a node yet.
pub const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// How much it is asked for; six times the interval, for a machine that is busy pulling images.
const EXTEND_BY: Duration = Duration::from_secs(60);

/// Tells systemd.
#[derive(Default)]
pub struct Notify {
    ready: Cell<bool>,
    status: RefCell<String>,
}

impl Notify {
    /// Asks for more time to start; call it every [`EXTEND_EVERY`]. Nothing happens once READY was sent.
    ///
    /// It is sent from the one thread that also does the work, so an agent that hangs is not extended.
    pub fn extend(&self) {
        if !self.ready.get() {
            let micros = u32::try_from(EXTEND_BY.as_micros()).unwrap_or(u32::MAX);
            send(&[NotifyState::ExtendTimeoutUsec(micros)]);
        }
    }

    /// Says what is waited for before there is a node that could say it.
    pub fn waiting(&self, for_what: &str) {
        self.status(format!("waiting for {for_what}"));
    }

    fn status(&self, text: String) {
        if *self.status.borrow() != text {
            send(&[NotifyState::Status(&text)]);
            *self.status.borrow_mut() = text;
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

impl Observer for Notify {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Phase(Phase::Ready) => {
                self.status("node is ready; duties run".to_owned());
                if !self.ready.replace(true) {
                    send(&[NotifyState::Ready]);
                }
            }
            Event::Phase(Phase::Stopped) => send(&[NotifyState::Stopping]),
            Event::StepStarted { step, .. } => self.status(format!("{step}: working")),
            Event::Waiting { step, for_what } => self.status(format!("{step}: waiting for {for_what}")),
            // What a machine waits for to become a node is not hidden by a duty that fails meanwhile; the log has both.
            Event::Retrying { beside: true, .. } if !self.ready.get() => {}
            Event::Retrying { what, failure, .. } => self.status(format!("{what}: {}", failure.detail)),
            // A duty that failed and is well again leaves no stale complaint.
            Event::DutyTicked { result: Ok(()), .. } if self.ready.get() => {
                self.status("node is ready; duties run".to_owned());
            }
            Event::Alive => send(&[NotifyState::Watchdog]),
            _ => {}
        }
    }
}
