//! `cluster retire`: moves everything of a cluster that ended to `retired/<uid>/`.

use super::Store;
use super::register::Seen;
use super::reports::ReportEntry;
use crate::model::cause::Outcome;
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
    /// What is moved, in this order; the register is last.
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
        todo!()
    }

    /// Moves everything to `retired/<uid>/`: copied create-only, the copy verified, the original deleted by its
    /// version, the register last. Killed at any point, the next run goes on. **The caller has made sure that the
    /// cluster's endpoint no longer answers with its CA.**
    pub async fn retire(&self, plan: &Retirement) -> Outcome<Retired> {
        let _ = plan;
        todo!()
    }
}
