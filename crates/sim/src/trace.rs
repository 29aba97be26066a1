//! What happened: a digest of every event, and, when asked for, the last lines for people.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::time::Duration;

/// How many lines a failure shows.
pub const SHOWN: usize = 60;

/// The record of a run. Without lines it costs one hash per event; a failing seed is run again with lines.
#[derive(Debug)]
pub struct Trace {
    digest: Cell<u64>,
    events: Cell<u64>,
    lines: Option<RefCell<VecDeque<String>>>,
    keep: usize,
}

impl Trace {
    /// A record that keeps the last `keep` lines; 0 keeps the digest only.
    pub fn new(keep: usize) -> Self {
        let lines = (keep > 0).then(|| RefCell::new(VecDeque::with_capacity(keep.min(4096))));
        Trace { digest: Cell::new(0xcbf2_9ce4_8422_2325), events: Cell::new(0), lines, keep }
    }

    /// Notes an event that comes again and again (a poll, a report): told only when every line is kept.
    pub fn routine(&self, now: Duration, who: &str, what: fmt::Arguments<'_>) {
        self.enter(now, who, what, self.keep == usize::MAX);
    }

    /// Notes an event.
    pub fn note(&self, now: Duration, who: &str, what: fmt::Arguments<'_>) {
        self.enter(now, who, what, true);
    }

    fn enter(&self, now: Duration, who: &str, what: fmt::Arguments<'_>, told: bool) {
        let mut hasher = Fnv(self.digest.get());
        // Writing into a hasher cannot fail.
        let _ = write!(hasher, "{} {who} {what}", now.as_micros());
        self.digest.set(hasher.0);
        self.events.set(self.events.get() + 1);
        if let Some(lines) = self.lines.as_ref().filter(|_| told) {
            let mut lines = lines.borrow_mut();
            if lines.len() == self.keep {
                lines.pop_front();
            }
            let seconds = now.as_secs();
            let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            lines.push_back(format!("{h:02}:{m:02}:{s:02}.{:03} {who:<9} {what}", now.subsec_millis()));
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

    /// The last lines, oldest first; empty when none are kept.
    pub fn lines(&self) -> Vec<String> {
        self.lines.as_ref().map(|lines| lines.borrow().iter().cloned().collect()).unwrap_or_default()
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
