//! The world as an arbiter reaches it.

use super::{Instance, REGION, World};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::secret::Secret;
use crate::ports::*;
use async_trait::async_trait;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[async_trait(?Send)]
impl Cluster for World {
    async fn call(&self, request: ApiRequest) -> Outcome<ApiAnswer> {
        let body = request.body.as_ref().map(|(_, bytes)| serde_json::from_slice(bytes).expect("JSON"));
        let (status, object) = self.faulty(|| self.serve(request.method, &request.path, body.as_ref())).await?;
        Ok(ApiAnswer { status, body: object.to_string().into_bytes() })
    }
}

fn none<T>() -> Outcome<T> {
    Err(Failure::new(Cause::Internal, "call a port", "this test has none"))
}

#[async_trait(?Send)]
impl Cloud for World {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        assert_eq!(region, REGION);
        self.faulty(|| {
            if self.state.borrow().ec2_is_away {
                return Vec::new();
            }
            let state = self.state.borrow();
            let shown = ids.iter().filter_map(|id| state.instances.get_key_value(id));
            let info = |(id, one): (&String, &Instance)| InstanceInfo {
                instance_id: id.clone(),
                account: "123456789012".into(),
                state: one.state.into(),
                hop_limit: None,
                image_id: Some(one.image.clone()),
                launched_at: None,
            };
            shown.map(info).collect()
        })
        .await
    }
    async fn credentials(&self) -> Outcome<String> {
        none()
    }
    async fn registry_token(&self, _: &TokenRequest) -> Outcome<RegistryToken> {
        none()
    }
    async fn images(&self, _: &str, _: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        none()
    }
    async fn parameter(&self, _: &str, name: &str) -> Outcome<Option<String>> {
        Ok(self.state.borrow().templates.get(name).cloned())
    }
    async fn launch_template(&self, _: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        let group = of.template.as_str().to_owned();
        self.faulty(|| Some(TemplateInfo { version: 1, image: Some(format!("resolve:ssm:{group}")) })).await
    }
    async fn group_of(&self, _: &str, id: &str) -> Outcome<Option<GroupInfo>> {
        self.faulty(|| {
            let name = self.state.borrow().instances.get(id)?.group.clone()?;
            let template = TemplateVersion { template: TemplateRef::Name(name.clone()), version: "$Latest".into() };
            Some(GroupInfo {
                name,
                lifecycle_state: "InService".into(),
                launched_from: None,
                launch: Some(Launch::Template(template)),
                overrides: Vec::new(),
                suspended: Vec::new(),
            })
        })
        .await
    }
    async fn terminate_in_group(&self, region: &str, id: &str) -> Outcome<()> {
        assert_eq!(region, REGION);
        self.faulty(|| self.terminate(id)).await
    }
    async fn complete_lifecycle(&self, _: &str, _: &LifecycleHook, _: LifecycleResult) -> Outcome<LifecycleAnswer> {
        none()
    }
    async fn heartbeat(&self, _: &str, _: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        none()
    }
}

#[async_trait(?Send)]
impl Objects for World {
    async fn get(&self, _: &str, _: Option<&ETag>) -> Outcome<Reading> {
        none()
    }
    async fn put(&self, _: &str, _: Vec<u8>, _: Condition) -> Outcome<Written> {
        none()
    }
    async fn delete(&self, _: &str, _: &ETag) -> Outcome<Deleted> {
        none()
    }
    async fn list(&self, _: &str, _: Option<&str>) -> Outcome<KeyPage> {
        none()
    }
    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        none()
    }
}

#[async_trait(?Send)]
impl Jobs for World {
    async fn start(&self, _: &JobSpec) -> Outcome<()> {
        none()
    }
    async fn observe(&self, _: &str) -> Outcome<JobState> {
        none()
    }
    async fn stop(&self, _: &str) -> Outcome<()> {
        none()
    }
    async fn output(&self, _: &str, _: usize) -> Outcome<String> {
        none()
    }
    async fn forget(&self, _: &str) -> Outcome<()> {
        none()
    }
    async fn run(&self, _: &[String], _: Duration) -> Outcome<ToolOutput> {
        none()
    }
}

#[async_trait(?Send)]
impl Metadata for World {
    async fn token(&self, _: Duration) -> Outcome<MetadataAnswer> {
        none()
    }
    async fn get(&self, _: &str, _: &Secret) -> Outcome<MetadataAnswer> {
        none()
    }
}

impl Host for World {
    fn hostname(&self) -> Outcome<String> {
        none()
    }
    fn default_address(&self) -> Outcome<Option<IpAddr>> {
        none()
    }
    fn program(&self) -> Outcome<PathBuf> {
        none()
    }
}
