//! What a pass would do: the checks alone.

use super::{Step, Verdict};
use crate::node::Node;

/// What a step's check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing is to be done.
    Done,
    /// It would be applied.
    Wanted,
    /// It cannot be known yet, because an earlier step is wanted.
    Later,
    /// The check failed.
    Failed,
}

/// One row of `plan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// The step.
    pub step: &'static str,
    /// What it is for.
    pub describe: &'static str,
    /// What its check said.
    pub wish: Wish,
    /// Why.
    pub why: String,
}

/// Checks every step and applies none. A check behind a wanted step that fails is `Later`: what it asks about is made
/// by the earlier one.
pub async fn plan(node: &Node, steps: &[Box<dyn Step>]) -> Vec<PlanRow> {
    let mut rows = Vec::new();
    let mut earlier_wanted = None;
    for step in steps {
        let (wish, why) = match (step.check(node).await, earlier_wanted) {
            (Ok(Verdict::Done(why)), _) => (Wish::Done, why),
            (Ok(Verdict::Wanted(why)), _) => (Wish::Wanted, why),
            (Err(_), Some(earlier)) => (Wish::Later, format!("known once {earlier} is done")),
            (Err(failure), None) => (Wish::Failed, failure.to_string()),
        };
        if earlier_wanted.is_none() && matches!(wish, Wish::Wanted | Wish::Failed) {
            earlier_wanted = Some(step.name());
        }
        rows.push(PlanRow { step: step.name(), describe: step.describe(), wish, why });
    }
    rows
}
