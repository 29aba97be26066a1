//! EC2 and its instance metadata service. EC2 is consistent eventually: instances appear late, are missing from some
//! answers, and have states of minutes ago. But it never shows as terminated what lives, and never hides for long what
//! it has known for long; the bounds are below.

use super::Desk;
use crate::account::{Group, Hook};
use crate::faults::Fault;
use crate::machine::{ACCOUNT, Machine, REGION};
use crate::network::{Far, Way};
use async_trait::async_trait;
use jiff::SignedDuration;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::identity::{Ec2, Role};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{
    Cloud, GroupInfo, ImageInfo, ImageQuery, InstanceInfo, LifecycleAnswer, LifecycleHook, LifecycleResult, Metadata,
    MetadataAnswer, RegistryToken, TemplateInfo, TemplateVersion, TokenRequest,
};
use std::time::Duration;

/// A record that is older makes NotFound count (safety rule 2).
const AN_HOUR: SignedDuration = SignedDuration::from_hours(1);
/// In so many answers in a row an instance that has been known is missing at most.
const HIDDEN_AT_MOST: u32 = 3;
/// A state that is repeated is no older than this.
const OLDEST_STATE: Duration = Duration::from_secs(600);

#[async_trait(?Send)]
impl Cloud for Desk {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        let universe = &self.universe;
        self.ask("describe instances").await?;
        let blind = universe.timeline.now() < universe.blind_until.get();
        if blind {
            universe.count("ec2-blind");
            let register = universe.shared("cluster.json");
            if register.is_some_and(|object| universe.wall().duration_since(object.modified) > AN_HOUR) {
                universe.count("held-for-an-hour");
            }
        }
        let describe = |id: &String| {
            let of_id = |ec2: &Ec2| ec2.instance_id == *id && ec2.region == region;
            let machine = universe.machines.iter().find(|machine| machine.identity.ec2().is_some_and(of_id))?;
            let state = self.state_shown(machine).filter(|_| !blind)?.to_owned();
            Some(InstanceInfo {
                instance_id: id.clone(),
                account: ACCOUNT.to_owned(),
                state,
                hop_limit: Some(1),
                image_id: machine.identity.ec2().map(|ec2| ec2.image_id.clone()),
                launched_at: Some(universe.wall_at(machine.starts_at.get())),
            })
        };
        let found: Vec<InstanceInfo> = ids.iter().filter_map(describe).collect();
        self.back(Far::Cloud).await;
        Ok(found)
    }

    async fn credentials(&self) -> Outcome<String> {
        Ok("simulated".to_owned())
    }

    async fn registry_token(&self, request: &TokenRequest) -> Outcome<RegistryToken> {
        self.ask_ecr(&request.api).await
    }

    async fn images(&self, _region: &str, query: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        self.ask("describe images").await?;
        let found = self.universe.account.images(query);
        self.back(Far::Cloud).await;
        Ok(found)
    }

    async fn parameter(&self, _region: &str, name: &str) -> Outcome<Option<String>> {
        self.ask("get a parameter").await?;
        let found = self.universe.account.parameters.borrow().get(name).cloned();
        self.back(Far::Cloud).await;
        Ok(found)
    }

    async fn launch_template(&self, _region: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        self.ask("describe a launch template").await?;
        let found = self.universe.account.template(&of.template, &of.version);
        self.back(Far::Cloud).await;
        Ok(found)
    }

    async fn group_of(&self, _region: &str, instance_id: &str) -> Outcome<Option<GroupInfo>> {
        self.ask("describe the group of an instance").await?;
        let found = self.group(instance_id);
        self.back(Far::Cloud).await;
        Ok(found)
    }

    async fn terminate_in_group(&self, _region: &str, instance_id: &str) -> Outcome<()> {
        self.ask("terminate an instance").await?;
        if self.group(instance_id).is_none() {
            let why = "400 ValidationError: Instance Id not found";
            return Err(Failure::new(Cause::Configuration, format!("terminate {instance_id} in its group"), why));
        }
        if let Some(machine) = self.instance(instance_id).map(|machine| machine.index) {
            if self.universe.scenario.rolls {
                self.universe.judge_termination(machine);
            }
            self.universe.die(machine);
        }
        self.back(Far::Cloud).await;
        Ok(())
    }

    async fn complete_lifecycle(
        &self,
        _region: &str,
        hook: &LifecycleHook,
        result: LifecycleResult,
    ) -> Outcome<LifecycleAnswer> {
        self.ask("complete a lifecycle action").await?;
        let ended = self.waits(hook, |group, wait| group.waiting.remove(wait));
        // An instance that was on its way out goes, and so does one that failed on its way in.
        let goes =
            ended.as_ref().is_some_and(|of| matches!(of, Hook::Terminating(_)) || result == LifecycleResult::Abandon);
        let machine = self.instance(&hook.instance_id).filter(|_| goes).map(|machine| machine.index);
        machine.into_iter().for_each(|machine| self.universe.die(machine));
        self.back(Far::Cloud).await;
        Ok(if ended.is_some() { LifecycleAnswer::Taken } else { LifecycleAnswer::NotWaiting })
    }

    async fn heartbeat(&self, _region: &str, hook: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        self.ask("record a heartbeat").await?;
        // A wait has no end in this world: nobody needs to be told twice.
        let waits = self.waits(hook, |_, _| true);
        self.back(Far::Cloud).await;
        Ok(if waits.is_some() { LifecycleAnswer::Taken } else { LifecycleAnswer::NotWaiting })
    }
}

#[async_trait(?Send)]
impl Metadata for Desk {
    async fn token(&self, _ttl: Duration) -> Outcome<MetadataAnswer> {
        match self.reach().await? {
            (_, Some(status)) if status != 401 && status != 404 => Ok(MetadataAnswer { status, body: Vec::new() }),
            _ => Ok(MetadataAnswer { status: 200, body: self.session().into_bytes() }),
        }
    }

    async fn get(&self, path: &str, token: &Secret) -> Outcome<MetadataAnswer> {
        let (ec2, fault) = self.reach().await?;
        if let Some(status) = fault {
            return Ok(MetadataAnswer { status, body: Vec::new() });
        }
        if token.expose() != self.session() {
            self.universe.count("imds-expired-401");
            return Ok(MetadataAnswer { status: 401, body: Vec::new() });
        }
        let identity = &self.universe.machines[self.machine].identity;
        let notice = self.universe.machines[self.machine].notice.borrow().clone();
        let body = match path.trim_start_matches('/') {
            announced if notice.as_ref().is_some_and(|(path, _)| *path == announced) => {
                notice.map(|(_, text)| text).unwrap_or_default()
            }
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
    /// On the way to an API of AWS: what may go wrong before anything was done.
    async fn ask(&self, what: &str) -> Outcome<()> {
        self.there(Far::Cloud).await;
        if self.universe.strikes(Fault::TimeOut) {
            std::future::pending::<()>().await;
        }
        if self.universe.strikes(Fault::Ec2Throttled) {
            return Err(Failure::new(Cause::Throttled, what, "503 RequestLimitExceeded"));
        }
        Ok(())
    }

    /// The machine that is this instance.
    fn instance(&self, id: &str) -> Option<&Machine> {
        self.universe.machines.iter().find(|machine| machine.identity.ec2().is_some_and(|ec2| ec2.instance_id == id))
    }

    /// What Auto Scaling says of an instance; it forgets one that is terminated.
    fn group(&self, instance_id: &str) -> Option<GroupInfo> {
        let group = self.universe.account.group.borrow();
        let Group { name, launch, overrides, waiting } = group.as_ref()?;
        let machine = self.instance(instance_id).filter(|machine| machine.role == Role::Worker)?;
        let state = machine.ec2_state(self.universe.timeline.now())?;
        let lifecycle_state = match (waiting.iter().find(|(of, _)| of == instance_id), state) {
            (_, "terminated") => return None,
            (_, "shutting-down") => "Terminating",
            (Some((_, hook)), _) => hook.state(),
            (None, _) => "InService",
        };
        Some(GroupInfo {
            name: name.clone(),
            lifecycle_state: lifecycle_state.to_owned(),
            launched_from: None,
            launch: Some(launch.clone()),
            overrides: overrides.clone(),
            suspended: Vec::new(),
        })
    }

    /// The wait of an instance at a hook, when `look` agrees.
    fn waits(&self, hook: &LifecycleHook, look: impl FnOnce(&mut Group, &(String, Hook)) -> bool) -> Option<Hook> {
        let mut group = self.universe.account.group.borrow_mut();
        let group = group.as_mut().filter(|group| group.name == hook.group)?;
        let is_this = |(instance, of): &&(String, Hook)| *instance == hook.instance_id && of.name() == hook.name;
        let wait = group.waiting.iter().find(is_this).cloned()?;
        look(group, &wait).then_some(wait.1)
    }

    /// What EC2 shows of a machine in this answer; `None` when it does not show it.
    fn state_shown(&self, machine: &Machine) -> Option<&'static str> {
        let universe = &self.universe;
        let now = universe.timeline.now();
        let state = machine.ec2_state(now);
        if state.is_none() && now < machine.known_from.get() && machine.is_launched() {
            universe.count("ec2-late");
        }
        let state = state?;
        let fault = if machine.index == self.machine { Fault::Ec2HidesAsker } else { Fault::Ec2Hides };
        if machine.hidden.get() < HIDDEN_AT_MOST && universe.strikes(fault) {
            machine.hidden.set(machine.hidden.get() + 1);
            return None;
        }
        machine.hidden.set(0);
        if !universe.strikes(Fault::Ec2OldState) {
            return Some(state);
        }
        let ago = universe.rng.between(Duration::from_secs(5), OLDEST_STATE);
        Some(machine.ec2_state(now.saturating_sub(ago)).unwrap_or("pending"))
    }

    /// A session token lives as long as the boot, here.
    fn session(&self) -> String {
        format!("imds-session-{}", self.universe.machines[self.machine].state.borrow().boots)
    }

    /// Who is asked for, and the status of an answer that is an error.
    async fn reach(&self) -> Outcome<(Ec2, Option<u16>)> {
        let universe = &self.universe;
        let nobody = |why| Failure::new(Cause::MetadataUnavailable, "ask the instance metadata service", why);
        let machine = &universe.machines[self.machine];
        self.there(Far::Cloud).await;
        if universe.timeline.now() < machine.imds_from.get() {
            universe.count("imds-late");
            return Err(nobody("connection refused"));
        }
        if self.way(Far::Cloud) == Way::Deaf {
            universe.count("answer-lost-in-cut");
            std::future::pending::<()>().await;
        }
        if universe.strikes(Fault::ImdsLost) {
            return Err(nobody("no answer"));
        }
        let Some(ec2) = machine.identity.ec2().cloned() else { return Err(nobody("no route")) };
        let statuses =
            [(Fault::Imds404, 404), (Fault::Imds5xx, 503), (Fault::ImdsThrottled, 429), (Fault::ImdsExpired, 401)];
        let fault = statuses.iter().find(|(fault, _)| universe.strikes(*fault)).map(|(_, status)| *status);
        Ok((ec2, fault))
    }
}

#[cfg(test)]
mod tests;
