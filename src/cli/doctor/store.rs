//! Credentials, the instance, and the store with what lies in it.

use super::judge;
use super::{Check, Finding};
use crate::observe::text::expiry;
use kubestrap_core::config::settings::StoreLocation;
use kubestrap_core::model::cause::{Cause, Outcome};
use kubestrap_core::model::register::{Register, RegisterState};
use kubestrap_core::node::Node;
use kubestrap_core::ports::{Fetched, Reading};
use kubestrap_core::store::Store;
use kubestrap_core::store::bundle::{Expectation, verify};
use std::time::Duration;

/// In the order in which one failure explains the next.
pub async fn checks(node: &Node) -> Vec<Check> {
    let mut checks = Vec::new();
    let on_s3 = matches!(node.settings.store, StoreLocation::S3 { .. });
    checks.push(if on_s3 {
        Check::of("credentials", node.world.cloud.credentials().await)
    } else {
        Check::skipped("credentials", "a file:// store needs none")
    });
    checks.push(hop_limit(node).await);
    let store = Store::of(node);
    let register = store.register().await;
    let reading = store.bundle(None).await;
    checks.push(match &register {
        Ok(seen) => Check::ok("store", format!("readable; {}", words(seen.as_ref().map(|seen| &seen.register)))),
        Err(failure) => Check::failed("store", failure),
    });
    let register = register.ok().flatten().map(|seen| seen.register);
    let served_at = reading.as_ref().ok().and_then(|reading| reading.served_at);
    checks.push(bundle(node, register.as_ref(), reading));
    checks.push(judge::clock(node.world.time.now(), served_at));
    checks.push(match node.world.objects.expiry_rules().await {
        Ok(rules) => judge::expiry_rules(&rules, &node.settings.store, node.settings.cluster.as_str()),
        // Reading them needs a permission that nodes need for nothing else.
        Err(failure) if failure.cause == Cause::AccessDenied => {
            Check::skipped("bucket lifecycle rules", format!("not allowed: {}; {}", failure.detail, failure.fix()))
        }
        Err(failure) => Check::failed("bucket lifecycle rules", &failure),
    });
    checks
}

async fn hop_limit(node: &Node) -> Check {
    const WHAT: &str = "IMDS hop limit";
    let Some(ec2) = node.identity.ec2() else { return Check::skipped(WHAT, "this is not an EC2 instance") };
    match node.world.cloud.instances(&ec2.region, std::slice::from_ref(&ec2.instance_id)).await {
        Ok(infos) => judge::hop_limit(infos.iter().find(|info| info.instance_id == ec2.instance_id)),
        Err(failure) if failure.cause == Cause::AccessDenied => {
            Check::skipped(WHAT, "this machine may not call ec2:DescribeInstances (a master needs it to take over)")
        }
        Err(failure) => Check::failed(WHAT, &failure),
    }
}

fn words(register: Option<&Register>) -> String {
    match register.map(|register| (&register.state, register.uid)) {
        None => "no master has claimed the cluster yet".to_owned(),
        Some((RegisterState::Established { ca_sha256, .. }, uid)) => format!("cluster {uid}, CA {ca_sha256}"),
        Some((RegisterState::Initialising { holder, .. }, uid)) => {
            let holder = holder.as_ref().map_or("nobody", |holder| &holder.node_name);
            format!("cluster {uid} is being initialised by {holder}")
        }
    }
}

fn bundle(node: &Node, register: Option<&Register>, reading: Outcome<Reading>) -> Check {
    const WHAT: &str = "join bundle";
    let object = match reading {
        Err(failure) => return Check::failed(WHAT, &failure),
        Ok(Reading { fetched: Fetched::Found(object), .. }) => object,
        Ok(_) => return Check::skipped(WHAT, "there is none yet; a master publishes it"),
    };
    let expectation = Expectation {
        cluster: node.settings.cluster.clone(),
        uid: None,
        ca: None,
        ca_pin: node.settings.ca_pin.clone(),
        now: node.world.time.now(),
        min_life: Duration::ZERO,
        newest: None,
    };
    match verify(&object.body, &expectation.with_register(register)) {
        Ok(verified) => {
            let bundle = verified.bundle();
            let left = expiry(node.world.time.now(), bundle.expires_at);
            let detail = format!("number {} for {}, expires {left}", bundle.sequence, bundle.endpoint);
            Check { finding: Finding::Ok, ..Check::ok(WHAT, detail) }
        }
        Err(failure) => Check::failed(WHAT, &failure),
    }
}
