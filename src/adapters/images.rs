//! Images and launch templates of EC2.

use crate::adapters::aws::refusal;
use crate::adapters::cloud::failed;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Image};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{ImageInfo, ImageQuery, TemplateInfo, TemplateRef, TemplateVersion};
use std::collections::BTreeMap;

/// Images in a page: EC2 throttles requests without pages sooner.
const PAGE: i32 = 500;
/// Ten thousand images are not a choice.
const PAGES: usize = 20;

/// One attempt; see `Cloud::images`.
pub async fn describe(client: &Client, region: &str, query: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
    let attempted = format!("describe images ({query}) in {region}");
    match query {
        ImageQuery::Ids(ids) => {
            let mut found = Vec::new();
            // One by one: EC2 refuses a list in which one does not exist.
            for id in ids {
                found.extend(by_id(client, &attempted, id).await?);
            }
            Ok(found)
        }
        ImageQuery::Newest { owners, tags, name, architecture } => {
            let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
            let mut filters = vec![filter("state", "available"), filter("architecture", architecture)];
            // EC2's wildcards would make another tag of this one.
            filters.extend(tags.iter().map(|(key, value)| filter(&format!("tag:{key}"), &literal(value))));
            filters.extend(name.iter().map(|name| filter("name", name)));
            listed(client, &attempted, owners, filters).await
        }
    }
}

/// A filter's value that fits this text alone.
fn literal(text: &str) -> String {
    text.chars().flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

async fn by_id(client: &Client, attempted: &str, id: &str) -> Outcome<Vec<ImageInfo>> {
    let request = client.describe_images().image_ids(id).include_deprecated(true).include_disabled(true);
    match request.send().await {
        Ok(answer) => Ok(answer.images().iter().filter_map(image).collect()),
        Err(error) => {
            let refusal = refusal(error);
            match refusal.code.as_deref() {
                Some("InvalidAMIID.NotFound" | "InvalidAMIID.Unavailable") => Ok(Vec::new()),
                _ => Err(failed(&refusal, attempted, "ec2:DescribeImages")),
            }
        }
    }
}

async fn listed(client: &Client, attempted: &str, owners: &[String], filters: Vec<Filter>) -> Outcome<Vec<ImageInfo>> {
    let mut found = Vec::new();
    let mut page = None;
    for _ in 0..PAGES {
        let request = client.describe_images().set_owners(Some(owners.to_vec())).set_filters(Some(filters.clone()));
        let request = request.include_deprecated(true).max_results(PAGE).set_next_token(page);
        let answer = request.send().await;
        let answer = answer.map_err(|error| failed(&refusal(error), attempted, "ec2:DescribeImages"))?;
        found.extend(answer.images().iter().filter_map(image));
        match answer.next_token {
            Some(next) if !next.is_empty() => page = Some(next),
            _ => return Ok(found),
        }
    }
    let why = format!("there are more than {PAGES} pages of them");
    Err(Failure::new(Cause::Configuration, attempted, why).advise("narrow the choice by tags or a name"))
}

fn image(image: &Image) -> Option<ImageInfo> {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let tags = image.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), text(tag.value()))));
    Some(ImageInfo {
        id: image.image_id()?.to_owned(),
        name: text(image.name()),
        architecture: text(image.architecture().map(|architecture| architecture.as_str())),
        state: text(image.state().map(|state| state.as_str())),
        created_at: image.creation_date().and_then(|at| at.parse().ok()),
        deprecated_at: image.deprecation_time().and_then(|at| at.parse().ok()),
        owner: text(image.owner_id()),
        tags: tags.collect::<BTreeMap<_, _>>(),
    })
}

/// One attempt; see `Cloud::launch_template`.
pub async fn launch_template(client: &Client, region: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
    let attempted = format!("describe the launch template {of} in {region}");
    // Aliases are not resolved here: that would take ssm:GetParameters, and hide where the image's id came from.
    let request = client.describe_launch_template_versions().versions(&of.version);
    let request = match &of.template {
        TemplateRef::Id(id) => request.launch_template_id(id),
        TemplateRef::Name(name) => request.launch_template_name(name),
    };
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let refusal = refusal(error);
            return match refusal.code.as_deref() {
                Some(
                    "InvalidLaunchTemplateId.NotFound"
                    | "InvalidLaunchTemplateId.NotFoundException"
                    | "InvalidLaunchTemplateName.NotFoundException"
                    | "InvalidLaunchTemplateId.VersionNotFound",
                ) => Ok(None),
                _ => Err(failed(&refusal, &attempted, "ec2:DescribeLaunchTemplateVersions")),
            };
        }
    };
    let found = answer.launch_template_versions().first().and_then(|version| {
        let image = version.launch_template_data().and_then(|data| data.image_id()).map(str::to_owned);
        Some(TemplateInfo { version: version.version_number()?.try_into().ok()?, image })
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tags_value_is_no_pattern() {
        assert_eq!(literal("a*b?c\\d e"), "a\\*b\\?c\\\\d e");
    }
}
