//! An EC2 instance in a group, for the stories of its end and its launch: the metadata service, Auto Scaling, and a Node.

use super::events;
use crate::gate::Open;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::{Ec2, Identity, Origin};
use crate::model::secret::Secret;
use crate::node::{Event, Node, Observer};
use crate::ports::{
    Cloud, GroupInfo, ImageInfo, ImageQuery, InstanceInfo, LifecycleAnswer, LifecycleHook, LifecycleResult, Metadata,
    MetadataAnswer, RegistryToken, TemplateInfo, TemplateVersion, Time, TokenRequest,
};
use crate::store::fake::{FakeTime, Lab, OneFile, run};
use crate::testing::api::{NODE, Server};
use crate::testing::{identity, no_jobs, settings};
use crate::world::{Ports, World};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub const INSTANCE: &str = "i-0123456789abcdef0";

/// AWS, as the instance sees it.
pub struct Aws {
    time: Rc<FakeTime>,
    /// Status and body of a path; 404 for all others.
    pub says: RefCell<BTreeMap<&'static str, (u16, String)>>,
    /// The hook at which the instance waits.
    pub waiting: RefCell<Option<String>>,
    pub in_group: Cell<bool>,
    /// How often Auto Scaling throttles from now on.
    pub throttled: Cell<u32>,
    /// What Auto Scaling was told and what it answered, without questions about the group.
    pub heard: RefCell<Vec<(Timestamp, String)>>,
    pub looks: Cell<usize>,
}

impl Aws {
    fn hear(&self, word: &str, hook: &LifecycleHook, ends: bool) -> Outcome<LifecycleAnswer> {
        assert_eq!((hook.group.as_str(), hook.instance_id.as_str()), ("workers", INSTANCE));
        if self.throttled.get() > 0 {
            self.throttled.set(self.throttled.get() - 1);
            return Err(Failure::new(Cause::Throttled, format!("{word} {hook}"), "Rate exceeded"));
        }
        let waits = self.waiting.borrow().as_deref() == Some(&hook.name);
        if waits && ends {
            self.waiting.replace(None);
        }
        let answer = if waits { LifecycleAnswer::Taken } else { LifecycleAnswer::NotWaiting };
        self.heard.borrow_mut().push((self.time.now(), format!("{word} {}: {answer:?}", hook.name)));
        Ok(answer)
    }

    /// What was told, without times.
    pub fn words(&self) -> Vec<String> {
        self.heard.borrow().iter().map(|(_, word)| word.clone()).collect()
    }

    pub fn count(&self, word: &str) -> usize {
        self.heard.borrow().iter().filter(|(_, told)| told.starts_with(word)).count()
    }

    pub fn say(&self, path: &'static str, text: impl Into<String>) {
        self.says.borrow_mut().insert(path, (200, text.into()));
    }

    /// A spot interruption in so many seconds.
    pub fn interrupt_in(&self, seconds: i64) -> Timestamp {
        let at = self.time.now() + SignedDuration::from_secs(seconds);
        self.say(events::SPOT, format!(r#"{{"action": "terminate", "time": "{at}"}}"#));
        at
    }
}

#[async_trait(?Send)]
impl Metadata for Aws {
    async fn token(&self, _ttl: Duration) -> Outcome<MetadataAnswer> {
        Ok(MetadataAnswer { status: 200, body: b"token".to_vec() })
    }

    async fn get(&self, path: &str, _token: &Secret) -> Outcome<MetadataAnswer> {
        self.looks.set(self.looks.get() + 1);
        let (status, text) = self.says.borrow().get(path).cloned().unwrap_or((404, String::new()));
        Ok(MetadataAnswer { status, body: text.into_bytes() })
    }
}

#[async_trait(?Send)]
impl Cloud for Aws {
    async fn instances(&self, _: &str, _: &[String]) -> Outcome<Vec<InstanceInfo>> {
        unreachable!("instances")
    }
    async fn credentials(&self) -> Outcome<String> {
        unreachable!("credentials")
    }
    async fn registry_token(&self, _: &TokenRequest) -> Outcome<RegistryToken> {
        unreachable!("registry_token")
    }
    async fn images(&self, _: &str, _: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        unreachable!("images")
    }
    async fn parameter(&self, _: &str, _: &str) -> Outcome<Option<String>> {
        unreachable!("parameter")
    }
    async fn launch_template(&self, _: &str, _: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        unreachable!("launch_template")
    }
    async fn group_of(&self, region: &str, instance_id: &str) -> Outcome<Option<GroupInfo>> {
        assert_eq!((region, instance_id), ("eu-west-1", INSTANCE));
        Ok(self.in_group.get().then(|| GroupInfo {
            name: "workers".to_owned(),
            lifecycle_state: "InService".to_owned(),
            launched_from: None,
            launch: None,
            overrides: Vec::new(),
            suspended: Vec::new(),
        }))
    }
    async fn terminate_in_group(&self, _: &str, _: &str) -> Outcome<()> {
        unreachable!("terminate_in_group")
    }
    async fn complete_lifecycle(
        &self,
        _: &str,
        hook: &LifecycleHook,
        result: LifecycleResult,
    ) -> Outcome<LifecycleAnswer> {
        self.hear(result.as_str(), hook, true)
    }
    async fn heartbeat(&self, _: &str, hook: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        self.hear("heartbeat", hook, false)
    }
}

/// What was told to people.
#[derive(Default)]
pub struct Told(pub RefCell<Vec<String>>);

impl Observer for Told {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => self.0.borrow_mut().push((*text).to_owned()),
            Event::Retrying { failure, .. } => self.0.borrow_mut().push(failure.to_string()),
            _ => {}
        }
    }
}

/// An instance.
pub struct Story {
    pub aws: Rc<Aws>,
    pub api: Rc<Server>,
    pub told: Rc<Told>,
    pub end: crate::config::settings::EndSettings,
    pub on_ec2: bool,
    files: Rc<OneFile>,
}

impl Story {
    pub fn new() -> Self {
        let time = Lab::new().time;
        let aws = Aws {
            time: time.clone(),
            says: RefCell::default(),
            waiting: RefCell::default(),
            in_group: Cell::new(true),
            throttled: Cell::new(0),
            heard: RefCell::default(),
            looks: Cell::new(0),
        };
        let (api, told, files) = (Server::new(&time), Rc::default(), Rc::default());
        Story { aws: Rc::new(aws), api, told, end: Default::default(), on_ec2: true, files }
    }

    /// The node in a new life of its agent.
    pub fn node(&self) -> Node {
        self.api.revive();
        let base = crate::testing::node(settings("role: worker"), &self.api, &no_jobs(), &(self.files.clone() as _));
        let ports = Ports {
            objects: base.world.objects.clone(),
            files: self.files.clone(),
            jobs: base.world.jobs.clone(),
            metadata: self.aws.clone(),
            cloud: self.aws.clone(),
            cluster: self.api.clone(),
            vault: Rc::new(crate::ports::Nobody),
            etcd: Rc::new(crate::ports::Nobody),
            host: base.world.host.clone(),
            time: self.api.time.clone(),
        };
        let world = World::new(ports, Rc::new(Open), self.told.clone());
        let mut settings = settings("role: worker");
        settings.end = self.end.clone();
        Node::new(Rc::new(settings), Rc::new(self.identity()), world)
    }

    fn identity(&self) -> Identity {
        let host = Identity { node_name: NODE.to_owned(), ..identity("own") };
        let ec2 = Ec2 {
            instance_id: INSTANCE.to_owned(),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
            zone: "eu-west-1a".to_owned(),
            instance_type: "m7g.large".to_owned(),
            image_id: "ami-1".to_owned(),
        };
        if self.on_ec2 { Identity { origin: Origin::Ec2(ec2), ..host } } else { host }
    }

    pub fn now(&self) -> Timestamp {
        self.api.time.now()
    }

    /// Ticks of a duty for so many seconds; false when the agent died on the way.
    pub fn live(&self, node: &Node, duty: &dyn crate::engine::Duty, seconds: i64) -> bool {
        let until = self.now() + SignedDuration::from_secs(seconds);
        while self.now() < until {
            match run(duty.tick(node)) {
                Some(Ok(after)) => self.api.time.pass(after),
                Some(Err(failure)) if failure.cause == Cause::Internal => return false,
                Some(Err(failure)) => {
                    self.told.0.borrow_mut().push(failure.to_string());
                    self.api.time.pass(Duration::from_secs(5));
                }
                None => return false,
            }
        }
        true
    }

    pub fn told(&self, words: &str) -> usize {
        self.told.0.borrow().iter().filter(|text| text.contains(words)).count()
    }
}
