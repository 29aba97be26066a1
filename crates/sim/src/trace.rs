//! What happened: a digest of every event, and, when asked for, lines for people.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::time::Duration;

/// How much is kept of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The digest only: one hash per event.
    Nothing,
    /// What somebody did or suffered.
    Story,
    /// Also what comes again and again (polls, reports).
    Everything,
}

/// A line of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Duration,
    /// A machine, or `world`.
    pub who: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<6} {}", Clock(self.at), self.who, self.what)
    }
}

/// Time since the beginning, as `hh:mm:ss.mmm`.
pub struct Clock(pub Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{h:02}:{m:02}:{s:02}.{:03}", self.0.subsec_millis())
    }
}

/// The record of a run. A failing seed is run again with lines.
#[derive(Debug)]
pub struct Trace {
    digest: Cell<u64>,
    events: Cell<u64>,
    lines: RefCell<Vec<Line>>,
    keep: Keep,
}

impl Trace {
    /// An empty record.
    pub fn new(keep: Keep) -> Self {
        Trace { digest: Cell::new(0xcbf2_9ce4_8422_2325), events: Cell::new(0), lines: RefCell::default(), keep }
    }

    /// Notes an event that comes again and again.
    pub fn routine(&self, now: Duration, who: &str, what: fmt::Arguments<'_>) {
        self.enter(now, who, what, self.keep == Keep::Everything);
    }

    /// Notes an event.
    pub fn note(&self, now: Duration, who: &str, what: fmt::Arguments<'_>) {
        self.enter(now, who, what, self.keep != Keep::Nothing);
    }

    fn enter(&self, now: Duration, who: &str, what: fmt::Arguments<'_>, told: bool) {
        let mut hasher = Fnv(self.digest.get());
        // Writing into a hasher cannot fail.
        let _ = write!(hasher, "{} {who} {what}", now.as_micros());
        self.digest.set(hasher.0);
        self.events.set(self.events.get() + 1);
        if told {
            self.lines.borrow_mut().push(Line { at: now, who: who.to_owned(), what: what.to_string() });
        }
    }

    /// The digest so far; equal for equal histories.
    pub fn digest(&self) -> u64 {
        self.digest.get()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events.get()
    }

    /// The lines, oldest first; empty when none are kept.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.borrow().clone()
    }
}

/// FNV-1a, 64 bits: fast on short texts, and no adversary chooses our events.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.as_bytes() {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

/// FNV-1a of bytes, for ETags.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
