//! EC2 and its instance metadata service. EC2 is eventually consistent: a young instance may be unknown for minutes.

use super::Desk;
use crate::machine::{ACCOUNT, REGION};
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::identity::Ec2;
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{Cloud, InstanceInfo, Metadata, MetadataAnswer};
use std::time::Duration;

const TOKEN: &str = "imds-session";

#[async_trait(?Send)]
impl Cloud for Desk {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        let universe = &self.universe;
        universe.sleep(universe.travel()).await;
        if universe.unlucky(universe.scenario.rates.hang) {
            std::future::pending::<()>().await;
        }
        if universe.unlucky(universe.scenario.rates.read_fails) {
            return Err(Failure::new(Cause::CloudUnavailable, "describe instances", "503 RequestLimitExceeded"));
        }
        let now = universe.timeline.now();
        let describe = |id: &String| {
            let of_id = |ec2: &Ec2| ec2.instance_id == *id && ec2.region == region;
            let machine = universe.machines.iter().find(|machine| machine.identity.ec2().is_some_and(of_id))?;
            let state = machine.ec2_state(now)?.to_owned();
            Some(InstanceInfo { instance_id: id.clone(), account: ACCOUNT.to_owned(), state, hop_limit: Some(1) })
        };
        let found: Vec<InstanceInfo> = ids.iter().filter_map(describe).collect();
        universe.sleep(universe.travel()).await;
        Ok(found)
    }

    async fn credentials(&self) -> Outcome<String> {
        Ok("simulated".to_owned())
    }
}

#[async_trait(?Send)]
impl Metadata for Desk {
    async fn token(&self, _ttl: Duration) -> Outcome<MetadataAnswer> {
        self.reach().await?;
        Ok(MetadataAnswer { status: 200, body: TOKEN.as_bytes().to_vec() })
    }

    async fn get(&self, path: &str, token: &Secret) -> Outcome<MetadataAnswer> {
        let ec2 = self.reach().await?;
        if token.expose() != TOKEN {
            return Ok(MetadataAnswer { status: 401, body: Vec::new() });
        }
        let identity = &self.universe.machines[self.machine].identity;
        let body = match path.trim_start_matches('/') {
            "dynamic/instance-identity/document" => serde_json::json!({
                "accountId": ec2.account, "instanceId": ec2.instance_id, "region": ec2.region,
                "availabilityZone": ec2.zone, "instanceType": ec2.instance_type, "imageId": ec2.image_id,
                "privateIp": identity.address.to_string(), "architecture": "arm64", "version": "2017-09-30",
            })
            .to_string(),
            "meta-data/instance-id" => ec2.instance_id,
            "meta-data/local-hostname" | "meta-data/hostname" => identity.node_name.clone(),
            "meta-data/local-ipv4" => identity.address.to_string(),
            "meta-data/ami-id" => ec2.image_id,
            "meta-data/instance-type" => ec2.instance_type,
            "meta-data/placement/availability-zone" => ec2.zone,
            "meta-data/placement/region" => REGION.to_owned(),
            "meta-data/services/partition" => ec2.partition,
            _ => return Ok(MetadataAnswer { status: 404, body: Vec::new() }),
        };
        Ok(MetadataAnswer { status: 200, body: body.into_bytes() })
    }
}

impl Desk {
    async fn reach(&self) -> Outcome<Ec2> {
        let universe = &self.universe;
        universe.sleep(Duration::from_millis(2)).await;
        let nobody = || Failure::new(Cause::MetadataUnavailable, "ask the instance metadata service", "no answer");
        if universe.unlucky(universe.scenario.rates.read_fails) {
            return Err(nobody());
        }
        universe.machines[self.machine].identity.ec2().cloned().ok_or_else(nobody)
    }
}
