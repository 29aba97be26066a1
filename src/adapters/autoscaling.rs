//! The Auto Scaling group of an instance, and the instance's way into it and out of it.

use crate::adapters::aws::{Refusal, refusal};
use crate::adapters::cloud::failed;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{
    AutoScalingGroup, AutoScalingInstanceDetails, LaunchTemplateOverrides, LaunchTemplateSpecification,
};
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::ports::{
    GroupInfo, Launch, LaunchOverride, LifecycleAnswer, LifecycleHook, LifecycleResult, TemplateRef, TemplateVersion,
};

/// One attempt; see `Cloud::group_of`.
pub async fn group_of(client: &Client, region: &str, instance_id: &str) -> Outcome<Option<GroupInfo>> {
    let attempted = format!("describe the Auto Scaling group of {instance_id} in {region}");
    let answer = client.describe_auto_scaling_instances().instance_ids(instance_id).send().await;
    let answer =
        answer.map_err(|error| failed(&refusal(error), &attempted, "autoscaling:DescribeAutoScalingInstances"))?;
    let mut instances = answer.auto_scaling_instances.unwrap_or_default().into_iter();
    let Some(instance) = instances.find(|instance| instance.instance_id() == Some(instance_id)) else {
        return Ok(None);
    };
    let name = instance.auto_scaling_group_name().unwrap_or_default().to_owned();
    let answer = client.describe_auto_scaling_groups().auto_scaling_group_names(&name).send().await;
    let answer =
        answer.map_err(|error| failed(&refusal(error), &attempted, "autoscaling:DescribeAutoScalingGroups"))?;
    let mut groups = answer.auto_scaling_groups.unwrap_or_default().into_iter();
    let Some(group) = groups.find(|group| group.auto_scaling_group_name() == Some(&*name)) else {
        // It was deleted in between.
        return Ok(None);
    };
    let mut info = described(&instance, &group);
    if let Some(Launch::Configuration { name, image }) = &mut info.launch {
        *image = configured(client, &attempted, name).await?;
    }
    Ok(Some(info))
}

/// What the answers say; the image of a launch configuration is still to be asked for.
fn described(instance: &AutoScalingInstanceDetails, group: &AutoScalingGroup) -> GroupInfo {
    let mixed = group.mixed_instances_policy().and_then(|policy| policy.launch_template());
    let template = group.launch_template().or_else(|| mixed.and_then(|mixed| mixed.launch_template_specification()));
    let configuration = || {
        let name = group.launch_configuration_name()?.to_owned();
        Some(Launch::Configuration { name, image: None })
    };
    let processes = group.suspended_processes().iter().filter_map(|process| process.process_name());
    GroupInfo {
        name: group.auto_scaling_group_name().unwrap_or_default().to_owned(),
        lifecycle_state: instance.lifecycle_state().unwrap_or_default().to_owned(),
        launched_from: instance.launch_template().and_then(specified),
        launch: template.and_then(specified).map(Launch::Template).or_else(configuration),
        overrides: mixed.map(|mixed| mixed.overrides().iter().map(overridden).collect()).unwrap_or_default(),
        suspended: processes.map(str::to_owned).collect(),
    }
}

fn overridden(with: &LaunchTemplateOverrides) -> LaunchOverride {
    LaunchOverride {
        instance_type: with.instance_type().map(str::to_owned),
        template: with.launch_template_specification().and_then(specified),
        image: with.image_id().map(str::to_owned),
    }
}

fn specified(specification: &LaunchTemplateSpecification) -> Option<TemplateVersion> {
    let id = specification.launch_template_id().map(|id| TemplateRef::Id(id.to_owned()));
    let name = || specification.launch_template_name().map(|name| TemplateRef::Name(name.to_owned()));
    // Auto Scaling takes the default version when none is said (API reference, LaunchTemplateSpecification).
    let version = specification.version().filter(|version| !version.is_empty()).unwrap_or("$Default");
    Some(TemplateVersion { template: id.or_else(name)?, version: version.to_owned() })
}

async fn configured(client: &Client, attempted: &str, name: &str) -> Outcome<Option<String>> {
    let answer = client.describe_launch_configurations().launch_configuration_names(name).send().await;
    let answer =
        answer.map_err(|error| failed(&refusal(error), attempted, "autoscaling:DescribeLaunchConfigurations"))?;
    Ok(answer.launch_configurations().iter().find_map(|configuration| configuration.image_id().map(str::to_owned)))
}

/// One attempt; see `Cloud::terminate_in_group`.
pub async fn terminate(client: &Client, region: &str, instance_id: &str) -> Outcome<()> {
    let request = client.terminate_instance_in_auto_scaling_group().instance_id(instance_id);
    let answer = request.should_decrement_desired_capacity(false).send().await;
    answer.map(|_| ()).map_err(|error| {
        let attempted = format!("terminate {instance_id} in its Auto Scaling group in {region}");
        let refusal = refusal(error);
        let failure = failed(&refusal, &attempted, "autoscaling:TerminateInstanceInAutoScalingGroup");
        match refusal.code.as_deref() {
            Some("ValidationError") => failure.advise("look whether the instance still is in its group"),
            _ => failure,
        }
    })
}

/// One attempt; see `Cloud::complete_lifecycle`.
pub async fn complete(
    client: &Client,
    region: &str,
    hook: &LifecycleHook,
    result: LifecycleResult,
) -> Outcome<LifecycleAnswer> {
    let request = client.complete_lifecycle_action().auto_scaling_group_name(&hook.group);
    let request = request.lifecycle_hook_name(&hook.name).instance_id(&hook.instance_id);
    let answer = request.lifecycle_action_result(result.as_str()).send().await;
    let attempted = format!("complete the lifecycle action {hook} in {region} with {}", result.as_str());
    answered(answer.map(|_| ()).map_err(refusal), &attempted, "autoscaling:CompleteLifecycleAction")
}

/// One attempt; see `Cloud::heartbeat`.
pub async fn heartbeat(client: &Client, region: &str, hook: &LifecycleHook) -> Outcome<LifecycleAnswer> {
    let request = client.record_lifecycle_action_heartbeat().auto_scaling_group_name(&hook.group);
    let answer = request.lifecycle_hook_name(&hook.name).instance_id(&hook.instance_id).send().await;
    let attempted = format!("record a heartbeat of the lifecycle action {hook} in {region}");
    answered(answer.map(|_| ()).map_err(refusal), &attempted, "autoscaling:RecordLifecycleActionHeartbeat")
}

/// Auto Scaling has no code of its own for an action that does not wait: a validation error says so in words.
fn answered(answer: Result<(), Refusal>, attempted: &str, action: &str) -> Outcome<LifecycleAnswer> {
    let refusal = match answer {
        Ok(()) => return Ok(LifecycleAnswer::Taken),
        Err(refusal) => refusal,
    };
    let is_invalid = refusal.code.as_deref() == Some("ValidationError");
    if is_invalid && refusal.detail.to_ascii_lowercase().contains("no active lifecycle action found") {
        return Ok(LifecycleAnswer::NotWaiting);
    }
    let failure = failed(&refusal, attempted, action);
    Err(if is_invalid { failure.advise("check the names of the hook and of its group") } else { failure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_autoscaling::types::{LaunchTemplate, MixedInstancesPolicy, SuspendedProcess};
    use kubestrap_core::model::cause::Cause;

    fn refused(code: &str, cause: Option<Cause>, detail: &str) -> Result<(), Refusal> {
        let (code, detail) = (Some(code.to_owned()), format!("{code}: {detail} (400)"));
        Err(Refusal { status: Some(400), code, cause, certain: true, detail })
    }

    #[test]
    fn an_action_that_does_not_wait_is_an_answer_and_everything_else_a_failure() {
        let judge = |answer| answered(answer, "complete it", "autoscaling:CompleteLifecycleAction");
        assert_eq!(judge(Ok(())), Ok(LifecycleAnswer::Taken));
        let over = "No active Lifecycle Action found with instance ID i-0123456789abcdef0";
        assert_eq!(
            judge(refused("ValidationError", Some(Cause::Configuration), over)),
            Ok(LifecycleAnswer::NotWaiting)
        );
        let table = [
            ("ValidationError", Some(Cause::Configuration), "Lifecycle hook not found", "the names of the hook"),
            ("AccessDenied", Some(Cause::AccessDenied), over, "grant autoscaling:CompleteLifecycleAction"),
            ("ResourceContention", None, "another update", "check the AWS endpoint"),
        ];
        for (code, cause, detail, advice) in table {
            let failure = judge(refused(code, cause, detail)).expect_err(code);
            assert_eq!(failure.cause, cause.unwrap_or(Cause::CloudUnavailable));
            assert!(failure.fix().contains(advice), "{failure}");
        }
    }

    fn template(id: &str, version: Option<&str>) -> LaunchTemplateSpecification {
        LaunchTemplateSpecification::builder().launch_template_id(id).set_version(version.map(str::to_owned)).build()
    }

    #[test]
    fn a_group_says_what_it_starts_in_each_of_its_forms() {
        let instance = AutoScalingInstanceDetails::builder()
            .instance_id("i-1")
            .lifecycle_state("Terminating:Wait")
            .launch_template(template("lt-1", Some("4")))
            .build();
        let group = || AutoScalingGroup::builder().auto_scaling_group_name("web");
        let version = |id: &str, version: &str| TemplateVersion {
            template: TemplateRef::Id(id.to_owned()),
            version: version.to_owned(),
        };
        let plain = described(&instance, &group().launch_template(template("lt-1", None)).build());
        assert_eq!(plain.launch, Some(Launch::Template(version("lt-1", "$Default"))));
        assert_eq!((plain.lifecycle_state.as_str(), plain.overrides.len()), ("Terminating:Wait", 0));
        assert_eq!(plain.launched_from, Some(version("lt-1", "4")));

        let with = LaunchTemplateOverrides::builder().instance_type("m7g.large");
        let with = with.launch_template_specification(template("lt-2", Some("$Latest"))).build();
        let mixed = LaunchTemplate::builder().launch_template_specification(template("lt-1", Some("2")));
        let policy = MixedInstancesPolicy::builder().launch_template(mixed.overrides(with).build()).build();
        let stopped = SuspendedProcess::builder().process_name("Launch").build();
        let mixed = described(&instance, &group().mixed_instances_policy(policy).suspended_processes(stopped).build());
        assert_eq!(mixed.launch, Some(Launch::Template(version("lt-1", "2"))));
        let (instance_type, template) = (Some("m7g.large".to_owned()), Some(version("lt-2", "$Latest")));
        assert_eq!(mixed.overrides, [LaunchOverride { instance_type, template, image: None }]);
        assert_eq!(mixed.suspended, ["Launch"]);

        let old = described(&instance, &group().launch_configuration_name("lc").build());
        assert_eq!(old.launch, Some(Launch::Configuration { name: "lc".to_owned(), image: None }));
        assert_eq!(described(&instance, &group().build()).launch, None);
    }
}
