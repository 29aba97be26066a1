//! The bucket: exact conditional semantics, and what a bad network does to requests.

use crate::trace::fnv;
use crate::universe::Universe;
use jiff::Timestamp;
use kubestrap_core::ports::{Condition, ETag};
use std::collections::BTreeMap;
use std::rc::Rc;

/// An object.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its content.
    pub body: Rc<[u8]>,
    /// Derived from the content, as S3 does it: the same bytes written twice have the same version.
    pub etag: ETag,
    /// Last-Modified: whole seconds, by the store's clock (which is true time here).
    pub modified: Timestamp,
}

/// Who changes the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The agent of this machine.
    Node(usize),
    /// An operator with kubestrap's own tools.
    Operator,
    /// A lifecycle rule, an intruder.
    World,
}

/// Objects by key.
#[derive(Debug)]
pub struct Store {
    /// What is there.
    pub objects: BTreeMap<String, Stored>,
    /// Keys in a page of a list.
    pub page: usize,
}

impl Store {
    /// An empty bucket; with small pages, every list has several.
    pub fn new(small_pages: bool) -> Self {
        Store { objects: BTreeMap::new(), page: if small_pages { 2 } else { 1000 } }
    }
}

/// What became of a conditional change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It was done; the new version, when there is an object now.
    Done(Option<ETag>),
    /// The condition did not hold.
    Refused,
}

impl Universe {
    /// A conditional write lands; `None` as body deletes.
    pub fn land(self: &Rc<Self>, writer: Writer, key: &str, body: Option<Vec<u8>>, condition: &Condition) -> Effect {
        let before = self.store.borrow().objects.get(key).cloned();
        let holds = match (condition, &before) {
            (Condition::Absent, None) => true,
            (Condition::Matches(etag), Some(object)) => object.etag == *etag,
            _ => false,
        };
        if !holds {
            // S3 says 404 to a replace of a missing key, and 412 otherwise; the port knows one refusal.
            if before.is_none() {
                self.count("replace-of-missing");
            }
            return Effect::Refused;
        }
        self.force(writer, key, body)
    }

    /// A change without a condition; only the world itself makes such.
    pub fn force(self: &Rc<Self>, writer: Writer, key: &str, body: Option<Vec<u8>>) -> Effect {
        let before = self.store.borrow().objects.get(key).cloned();
        let modified = Timestamp::from_second(self.wall().as_second()).unwrap_or_default();
        let after =
            body.map(|body| Stored { etag: ETag(format!("\"{:016x}\"", fnv(&body))), body: body.into(), modified });
        self.judge_landing(writer, key, before.as_ref(), after.as_ref());
        if let (Writer::Node(machine), true) = (writer, key.ends_with("/cluster.json")) {
            self.tempt_fate(machine);
        }
        let etag = after.as_ref().map(|object| object.etag.clone());
        let mut store = self.store.borrow_mut();
        match after {
            Some(object) => store.objects.insert(key.to_owned(), object),
            None => store.objects.remove(key),
        };
        Effect::Done(etag)
    }

    /// A late write has landed, or would have.
    pub fn count_late(&self, sender: usize, effect: &Effect) {
        self.count(if *effect == Effect::Refused { "late-refused" } else { "late-landing" });
        if self.machines[sender].is_dead() {
            self.count("late-of-the-dead");
        }
    }

    /// The content of an object; `None` when there is none.
    pub fn object(&self, key: &str) -> Option<Stored> {
        self.store.borrow().objects.get(key).cloned()
    }
}
