use super::*;
use crate::adapters::net::Names;
use kubestrap_core::ports::{Launch, TemplateRef};

#[test]
fn the_kind_of_credentials_is_told_and_nothing_else() {
    let found = aws_credential_types::Credentials::new("AKIAX", "hunter2", None, None, "Environment");
    assert_eq!(provider_name(&found), "Environment");
}

/// moto's server answers for every service at one address.
#[test]
fn ec2_tells_what_it_knows_and_leaves_out_what_it_does_not() {
    let Some(endpoint) = std::env::var("KUBESTRAP_TEST_S3").ok().filter(|url| !url.is_empty()) else {
        println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let aws = Rc::new(Aws::with_credentials(&Names::default(), "eu-west-1"));
        let config = aws_sdk_ec2::config::Builder::from(aws.config().await.expect("config"));
        let client = aws_sdk_ec2::Client::from_conf(config.endpoint_url(&endpoint).build());
        let made = client.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1).send().await;
        let made = made.expect("an instance").instances()[0].instance_id().expect("an id").to_owned();
        let ec2 = AwsCloud::new(aws, Endpoints { ec2: Some(endpoint), ..Endpoints::default() });
        let ids = [made.clone(), "i-0123456789abcdef0".to_owned()];
        let found = ec2.instances("eu-west-1", &ids).await.expect("an answer");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].image_id.as_deref(), Some("ami-12c6146b"));
        assert!(found[0].launched_at.is_some(), "{found:?}");
        assert_eq!((found[0].instance_id.as_str(), found[0].account.len()), (made.as_str(), 12));
        assert!(["pending", "running"].contains(&found[0].state.as_str()), "{found:?}");
        assert_eq!(ec2.instances("eu-central-1", &ids).await, Ok(Vec::new()), "another region");
        assert_eq!(ec2.instances("eu-west-1", &[]).await, Ok(Vec::new()), "never the whole account");
        assert_eq!(ec2.credentials().await, Ok("long-lived credentials, found by Test".to_owned()));
    });
}

/// The whole default chain, with nobody at the metadata address.
#[test]
fn without_credentials_the_cause_says_so() {
    let given = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    let home = std::env::var("HOME").unwrap_or_default();
    let files = std::path::Path::new(&home).join(".aws").exists();
    if files || given.iter().any(|name| std::env::var_os(name).is_some()) {
        println!("skipped: this machine has AWS credentials of its own");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("address");
        let aws = Rc::new(Aws::new(Names::default(), format!("http://{closed}")));
        let ec2 = AwsCloud::new(aws, Endpoints { ec2: Some("http://127.0.0.1:9".to_owned()), ..Endpoints::default() });
        let failure = ec2.credentials().await.expect_err("there are none");
        assert_eq!(failure.cause, Cause::NoCredentials, "{failure}");
        let failure = ec2.instances("eu-west-1", &["i-1".to_owned()]).await.expect_err("there are none");
        assert_eq!(failure.cause, Cause::NoCredentials, "{failure}");
    });
}

/// An account of its own kind on moto's server, which answers for every service at one address.
struct Moto {
    runtime: tokio::runtime::Runtime,
    cloud: AwsCloud,
}

const REGION: &str = "eu-west-1";

impl Moto {
    fn start() -> Option<Moto> {
        let Some(endpoint) = std::env::var("KUBESTRAP_TEST_S3").ok().filter(|url| !url.is_empty()) else {
            println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
            return None;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let at = || Some(endpoint.clone());
        let endpoints = Endpoints { ec2: at(), ssm: at(), autoscaling: at(), ..Endpoints::default() };
        let cloud = AwsCloud::new(Rc::new(Aws::with_credentials(&Names::default(), REGION)), endpoints);
        Some(Moto { runtime, cloud })
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn ec2(&self) -> aws_sdk_ec2::Client {
        self.run(self.cloud.ec2(REGION)).expect("client")
    }

    /// An image of this name and tag, made of a new instance.
    fn image(&self, name: &str, team: &str) -> String {
        let ec2 = self.ec2();
        self.run(async {
            let made = ec2.run_instances().image_id("ami-12c6146b").min_count(1).max_count(1).send().await;
            let instance = made.expect("an instance").instances()[0].instance_id().expect("an id").to_owned();
            let made = ec2.create_image().instance_id(instance).name(name).send().await.expect("an image");
            let id = made.image_id().expect("an id").to_owned();
            let tag = aws_sdk_ec2::types::Tag::builder().key("team").value(team).build();
            ec2.create_tags().resources(&id).tags(tag).send().await.expect("a tag");
            id
        })
    }

    /// A launch template with these images in its versions.
    fn template(&self, name: &str, images: &[&str]) -> String {
        let ec2 = self.ec2();
        let data = |image: &str| aws_sdk_ec2::types::RequestLaunchTemplateData::builder().image_id(image).build();
        self.run(async {
            let request = ec2.create_launch_template().launch_template_name(name).launch_template_data(data(images[0]));
            let made = request.send().await.expect("a template").launch_template.expect("a template");
            for image in &images[1..] {
                let request = ec2.create_launch_template_version().launch_template_name(name);
                request.launch_template_data(data(image)).send().await.expect("a version");
            }
            made.launch_template_id.expect("an id")
        })
    }
}

#[test]
fn images_are_found_by_id_and_by_owner_tags_and_name() {
    let Some(moto) = Moto::start() else { return };
    let team = |name: &str| format!("{name}-{}", std::process::id());
    let (mine, other) = (moto.image("drift-1", &team("drift")), moto.image("drift-2", &team("other")));
    let ask = |query: ImageQuery| moto.run(moto.cloud.images(REGION, &query)).expect("an answer");
    // One that is not there takes nothing from the others.
    let found = ask(ImageQuery::Ids(vec!["ami-00000000000000000".to_owned(), mine.clone(), other.clone()]));
    assert_eq!(found.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), [mine.as_str(), other.as_str()]);
    let image = &found[0];
    assert_eq!((image.name.as_str(), image.state.as_str(), image.owner.len()), ("drift-1", "available", 12));
    assert_eq!(image.tags.get("team").map(String::as_str), Some(team("drift").as_str()));
    assert!(image.created_at.is_some() && image.deprecated_at.is_none(), "{image:?}");
    let newest = |of: &str, name: Option<&str>, architecture: &str| {
        let tags = [("team".to_owned(), team(of))].into();
        let (owners, name) = (vec!["self".to_owned()], name.map(str::to_owned));
        let found = ask(ImageQuery::Newest { owners, tags, name, architecture: architecture.to_owned() });
        found.into_iter().map(|image| image.id).collect::<Vec<_>>()
    };
    assert_eq!(newest("drift", None, &image.architecture), [mine.as_str()]);
    assert_eq!(newest("other", Some("drift-*"), &image.architecture), [other.as_str()]);
    assert_eq!(newest("drift", Some("drift-2"), &image.architecture), [""; 0]);
    assert_eq!(newest("drift", None, "arm64-of-nobody"), [""; 0]);
    moto.run(moto.ec2().deregister_image().image_id(&mine).send()).expect("gone");
    assert_eq!(ask(ImageQuery::Ids(vec![mine])), []);
}

#[test]
fn a_parameter_is_its_value_or_nothing() {
    let Some(moto) = Moto::start() else { return };
    let get = |name: &str| moto.run(moto.cloud.parameter(REGION, name));
    assert_eq!(get("/drift/of-nobody"), Ok(None));
    let client = moto.run(async {
        let config = aws_sdk_ssm::config::Builder::from(moto.cloud.aws.config().await.expect("config"));
        aws_sdk_ssm::Client::from_conf(config.endpoint_url(moto.cloud.endpoints.ssm.as_deref().expect("one")).build())
    });
    let name = "/drift/image";
    let kind = aws_sdk_ssm::types::ParameterType::String;
    let request = client.put_parameter().name(name).value("ami-00000001").r#type(kind).overwrite(true);
    moto.run(request.send()).expect("a parameter");
    assert_eq!(get(name), Ok(Some("ami-00000001".to_owned())));
    assert_eq!(get("/drift/image:99"), Ok(None), "a version that does not exist");
}

#[test]
fn a_launch_template_is_found_by_id_and_name_in_the_version_that_is_meant() {
    let Some(moto) = Moto::start() else { return };
    let name = format!("drift-{}", std::process::id());
    let id = moto.template(&name, &["ami-00000001", "resolve:ssm:/drift/image"]);
    let get = |template: TemplateRef, version: &str| {
        let of = TemplateVersion { template, version: version.to_owned() };
        moto.run(moto.cloud.launch_template(REGION, &of))
    };
    let found = |version, image: &str| Ok(Some(TemplateInfo { version, image: Some(image.to_owned()) }));
    assert_eq!(get(TemplateRef::Id(id.clone()), "1"), found(1, "ami-00000001"));
    assert_eq!(get(TemplateRef::Name(name.clone()), "$Default"), found(1, "ami-00000001"));
    assert_eq!(get(TemplateRef::Name(name), "$Latest"), found(2, "resolve:ssm:/drift/image"));
    assert_eq!(get(TemplateRef::Name("of-nobody".to_owned()), "$Latest"), Ok(None));
    assert_eq!(get(TemplateRef::Id("lt-0123456789abcdef0".to_owned()), "$Latest"), Ok(None));
}

#[test]
fn an_instance_is_found_in_its_group_and_replaced() {
    let Some(moto) = Moto::start() else { return };
    let name = format!("drift-{}", std::process::id());
    let template = moto.template(&format!("{name}-group"), &["ami-12c6146b"]);
    let client = moto.run(moto.cloud.autoscaling(REGION)).expect("client");
    let of = aws_sdk_autoscaling::types::LaunchTemplateSpecification::builder().launch_template_id(&template);
    let request = client.create_auto_scaling_group().auto_scaling_group_name(&name).min_size(1).max_size(2);
    let request = request.desired_capacity(1).availability_zones("eu-west-1a");
    moto.run(request.launch_template(of.version("$Latest").build()).send()).expect("a group");
    let members = || {
        let answer = moto.run(client.describe_auto_scaling_groups().auto_scaling_group_names(&name).send());
        let groups = answer.expect("an answer").auto_scaling_groups.unwrap_or_default();
        groups[0].instances().iter().filter_map(|one| one.instance_id().map(str::to_owned)).collect::<Vec<_>>()
    };
    let first = members().remove(0);
    let group = moto.run(moto.cloud.group_of(REGION, &first)).expect("an answer").expect("a group");
    assert_eq!((group.name.as_str(), group.lifecycle_state.as_str()), (name.as_str(), "InService"));
    let of = TemplateVersion { template: TemplateRef::Id(template), version: "$Latest".to_owned() };
    assert_eq!((group.launch, group.overrides, group.suspended), (Some(Launch::Template(of)), vec![], vec![]));
    assert_eq!(moto.run(moto.cloud.group_of(REGION, "i-0123456789abcdef0")), Ok(None));

    moto.run(moto.cloud.terminate_in_group(REGION, &first)).expect("terminated");
    let after = members();
    assert!(after.len() == 1 && after[0] != first, "the group keeps its size: {after:?}");
    assert_eq!(moto.run(moto.cloud.group_of(REGION, &first)), Ok(None));
}
