//! Looking at what the metadata service says, path by path.

use super::events::{self, LIFECYCLE, MAINTENANCE, Notice, REBALANCE, SPOT};
use crate::identity::Imds;
use crate::model::cause::{Failure, Outcome};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Scheduled events are days ahead; they are asked for less often than what leaves two minutes.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(60);

/// A path and how its text is read.
type Source = (&'static str, fn(&str) -> Outcome<Option<Notice>>);

const SOURCES: [Source; 4] = [
    (SPOT, |text| events::spot(text).map(Some)),
    (LIFECYCLE, events::lifecycle),
    (MAINTENANCE, events::maintenance),
    (REBALANCE, |text| events::rebalance(text).map(Some)),
];

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every notice there is.
    pub notices: Vec<Notice>,
    /// Paths that could not be read. What they said before still counts: a service that is away takes nothing back.
    pub failures: Vec<Failure>,
}

impl Seen {
    /// Whether everything was read, so that what is not there is over.
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Remembers the last readable answer of each path.
#[derive(Default)]
pub struct Looker {
    known: RefCell<BTreeMap<&'static str, (Option<Notice>, Duration)>>,
}

impl Looker {
    /// One look at every path whose turn it is; `now` is the machine's uptime. Rebalance recommendations are asked for
    /// only when `rebalance`.
    pub async fn look(&self, imds: &Imds, now: Duration, rebalance: bool) -> Seen {
        let mut seen = Seen::default();
        for (path, read) in SOURCES {
            if path == REBALANCE && !rebalance {
                continue;
            }
            let fresh = path == MAINTENANCE && self.asked_within(path, now, MAINTENANCE_EVERY);
            if !fresh {
                match imds.glance(path).await.and_then(|text| text.as_deref().map_or(Ok(None), read)) {
                    Ok(notice) => {
                        self.known.borrow_mut().insert(path, (notice, now));
                    }
                    Err(failure) => seen.failures.push(failure),
                }
            }
            seen.notices.extend(self.known.borrow().get(path).and_then(|(notice, _)| notice.clone()));
        }
        seen
    }

    fn asked_within(&self, path: &str, now: Duration, within: Duration) -> bool {
        self.known.borrow().get(path).is_some_and(|(_, at)| now.saturating_sub(*at) < within)
    }
}
