//! `publish-join-bundle`: the first bundle; the duty of the same name keeps it fresh.

use super::HALF_AN_HOUR;
use crate::engine::{Step, Verdict};
use crate::join::publish::{Due, Publisher};
use crate::model::cause::Outcome;
use crate::node::Node;
use async_trait::async_trait;
use std::time::Duration;

/// Publishes a join bundle when there is none that works.
pub struct PublishBundle;

#[async_trait(?Send)]
impl Step for PublishBundle {
    fn name(&self) -> &'static str {
        "publish-join-bundle"
    }

    fn describe(&self) -> &'static str {
        "put into the store what workers need to join"
    }

    fn patience(&self, _node: &Node) -> Duration {
        2 * HALF_AN_HOUR
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        match Publisher::default().due(node).await? {
            Due::Later(bundle) => Ok(Verdict::Done(format!("number {} until {}", bundle.sequence, bundle.expires_at))),
            Due::Now(why) => Ok(Verdict::Wanted(why)),
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        Publisher::default().refresh(node).await.map(|_| ())
    }
}
