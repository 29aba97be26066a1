//! The supervisor of duties: timing, jitter, back-off, deadlines, the sign of life.

use super::patience::Backoff;
use super::{Duty, Step, bootstrap};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use futures_util::future::{Either, join, join_all, select};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

/// How often the sign of life is given; systemd's watchdog interval is a multiple of it.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The whole life of an agent: bootstrap, then duties for ever. Duties that run from the start (the report) run beside
/// the bootstrap. Returns only with the bootstrap's failure.
pub async fn live(node: &Node, steps: &[Box<dyn Step>], duties: &[Box<dyn Duty>]) -> Outcome<Infallible> {
    let (early, late): (Vec<&dyn Duty>, Vec<&dyn Duty>) =
        duties.iter().map(|d| &**d).partition(|d| d.runs_during_bootstrap());
    let story = async {
        bootstrap(node, steps).await?;
        Ok(run_all(node, &late).await)
    };
    match select(pin!(story), pin!(join(run_all(node, &early), heartbeat(node)))).await {
        Either::Left((result, _)) => result,
        Either::Right(((never, _), _)) => match never {},
    }
}

/// Duties for ever, without a bootstrap.
pub async fn supervise(node: &Node, duties: &[Box<dyn Duty>]) -> Infallible {
    let duties: Vec<&dyn Duty> = duties.iter().map(|d| &**d).collect();
    join(run_all(node, &duties), heartbeat(node)).await.0
}

async fn run_all(node: &Node, duties: &[&dyn Duty]) -> Infallible {
    join_all(duties.iter().map(|duty| run(node, *duty))).await;
    // With no duty at all there is nothing to do, for ever.
    std::future::pending().await
}

async fn run(node: &Node, duty: &dyn Duty) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let began = node.world.time.uptime();
        let result = bounded(node, duty).await;
        let took = node.world.time.uptime().saturating_sub(began);
        node.tell(&Event::DutyTicked { duty: duty.name(), took, result: result.as_ref().map(|_| ()) });
        let after = match result {
            Ok(after) => {
                backoff = Backoff::default();
                after
            }
            Err(failure) => {
                let after = node.jitter(backoff.step());
                node.tell(&Event::Retrying { what: duty.name(), beside: true, failure: &failure, after });
                after
            }
        };
        node.world.time.sleep(after).await;
    }
}

async fn bounded(node: &Node, duty: &dyn Duty) -> Outcome<Duration> {
    match select(pin!(duty.tick(node)), pin!(node.world.time.sleep(duty.deadline()))).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => {
            let why = format!("it did not end within {} s", duty.deadline().as_secs());
            Err(Failure::new(Cause::Deadline, format!("carry out the duty {}", duty.name()), why))
        }
    }
}

/// Every tick is cut off at its deadline, so what can go wrong is the process itself hanging; then this stops too.
async fn heartbeat(node: &Node) -> Infallible {
    loop {
        node.tell(&Event::Alive);
        node.world.time.sleep(HEARTBEAT).await;
    }
}
