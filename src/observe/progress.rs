//! The live line on a terminal: what the node does right now, and for how long.

use crate::observe::screen::Screen;
use crate::observe::text::clock;
use kubestrap_core::model::report::Phase;
use kubestrap_core::node::{Event, Observer};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Draws the live line. Nothing happens when standard error is not a terminal.
pub struct Progress {
    screen: Screen,
    now: RefCell<Option<Now>>,
}

struct Now {
    step: &'static str,
    doing: String,
    since: Instant,
}

impl Progress {
    /// A progress line on this screen.
    pub fn new(screen: Screen) -> Self {
        Progress { screen, now: RefCell::new(None) }
    }

    /// Draws the line again, with the time that has passed; call it every second.
    pub fn redraw(&self) {
        let line = self.now.borrow().as_ref().map(|now| line(now.step, &now.doing, now.since.elapsed()));
        self.screen.live(line);
    }

    fn set(&self, now: Option<Now>) {
        *self.now.borrow_mut() = now;
        self.redraw();
    }
}

fn line(step: &str, doing: &str, elapsed: Duration) -> String {
    format!("         {step} {}  {doing}", clock(elapsed))
}

impl Observer for Progress {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::StepStarted { step, .. } => {
                self.set(Some(Now { step, doing: "working".to_owned(), since: Instant::now() }));
            }
            Event::Waiting { step, for_what } => {
                // The clock goes on: a person wants to know how long the step has been at it.
                let since = self.now.borrow().as_ref().filter(|now| now.step == *step).map(|now| now.since);
                let since = since.unwrap_or_else(Instant::now);
                self.set(Some(Now { step, doing: format!("waiting for {for_what}"), since }));
            }
            Event::StepEnded { .. } | Event::Phase(Phase::Ready | Phase::Failed | Phase::Stopped) => self.set(None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_step_time_and_what_is_waited_for() {
        let shown = line("join-cluster", "waiting for a join bundle", Duration::from_secs(65));
        assert_eq!(shown, "         join-cluster 1:05  waiting for a join bundle");
    }
}
