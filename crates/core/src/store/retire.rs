//! `cluster retire`: moves everything of a cluster that ended to `retired/<uid>/`, so that a rebuilt environment can use
//! the same store.

use super::Store;
use super::gone::MachineGone;
use super::register::Seen;
use super::reports::ReportEntry;
use super::settle::{Intent, Settled, TRIES, unsettled};
use super::traces::Trace;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{Condition, Object};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What would be retired, to be shown before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The cluster's uid: from the register, else from what else names it, else nil.
    pub uid: Uuid,
    /// The register, when there is one: says who made the cluster and its CA.
    pub register: Option<Seen>,
    /// The last reports.
    pub reports: Vec<ReportEntry>,
    /// What is moved, in this order; what names the uid comes last, the register at the very end.
    pub keys: Vec<String>,
}

/// What was retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// The cluster's uid.
    pub uid: Uuid,
    /// How many objects were moved in this run.
    pub moved: usize,
}

impl Store {
    /// What `retire` would do; `None` when there is nothing of a cluster.
    pub async fn retirement(&self) -> Outcome<Option<Retirement>> {
        let register = self.register().await?;
        let keys = self.list_all(self.keys.root()).await?;
        let kept = [self.keys.retired(), self.keys.selftest()];
        let keys: Vec<String> = keys.into_iter().filter(|key| !kept.iter().any(|k| key.starts_with(k))).collect();
        if keys.is_empty() {
            return Ok(None);
        }
        let names_it = match &register {
            Some(_) => None,
            None => self.traces().await?.into_iter().find(|trace| trace.uid.is_some()),
        };
        let uid = register.as_ref().map(|seen| seen.register.uid);
        let uid = uid.or_else(|| names_it.as_ref().and_then(|trace| trace.uid)).unwrap_or_default();
        let keys = in_order(keys, &self.keys.register(), names_it.as_ref());
        let reports = self.reports().await?;
        Ok(Some(Retirement { uid, register, reports, keys }))
    }

    /// Moves everything to `retired/<uid>/`: copied create-only, the copy verified, the original deleted by its
    /// version, the register last. Killed at any point, the next run goes on. **The caller has made sure that the
    /// cluster's endpoint no longer answers with its CA.**
    ///
    /// Errors: `TakenOver` when the register names another cluster than the one shown.
    pub async fn retire(&self, plan: &Retirement) -> Outcome<Retired> {
        let now = self.register().await?.map(|seen| seen.register.uid);
        // Also when it vanished: it is moved last, so another run has ended, and what is there now may be a new cluster.
        if now != plan.register.as_ref().map(|seen| seen.register.uid) {
            let why = "the register changed since it was shown";
            let failure = Failure::new(Cause::TakenOver, format!("retire cluster {}", plan.uid), why);
            return Err(failure.advise("look at it again before you retire it"));
        }
        let mut moved = 0;
        for key in &plan.keys {
            moved += usize::from(self.move_away(key, plan.uid).await?);
        }
        Ok(Retired { uid: plan.uid, moved })
    }

    /// Moves the report of a machine that is gone to `retired/<uid>/`. `false`: there was none.
    pub async fn archive_report(&self, gone: &MachineGone, uid: Uuid) -> Outcome<bool> {
        self.move_away(&self.keys.report(gone.identity()), uid).await
    }

    /// Whether there was something to move.
    async fn move_away(&self, key: &str, uid: Uuid) -> Outcome<bool> {
        for _ in 0..TRIES {
            let Some(original) = self.peek(key).await? else { return Ok(false) };
            self.keep_copy(key, uid, &original).await?;
            // A node that still lives may have replaced its report meanwhile: then that one is copied too.
            if self.remove(key, &original.etag).await? {
                return Ok(true);
            }
        }
        let failure = unsettled("retire", key, None);
        Err(Failure { detail: "somebody keeps changing it".to_owned(), ..failure }
            .advise("stop the machines of this cluster, and run `cluster retire` again"))
    }

    /// Makes sure that these bytes are below `retired/`: under the same name, or, when an earlier run kept other bytes
    /// there, under that name and their digest. Nothing retired is ever replaced.
    async fn keep_copy(&self, key: &str, uid: Uuid, original: &Object) -> Outcome<()> {
        let outside = || Failure::new(Cause::Internal, format!("retire {key}"), "it is not of this cluster");
        let copy = self.keys.retired_copy(uid, key).ok_or_else(outside)?;
        let digest = Sha256::digest(&original.body);
        let suffix: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        for target in [copy.clone(), format!("{copy}.{suffix}")] {
            let intent = Intent {
                key: &target,
                body: original.body.clone(),
                condition: Condition::Absent,
                mine: &|found: &Object| found.body == original.body,
                before: &|_| false,
            };
            if let Settled::Other(_) = self.settle(intent).await? {
                continue;
            }
            if self.peek(&target).await?.is_some_and(|found| found.body == original.body) {
                return Ok(());
            }
            let why = "what was read back is not what was written; the original is untouched";
            return Err(Failure::new(Cause::StoreUnavailable, format!("copy {key} to {target}"), why));
        }
        let why = "other content has its name and its digest; the original is untouched";
        Err(Failure::new(Cause::ObjectRejected, format!("copy {key} to {copy}"), why))
    }
}

/// What the uid is known from goes last, so that a run that is killed leaves it for the next.
fn in_order(mut keys: Vec<String>, register: &str, names_it: Option<&Trace>) -> Vec<String> {
    keys.sort_by_key(|key| (key == register, names_it.is_some_and(|trace| trace.key == *key)));
    keys
}
