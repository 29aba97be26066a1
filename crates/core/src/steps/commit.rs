//! `commit-register`: the commit point. From here on the cluster exists, with this CA, for ever.

use super::claim::{holder, step_down};
use super::{HALF_AN_HOUR, journal};
use crate::engine::{Step, Verdict};
use crate::journal::{AttemptKind, Entry};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::store::Store;
use async_trait::async_trait;
use std::time::Duration;

/// Writes `established` over our own `initialising`.
pub struct CommitRegister;

#[async_trait(?Send)]
impl Step for CommitRegister {
    fn name(&self) -> &'static str {
        "commit-register"
    }

    fn describe(&self) -> &'static str {
        "record in the register that the cluster exists, with its CA"
    }

    fn patience(&self, _node: &Node) -> Duration {
        // Nothing else can be done with a cluster that is not recorded.
        4 * HALF_AN_HOUR
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        let attempt = journal(node).attempt()?;
        if attempt.as_ref().is_some_and(|attempt| attempt.kind == AttemptKind::ControlPlane) {
            return Ok(Verdict::Done("another master recorded the cluster".into()));
        }
        match attempt.filter(|attempt| attempt.kind == AttemptKind::Init).and_then(|attempt| attempt.committed) {
            Some(ca) => Ok(Verdict::Done(format!("recorded with CA {ca}"))),
            None => Ok(Verdict::Wanted("the cluster is not recorded as established".into())),
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        let journal = journal(node);
        let missing = |why: &str| Failure::new(Cause::HeldByOther, "commit the cluster register", why);
        let Some(attempt) = journal.attempt()? else { return Err(missing("no attempt was recorded")) };
        let Some(ca) = attempt.initialised else { return Err(missing("init has not ended")) };
        let store = Store::of(node);
        match store.held(attempt.id).await? {
            Some(held) => {
                journal.note(Entry::CommitAttempted)?;
                match store.commit(&held, &ca, &holder(node)).await {
                    Ok(_) => {}
                    Err(failure) if failure.cause == Cause::TakenOver => {
                        return Err(step_down(node, failure.detail).await);
                    }
                    Err(failure) => return Err(failure),
                }
            }
            // A commit of an earlier life may have been accepted.
            None => {
                let seen = store.register().await?.map(|seen| seen.register);
                let ours = seen.is_some_and(|r| r.attempt() == attempt.id && r.ca() == Some(&ca));
                if !ours {
                    return Err(missing("the register does not name our attempt"));
                }
            }
        }
        journal.note(Entry::Committed { ca })
    }
}
