//! What the Auto Scaling group of an instance would start in its place. A group that starts the old image again would be
//! rolled for ever.

use super::view::Launches;
use crate::model::cause::Outcome;
use crate::ports::{Cloud, Launch, TemplateVersion};
use std::collections::BTreeSet;

/// How a launch template names an SSM parameter instead of an image.
const SSM: &str = "resolve:ssm:";

/// Asks Auto Scaling, EC2 and SSM. What cannot be learnt now is [`Launches::Nothing`], with the reason.
pub async fn launches(cloud: &dyn Cloud, region: &str, instance: &str) -> Launches {
    match images(cloud, region, instance).await {
        Err(failure) => {
            Launches::Nothing(format!("it is not known what its Auto Scaling group would start: {failure}"))
        }
        Ok(Err(why)) => Launches::Nothing(why),
        Ok(Ok(images)) => {
            let mut all = images.iter();
            match (all.next(), all.next()) {
                (Some(one), None) => Launches::Image(one.clone()),
                (None, _) => Launches::Nothing("its Auto Scaling group names no image".to_owned()),
                _ => {
                    let names = images.iter().cloned().collect::<Vec<_>>().join(", ");
                    Launches::Nothing(format!("its Auto Scaling group would start one of several images: {names}"))
                }
            }
        }
    }
}

async fn images(cloud: &dyn Cloud, region: &str, instance: &str) -> Outcome<Result<BTreeSet<String>, String>> {
    let Some(group) = cloud.group_of(region, instance).await? else {
        return Ok(Err(format!("{instance} is in no Auto Scaling group, so nothing would replace it")));
    };
    if group.suspended.iter().any(|process| process == "Launch") {
        return Ok(Err(format!(
            "the Auto Scaling group {} starts nothing: its process Launch is suspended",
            group.name
        )));
    }
    let mut found = BTreeSet::new();
    let main = match &group.launch {
        Some(Launch::Template(template)) => of_template(cloud, region, template).await?,
        Some(Launch::Configuration { image, .. }) => image.clone(),
        None => None,
    };
    // Overrides that name an image or a template stand for themselves; the others start what the group says.
    let mut is_main_used = group.overrides.is_empty();
    for other in &group.overrides {
        match (&other.image, &other.template) {
            (Some(image), _) => found.extend(resolved(cloud, region, image).await?),
            (None, Some(template)) => found.extend(of_template(cloud, region, template).await?),
            (None, None) => is_main_used = true,
        }
    }
    if is_main_used {
        let Some(main) = main else {
            return Ok(Err(format!("the Auto Scaling group {} names no image that exists", group.name)));
        };
        found.insert(main);
    }
    Ok(Ok(found))
}

async fn of_template(cloud: &dyn Cloud, region: &str, template: &TemplateVersion) -> Outcome<Option<String>> {
    match cloud.launch_template(region, template).await?.and_then(|found| found.image) {
        Some(image) => resolved(cloud, region, &image).await,
        None => Ok(None),
    }
}

async fn resolved(cloud: &dyn Cloud, region: &str, image: &str) -> Outcome<Option<String>> {
    match image.strip_prefix(SSM) {
        Some(parameter) => cloud.parameter(region, parameter).await,
        None => Ok(Some(image.to_owned())),
    }
}
