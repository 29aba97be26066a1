//! A store in memory with exact conditional semantics and scripted faults, and an executor with virtual time.

use crate::journal::{AttemptKind, AttemptRecorded, Journal};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::names::{CaHash, ClusterName};
use crate::model::register::Holder;
use crate::ports::{
    Condition, Deleted, ETag, ExpiryRule, Fetched, FileInfo, Files, KeyPage, Object, Objects, Reading, Time, Written,
};
use crate::store::Store;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use uuid::Uuid;

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It took effect, and nobody was told (a time-out, a 5xx after the fact).
    LostAfter,
    /// It had no effect, and nobody was told (503, 409).
    LostBefore,
    /// Nobody was told, and it takes effect before the n-th call from now.
    Late(usize),
    /// 403.
    Denied,
    /// A write is refused although its condition holds (or held: a retry inside the client took effect).
    Refused,
    /// It took effect, and the client's own retry was refused.
    RefusedAfter,
    /// The process dies before the call; the future is never woken.
    DieBefore,
    /// The process dies after it.
    DieAfter,
}

/// Every fault, for enumeration.
pub const FAULTS: &[Fault] = &[
    Fault::LostAfter,
    Fault::LostBefore,
    Fault::Late(1),
    Fault::Late(2),
    Fault::Late(5),
    Fault::Denied,
    Fault::Refused,
    Fault::RefusedAfter,
    Fault::DieBefore,
    Fault::DieAfter,
];

/// How a store can ignore conditions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ignores {
    pub create: bool,
    pub replace: bool,
    pub get: bool,
    pub delete: bool,
}

enum Change {
    Put(Vec<u8>, Condition),
    Delete(ETag),
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Vec<u8>, Timestamp)>,
    faults: BTreeMap<usize, Fault>,
    late: Vec<(usize, String, Change)>,
    calls: Vec<String>,
    /// Every content a key ever had, in order.
    history: Vec<(String, Vec<u8>)>,
}

/// The store.
pub struct FakeObjects {
    state: RefCell<State>,
    pub ignores: Cell<Ignores>,
    pub clock: Cell<bool>,
    page: usize,
    time: Rc<FakeTime>,
}

/// Content-addressed, as S3's are: the same content has the same version.
pub fn etag_of(body: &[u8]) -> ETag {
    // FNV-1a, twice: SHA-256 without optimisation takes most of the tests' time.
    let fnv = |seed: u64| body.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    ETag(format!("{:016x}{:016x}", fnv(0xcbf2_9ce4_8422_2325), fnv(body.len() as u64)))
}

impl FakeObjects {
    pub fn body(&self, key: &str) -> Option<Vec<u8>> {
        self.state.borrow().objects.get(key).map(|(body, _)| body.clone())
    }

    pub fn keys(&self) -> Vec<String> {
        self.state.borrow().objects.keys().cloned().collect()
    }

    pub fn set(&self, key: &str, body: impl Into<Vec<u8>>) {
        let body = body.into();
        let mut state = self.state.borrow_mut();
        state.history.push((key.to_owned(), body.clone()));
        state.objects.insert(key.to_owned(), (body, self.time.now()));
    }

    pub fn erase(&self, key: &str) {
        self.state.borrow_mut().objects.remove(key);
    }

    /// The call with this number (from now, the next is 0) goes wrong.
    pub fn fail(&self, nth: usize, fault: Fault) {
        let mut state = self.state.borrow_mut();
        let at = state.calls.len() + nth;
        state.faults.insert(at, fault);
    }

    pub fn heal(&self) {
        self.state.borrow_mut().faults.clear();
    }

    pub fn calls(&self) -> usize {
        self.state.borrow().calls.len()
    }

    pub fn history(&self, key: &str) -> Vec<Vec<u8>> {
        let state = self.state.borrow();
        state.history.iter().filter(|(of, _)| of == key).map(|(_, body)| body.clone()).collect()
    }

    /// Whatever is late lands now.
    pub fn land(&self) {
        let late = std::mem::take(&mut self.state.borrow_mut().late);
        for (_, key, change) in late {
            self.change(&key, &change);
        }
    }

    fn change(&self, key: &str, change: &Change) -> bool {
        let ignores = self.ignores.get();
        let now = self.time.now();
        let mut state = self.state.borrow_mut();
        let current = state.objects.get(key).map(|(body, _)| etag_of(body));
        match change {
            Change::Put(body, condition) => {
                let holds = match condition {
                    Condition::Absent => ignores.create || current.is_none(),
                    Condition::Matches(etag) => {
                        (ignores.replace && current.is_some()) || current.as_ref() == Some(etag)
                    }
                };
                if holds {
                    state.history.push((key.to_owned(), body.clone()));
                    state.objects.insert(key.to_owned(), (body.clone(), now));
                }
                holds
            }
            Change::Delete(etag) => {
                let holds = ignores.delete || current.is_none() || current.as_ref() == Some(etag);
                if holds {
                    state.objects.remove(key);
                }
                holds
            }
        }
    }

    /// Numbers the call, lets late writes land, and gives the fault scripted for it.
    async fn begin(&self, what: String) -> Option<Fault> {
        step().await;
        let number = self.calls();
        let due: Vec<(usize, String, Change)> = {
            let mut state = self.state.borrow_mut();
            state.calls.push(what);
            let (due, later) = std::mem::take(&mut state.late).into_iter().partition(|(at, ..)| *at <= number);
            state.late = later;
            due
        };
        for (_, key, change) in due {
            self.change(&key, &change);
        }
        let fault = self.state.borrow().faults.get(&number).copied();
        if fault == Some(Fault::DieBefore) {
            std::future::pending::<()>().await;
        }
        fault
    }

    /// Carries out a change under a fault: `Ok(Some(holds))` is the answer, `Ok(None)` a lost one.
    async fn work(&self, key: &str, change: Change, fault: Option<Fault>) -> Outcome<Option<bool>> {
        match fault {
            None => Ok(Some(self.change(key, &change))),
            Some(Fault::LostAfter) => {
                self.change(key, &change);
                Ok(None)
            }
            Some(Fault::LostBefore) => Ok(None),
            Some(Fault::Late(calls)) => {
                let at = self.calls() + calls - 1;
                self.state.borrow_mut().late.push((at, key.to_owned(), change));
                Ok(None)
            }
            Some(Fault::Denied) => Err(denied(key)),
            Some(Fault::Refused) => Ok(Some(false)),
            Some(Fault::RefusedAfter) => {
                self.change(key, &change);
                Ok(Some(false))
            }
            Some(Fault::DieBefore | Fault::DieAfter) => {
                self.change(key, &change);
                std::future::pending().await
            }
        }
    }

    async fn read<T>(&self, key: &str, fault: Option<Fault>, answer: T) -> Outcome<T> {
        match fault {
            Some(Fault::LostAfter | Fault::LostBefore | Fault::Late(_)) => Err(unavailable(key)),
            Some(Fault::Denied) => Err(denied(key)),
            Some(Fault::DieAfter | Fault::DieBefore) => std::future::pending().await,
            None | Some(Fault::Refused | Fault::RefusedAfter) => Ok(answer),
        }
    }
}

fn unavailable(key: &str) -> Failure {
    Failure::new(Cause::StoreUnavailable, format!("call {key}"), "503 SlowDown")
}

fn denied(key: &str) -> Failure {
    Failure::new(Cause::AccessDenied, format!("call {key}"), "403")
}

#[async_trait(?Send)]
impl Objects for FakeObjects {
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading> {
        let fault = self.begin(format!("get {key}")).await;
        let found = self.state.borrow().objects.get(key).cloned();
        let fetched = match found {
            None => Fetched::Absent,
            Some((body, modified)) => {
                let etag = etag_of(&body);
                if known == Some(&etag) && !self.ignores.get().get {
                    Fetched::Unchanged
                } else {
                    Fetched::Found(Object { body, etag, modified: Some(modified) })
                }
            }
        };
        let served_at = self.clock.get().then(|| self.time.now());
        self.read(key, fault, Reading { fetched, served_at }).await
    }

    async fn put(&self, key: &str, body: Vec<u8>, condition: Condition) -> Outcome<Written> {
        let fault = self.begin(format!("put {key}")).await;
        let etag = etag_of(&body);
        Ok(match self.work(key, Change::Put(body, condition), fault).await? {
            Some(true) => Written::Stored(etag),
            Some(false) => Written::Refused,
            None => Written::Unknown(unavailable(key)),
        })
    }

    async fn delete(&self, key: &str, version: &ETag) -> Outcome<Deleted> {
        let fault = self.begin(format!("delete {key}")).await;
        Ok(match self.work(key, Change::Delete(version.clone()), fault).await? {
            Some(true) => Deleted::Done,
            Some(false) => Deleted::Refused,
            None => Deleted::Unknown(unavailable(key)),
        })
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage> {
        let fault = self.begin(format!("list {prefix}")).await;
        let all = self.keys();
        let mut keys: Vec<String> =
            all.into_iter().filter(|key| key.starts_with(prefix) && after.is_none_or(|a| key.as_str() > a)).collect();
        let more = keys.len() > self.page;
        keys.truncate(self.page);
        self.read(prefix, fault, KeyPage { keys, more }).await
    }

    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        Ok(Vec::new())
    }
}

/// Time that passes only while somebody sleeps.
pub struct FakeTime {
    now: Cell<Timestamp>,
    uptime: Cell<Duration>,
    seed: Cell<u64>,
}

impl FakeTime {
    pub fn pass(&self, duration: Duration) {
        self.now.set(self.now.get() + SignedDuration::try_from(duration).expect("a short time"));
        self.uptime.set(self.uptime.get() + duration);
    }
}

#[async_trait(?Send)]
impl Time for FakeTime {
    fn now(&self) -> Timestamp {
        self.now.get()
    }

    fn uptime(&self) -> Duration {
        self.uptime.get()
    }

    async fn sleep(&self, duration: Duration) {
        self.pass(duration);
        step().await;
    }

    fn random(&self, buffer: &mut [u8]) {
        for byte in buffer {
            // Knuth's MMIX generator; its upper bits are good enough here.
            self.seed
                .set(self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
            *byte = (self.seed.get() >> 56) as u8;
        }
    }
}

/// Lets others run once.
async fn step() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Whether somebody asked to be polled again: a future that did not is dead, for nothing else will wake it.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end; `None` when it died.
pub fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    interleave(0, future, async {}).0
}

/// Runs two futures, interleaved: bit n of the schedule tells which is polled at step n, then both in turn.
pub fn interleave<A, B>(
    schedule: u32,
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> (Option<A>, Option<B>) {
    let (mut left, mut right) = (pin!(left), pin!(right));
    let (mut a, mut b) = (None, None);
    let (mut a_lives, mut b_lives) = (true, true);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    for n in 0.. {
        if !a_lives && !b_lives {
            break;
        }
        let turn = if n < 32 { schedule & (1 << n) == 0 } else { n % 2 == 0 };
        if (turn || !b_lives) && a_lives {
            match left.as_mut().poll(&mut context) {
                Poll::Ready(value) => (a, a_lives) = (Some(value), false),
                Poll::Pending => a_lives = woken.0.swap(false, Ordering::Relaxed),
            }
        } else {
            match right.as_mut().poll(&mut context) {
                Poll::Ready(value) => (b, b_lives) = (Some(value), false),
                Poll::Pending => b_lives = woken.0.swap(false, Ordering::Relaxed),
            }
        }
    }
    (a, b)
}

/// A store with nothing in it, and its time.
pub struct Lab {
    pub objects: Rc<FakeObjects>,
    pub time: Rc<FakeTime>,
    pub store: Store,
}

impl Lab {
    pub fn new() -> Self {
        let time = Rc::new(FakeTime {
            now: Cell::new("2026-11-21T12:00:00Z".parse().expect("time")),
            uptime: Cell::new(Duration::from_secs(100)),
            seed: Cell::new(1),
        });
        let objects = Rc::new(FakeObjects {
            state: RefCell::default(),
            ignores: Cell::default(),
            clock: Cell::new(true),
            page: 2,
            time: time.clone(),
        });
        let store = Store::new(objects.clone(), time.clone(), ClusterName::parse("prod").expect("name"));
        Lab { objects, time, store }
    }

    /// A proof that an attempt is on a disk.
    pub fn recorded(&self, attempt: u128, uid: u128) -> AttemptRecorded {
        let journal = Journal::new(Rc::new(OneFile::default()), self.time.clone());
        journal
            .begin(Uuid::from_u128(attempt), AttemptKind::Init, Uuid::from_u128(uid), true)
            .expect("a disk that never fails")
    }
}

/// The holder of this name, not on EC2.
pub fn holder(name: &str) -> Holder {
    Holder { identity: format!("machine-{name}"), node_name: name.to_owned(), ec2: None }
}

/// A CA pin.
pub fn ca(n: u8) -> CaHash {
    CaHash::from_digest(&[n; 32])
}

/// A disk with one file.
#[derive(Default)]
pub struct OneFile(RefCell<Vec<u8>>);

impl Files for OneFile {
    fn read(&self, _: &Path, _: u64) -> Outcome<Option<Vec<u8>>> {
        Ok(Some(self.0.borrow().clone()))
    }
    fn stat(&self, _: &Path) -> Outcome<Option<FileInfo>> {
        Ok(None)
    }
    fn list(&self, _: &Path) -> Outcome<Vec<String>> {
        Ok(Vec::new())
    }
    fn write(&self, _: &Path, body: &[u8], _: u32) -> Outcome<()> {
        *self.0.borrow_mut() = body.to_vec();
        Ok(())
    }
    fn append(&self, _: &Path, body: &[u8], _: u32) -> Outcome<()> {
        self.0.borrow_mut().extend_from_slice(body);
        Ok(())
    }
    fn remove(&self, _: &Path) -> Outcome<()> {
        self.0.borrow_mut().clear();
        Ok(())
    }
}
