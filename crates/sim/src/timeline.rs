//! Virtual time: timers of futures and events of the world in one queue. Nothing happens between two entries, so an
//! hour of waiting costs nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Something the world does by itself: a write lands, a job enters its next phase, a machine loses power.
pub type Deed = Box<dyn FnOnce()>;

enum Entry {
    Wake(Waker),
    Do(Deed),
}

/// The clock and its queue. Entries of one instant come in the order in which they were made.
#[derive(Default)]
pub struct Timeline {
    now: Cell<Duration>,
    next: Cell<u64>,
    queue: RefCell<BTreeMap<(Duration, u64), Entry>>,
}

impl Timeline {
    /// Time since the beginning of the run.
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    fn key(&self, at: Duration) -> (Duration, u64) {
        self.next.set(self.next.get() + 1);
        (at.max(self.now()), self.next.get())
    }

    /// Does something later.
    pub fn after(&self, delay: Duration, deed: impl FnOnce() + 'static) {
        let key = self.key(self.now() + delay);
        self.queue.borrow_mut().insert(key, Entry::Do(Box::new(deed)));
    }

    /// Forgets everything that is still to come.
    pub fn clear(&self) {
        // What is dropped may look at the queue.
        let queue = std::mem::take(&mut *self.queue.borrow_mut());
        drop(queue);
    }

    /// A future that ends after `duration`; dropping it forgets the timer.
    pub fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        Sleep { timeline: self.clone(), at: self.now() + duration, key: None }
    }

    /// Goes to the next entry and carries it out; false when there is none before `end`.
    pub fn step(&self, end: Duration) -> bool {
        let first = {
            let mut queue = self.queue.borrow_mut();
            match queue.first_key_value() {
                Some((key, _)) if key.0 <= end => queue.pop_first(),
                _ => None,
            }
        };
        let Some(((at, _), entry)) = first else { return false };
        self.now.set(at);
        match entry {
            Entry::Wake(waker) => waker.wake(),
            Entry::Do(deed) => deed(),
        }
        true
    }
}

/// See [`Timeline::sleep`].
pub struct Sleep {
    timeline: Rc<Timeline>,
    at: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timeline.now() >= self.at {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| self.timeline.key(self.at));
        self.timeline.queue.borrow_mut().insert(key, Entry::Wake(context.waker().clone()));
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timeline.queue.borrow_mut().remove(&key);
        }
    }
}

/// An answer that the world gives later; whoever waits for it may be dead by then.
pub struct Answer<T>(Rc<RefCell<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Answer(self.0.clone())
    }
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Answer(Rc::new(RefCell::new((None, None))))
    }
}

impl<T> Answer<T> {
    /// Gives the answer.
    pub fn give(&self, value: T) {
        let mut slot = self.0.borrow_mut();
        slot.0 = Some(value);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.borrow_mut();
        match slot.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
