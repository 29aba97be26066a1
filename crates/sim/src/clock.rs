//! A machine's clock: wrong by a constant, wrong at boot until time synchronisation corrects it, or stepped.

use crate::universe::Universe;
use jiff::SignedDuration;
use kubestrap_core::model::identity::Role;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// A clock that is no more wrong than this is right enough for everything.
const RIGHT: SignedDuration = SignedDuration::from_secs(50);
/// Core tolerates a minute; the store's Date has whole seconds, and an answer may be seconds old.
const TOLERATED: SignedDuration = SignedDuration::from_secs(75);
/// What a worker must wait at least before a wrong clock is a refusal (rule 9: 5 minutes), with some seconds for the
/// requests in between.
const PATIENCE: Duration = Duration::from_secs(290);
/// A clock without a battery: from the beginning of the runs back to 1970.
const NO_BATTERY: SignedDuration = SignedDuration::from_hours(-498_671);

/// A clock.
#[derive(Debug)]
pub struct Clock {
    /// Where time synchronisation keeps it.
    usual: SignedDuration,
    /// How far it is ahead of true time now.
    skew: Cell<SignedDuration>,
    /// Since when it has been too wrong to judge anything by it.
    wrong_since: Cell<Option<Duration>>,
    /// How far it was ahead when the last bundle was read, and when that was: what was judged by it.
    read_with: Cell<(SignedDuration, Duration)>,
}

impl Clock {
    /// A clock that is ahead by this much.
    pub fn new(skew: SignedDuration) -> Self {
        let wrong_since = Cell::new((skew.abs() > RIGHT).then_some(Duration::ZERO));
        Clock { usual: skew, skew: Cell::new(skew), wrong_since, read_with: Cell::default() }
    }

    /// How far it is ahead of true time.
    pub fn skew(&self) -> SignedDuration {
        self.skew.get()
    }

    /// How far it was ahead, and when, at the last look at the join bundle.
    pub fn at_last_reading(&self) -> (SignedDuration, Duration) {
        self.read_with.get()
    }

    fn set(&self, skew: SignedDuration, now: Duration) {
        self.skew.set(skew);
        let since = self.wrong_since.get().unwrap_or(now);
        self.wrong_since.set((skew.abs() > RIGHT).then_some(since));
    }
}

/// In time for the five minutes for which a wrong clock is waited for.
const MASTERS_RIGHT_WITHIN: Duration = Duration::from_secs(4 * 60);

impl Universe {
    /// The join bundle is read: whatever is judged of it is judged by the clock as it is now.
    pub fn reads_bundle(&self, machine: usize) {
        let clock = &self.machines[machine].clock;
        clock.read_with.set((clock.skew(), self.timeline.now()));
        if clock.skew().abs() > TOLERATED {
            self.count("clock-waited-for");
        }
    }

    /// At a boot: wrong, until it is corrected.
    pub fn boot_clock(self: &Rc<Self>, machine: usize) {
        let Some(boot) = self.scenario.boot_clock else { return };
        let now = self.timeline.now();
        let clock = &self.machines[machine].clock;
        let most = boot.wrong_by.as_millis() as i64;
        let wrong = match self.rng.below(8) {
            0 => NO_BATTERY,
            _ => SignedDuration::from_millis(self.rng.below(2 * most as u64 + 1) as i64 - most),
        };
        clock.set(wrong, now);
        self.count("clock-wrong-at-boot");
        // A master that is too late ends with a refusal, as rule 9 has it; with all of them the world would end.
        let most = if self.machines[machine].role == Role::Master { MASTERS_RIGHT_WITHIN } else { boot.right_within };
        let right_in = self.rng.between(Duration::from_secs(5), most.min(boot.right_within));
        self.note(machine, format_args!("boots with a clock that is {} s ahead, for {right_in:?}", wrong.as_secs()));
        self.correct_clock(machine, right_in);
    }

    /// A jump, and back to where it was after a while.
    pub fn step_clock(self: &Rc<Self>, machine: usize) {
        let seconds = self.rng.below(3600) as i64 - 1800;
        self.count("clock-step");
        let lasts = self.rng.between(Duration::from_secs(10), Duration::from_secs(480));
        self.note(machine, format_args!("CLOCK STEPS by {seconds} s, for {} s", lasts.as_secs()));
        self.machines[machine].clock.set(SignedDuration::from_secs(seconds), self.timeline.now());
        self.correct_clock(machine, lasts);
    }

    fn correct_clock(self: &Rc<Self>, machine: usize, after: Duration) {
        let universe = self.clone();
        self.timeline.after(after, move || {
            let clock = &universe.machines[machine].clock;
            if clock.skew() != clock.usual {
                clock.set(clock.usual, universe.timeline.now());
                universe.note(machine, format_args!("clock is right again"));
            }
        });
    }

    /// Rule 9: a clock is named as the cause only after it was waited for.
    pub fn judge_clock_refusal(&self, machine: usize) {
        let machine = &self.machines[machine];
        let now = self.timeline.now();
        self.count("clock-refused");
        let wrong_for = machine.clock.wrong_since.get().map(|since| now - since);
        if wrong_for.is_none_or(|wrong_for| wrong_for < PATIENCE) {
            let what = format!("{} refuses for its clock, which was wrong for {wrong_for:?} only", machine.name);
            self.violate(9, what);
        }
    }
}
