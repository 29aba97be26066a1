use super::*;
use crate::ports::{
    InstanceInfo, Launch, LaunchOverride, LifecycleAnswer, LifecycleHook, LifecycleResult, RegistryToken, TemplateInfo,
    TemplateRef, TokenRequest,
};
use crate::store::fake::run;
use async_trait::async_trait;
use std::cell::RefCell;
use std::collections::BTreeMap;

const RUNNING: &str = "ami-00000001";
const NEWER: &str = "ami-00000002";
const PUBLIC: &str = "/aws/service/acme/image_id";

/// An account whose answers are here, and what it was asked.
#[derive(Default)]
struct Account {
    images: Vec<ImageInfo>,
    parameters: BTreeMap<String, String>,
    templates: Vec<(TemplateVersion, TemplateInfo)>,
    group: Option<GroupInfo>,
    failure: Option<(&'static str, Cause)>,
    asked: RefCell<Vec<&'static str>>,
}

impl Account {
    fn ask(&self, what: &'static str) -> Outcome<()> {
        self.asked.borrow_mut().push(what);
        match self.failure {
            Some((of, cause)) if of == what => Err(Failure::new(cause, what, "this test says so")),
            _ => Ok(()),
        }
    }
}

fn unasked<T>() -> Outcome<T> {
    panic!("a source of images asks for nothing else, and changes nothing")
}

#[async_trait(?Send)]
impl Cloud for Account {
    async fn instances(&self, _: &str, _: &[String]) -> Outcome<Vec<InstanceInfo>> {
        unasked()
    }
    async fn credentials(&self) -> Outcome<String> {
        unasked()
    }
    async fn registry_token(&self, _: &TokenRequest) -> Outcome<RegistryToken> {
        unasked()
    }
    async fn images(&self, region: &str, query: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        assert_eq!(region, "eu-west-1");
        self.ask("images")?;
        let is_asked_for = |image: &&ImageInfo| match query {
            ImageQuery::Ids(ids) => ids.contains(&image.id),
            ImageQuery::Newest { owners, tags, name, architecture } => {
                assert_eq!((owners.as_slice(), tags.len(), name.as_deref()), (["self".to_owned()].as_slice(), 1, None));
                assert_eq!(architecture, "arm64");
                image.name == "candidate"
            }
        };
        Ok(self.images.iter().filter(is_asked_for).cloned().collect())
    }
    async fn parameter(&self, _: &str, name: &str) -> Outcome<Option<String>> {
        self.ask("parameter")?;
        Ok(self.parameters.get(name).cloned())
    }
    async fn launch_template(&self, _: &str, of: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        self.ask("template")?;
        Ok(self.templates.iter().find(|(known, _)| known == of).map(|(_, found)| found.clone()))
    }
    async fn group_of(&self, _: &str, instance_id: &str) -> Outcome<Option<GroupInfo>> {
        assert_eq!(instance_id, "i-1");
        self.ask("group")?;
        Ok(self.group.clone())
    }
    async fn terminate_in_group(&self, _: &str, _: &str) -> Outcome<()> {
        unasked()
    }
    async fn complete_lifecycle(&self, _: &str, _: &LifecycleHook, _: LifecycleResult) -> Outcome<LifecycleAnswer> {
        unasked()
    }
    async fn heartbeat(&self, _: &str, _: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        unasked()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-11-21T00:00:00Z")
}

fn image(id: &str, created_at: &str) -> ImageInfo {
    ImageInfo {
        id: id.into(),
        name: "candidate".into(),
        architecture: "arm64".into(),
        state: "available".into(),
        created_at: Some(at(created_at)),
        deprecated_at: None,
        owner: "123456789012".into(),
        tags: BTreeMap::from([(CONTENT_TAG.to_owned(), format!("content of {id}"))]),
    }
}

/// The running image, and a newer one that nothing names yet.
fn account() -> Account {
    Account {
        images: vec![image(RUNNING, "2026-01-01T00:00:00Z"), image(NEWER, "2026-02-01T00:00:00Z")],
        ..Account::default()
    }
}

fn ec2() -> Ec2 {
    Ec2 {
        instance_id: "i-1".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        partition: "aws".into(),
        zone: "eu-west-1a".into(),
        instance_type: "m7g.large".into(),
        image_id: RUNNING.into(),
    }
}

fn ask_at(account: &Account, cache: &Cache, source: &ImageSource, uptime: u64) -> Outcome<Desired> {
    let ec2 = ec2();
    let (uptime, spread) = (Duration::from_secs(uptime), Box::new(|base| base));
    let asker = Asker { cloud: account, ec2: &ec2, cache, spread, uptime, now: now() };
    run(asker.resolve(source)).expect("it ends")
}

fn ask(account: &Account, source: &ImageSource) -> Outcome<Desired> {
    ask_at(account, &Cache::default(), source, 0)
}

/// The error of a source that is wrong: why.
fn why(account: &Account, source: &ImageSource) -> String {
    let failure = ask(account, source).expect_err("it is wrong");
    assert_eq!(failure.cause, Cause::ImageSource, "{failure}");
    assert!(failure.advice.is_some() && failure.attempted.starts_with("find the desired image by "), "{failure}");
    failure.to_string()
}

fn newest() -> ImageSource {
    let tags = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    ImageSource::Newest { owners: vec!["self".into()], tags, name: None }
}

fn parameter(name: &str) -> ImageSource {
    ImageSource::SsmParameter(name.into())
}

fn version(id: &str, version: &str) -> TemplateVersion {
    TemplateVersion { template: TemplateRef::Id(id.into()), version: version.into() }
}

fn template(account: &mut Account, id: &str, number: &str, image: Option<&str>) {
    let found = TemplateInfo { version: 7, image: image.map(str::to_owned) };
    account.templates.push((version(id, number), found));
}

fn group(launch: Option<Launch>, overrides: Vec<LaunchOverride>) -> GroupInfo {
    GroupInfo {
        name: "web".into(),
        lifecycle_state: "InService".into(),
        launched_from: None,
        launch,
        overrides,
        suspended: Vec::new(),
    }
}

fn with(instance_type: Option<&str>, template: Option<&str>, image: Option<&str>) -> LaunchOverride {
    LaunchOverride {
        instance_type: instance_type.map(str::to_owned),
        template: template.map(|id| version(id, "$Latest")),
        image: image.map(str::to_owned),
    }
}

#[test]
fn every_source_finds_its_image_and_says_who_named_it() {
    let mut account = account();
    account.parameters.insert("/acme/image".into(), format!("{NEWER}\n"));
    template(&mut account, "lt-1", "$Latest", Some(NEWER));
    template(&mut account, "lt-2", "3", Some("resolve:ssm:/acme/image"));
    account.group = Some(group(Some(Launch::Template(version("lt-1", "$Latest"))), Vec::new()));
    let by_template = |id: &str, number: &str| ImageSource::LaunchTemplate {
        template: TemplateRef::Id(id.into()),
        version: number.into(),
    };
    let table = [
        (ImageSource::Ami(NEWER.into()), "the id in `drift.image.ami`"),
        (parameter("/acme/image"), "the SSM parameter /acme/image"),
        (newest(), "the newest arm64 image of self, team=web"),
        (by_template("lt-1", "$Latest"), "the launch template lt-1 version $Latest (7)"),
        (by_template("lt-2", "3"), "the launch template lt-2 version 3, SSM parameter /acme/image"),
        (ImageSource::AutoScalingGroup, "the launch template lt-1 version $Latest of the Auto Scaling group web (7)"),
    ];
    for (source, named_by) in table {
        let desired = ask(&account, &source).expect("an image");
        assert_eq!((desired.image.as_str(), desired.named_by.as_str()), (NEWER, named_by));
        assert_eq!(desired.content.as_deref(), Some("content of ami-00000002"));
        assert_eq!((desired.running.id.as_str(), desired.running.state.as_str()), (RUNNING, "available"));
        assert_eq!(desired.group.is_some(), source == ImageSource::AutoScalingGroup);
    }
}

#[test]
fn what_resolves_to_nothing_says_where_to_mend_it() {
    let mut account = account();
    account.images.truncate(1);
    account.images[0].name = "other".into();
    template(&mut account, "lt-1", "1", None);
    let missing = ImageSource::LaunchTemplate { template: TemplateRef::Name("web".into()), version: "2".into() };
    let empty = ImageSource::LaunchTemplate { template: TemplateRef::Id("lt-1".into()), version: "1".into() };
    let table = [
        (ImageSource::Ami(NEWER.into()), ["ami-00000002 does not exist in eu-west-1", "`drift.image.ami`"]),
        (parameter("/acme/image"), ["no parameter /acme/image in eu-west-1", "correct the parameter"]),
        (newest(), ["there is none", "`drift.image.newest`"]),
        (missing, ["no such template or version", "the launch template web version 2"]),
        (empty, ["it names no image", "the launch template lt-1 version 1"]),
        (ImageSource::AutoScalingGroup, ["i-1 is in no Auto Scaling group", "another source"]),
    ];
    for (source, texts) in table {
        let told = why(&account, &source);
        assert!(texts.iter().all(|text| told.contains(text)), "{told}");
    }
}

#[test]
fn equally_new_images_are_refused_and_deprecated_ones_come_last() {
    let mut account = account();
    account.images.push(image("ami-00000003", "2026-02-01T00:00:00Z"));
    let told = why(&account, &newest());
    assert!(told.contains("two equally new images ami-00000002 and ami-00000003"), "{told}");
    account.images[2].deprecated_at = Some(now());
    assert_eq!(ask(&account, &newest()).expect("one").image, NEWER);
    account.images[2].created_at = Some(at("2026-03-01T00:00:00Z"));
    assert_eq!(ask(&account, &newest()).expect("an older one that is not deprecated").image, NEWER);
    account.images[2].deprecated_at = Some(at("2027-01-01T00:00:00Z"));
    assert_eq!(ask(&account, &newest()).expect("deprecated some day").image, "ami-00000003");
    account.images.iter_mut().for_each(|image| image.deprecated_at = Some(at("2026-06-01T00:00:00Z")));
    assert_eq!(ask(&account, &newest()).expect("all are").image, "ami-00000003");
    account.images.iter_mut().for_each(|image| image.created_at = None);
    assert!(why(&account, &newest()).contains("nobody says when"));
}

#[test]
fn another_architecture_and_what_cannot_be_started_are_refused() {
    let mut account = account();
    account.images[1].architecture = "x86_64".into();
    let told = why(&account, &ImageSource::Ami(NEWER.into()));
    assert!(told.contains("ami-00000002 is for x86_64, and this machine is arm64"), "{told}");
    // EC2 filters; what it lets through by mistake is not taken either.
    account.images.remove(0);
    account.images.push(ImageInfo { name: "running".into(), ..image(RUNNING, "2026-01-01T00:00:00Z") });
    assert!(why(&account, &newest()).contains("none of the 1 that there are is available and for arm64"));
    account.images[0].architecture = "arm64".into();
    for state in ["pending", "disabled", "failed"] {
        account.images[0].state = state.into();
        assert!(why(&account, &ImageSource::Ami(NEWER.into())).contains(&format!("is {state}")), "{state}");
        assert!(why(&account, &newest()).contains("none of the 1"), "{state}");
    }
}

#[test]
fn what_is_no_image_id_is_refused_and_not_repeated() {
    let values = ["", "ami-", "ami-0000000", "ami-0000000g", "AMI-00000002", "hunter2", "ami-00000002 ami-00000001"];
    for value in values.into_iter().chain(["{\"image_id\": \"ami-00000002\"}"]) {
        let mut account = account();
        account.parameters.insert("/x".into(), value.into());
        template(&mut account, "lt-1", "1", Some(value));
        template(&mut account, "lt-1", "2", Some("resolve:ssm:/x"));
        let of = |number: &str| ImageSource::LaunchTemplate {
            template: TemplateRef::Id("lt-1".into()),
            version: number.into(),
        };
        for source in [parameter("/x"), of("1"), of("2"), ImageSource::Ami(value.into())] {
            let told = why(&account, &source);
            assert!(told.contains("it is not an image's id") && (value.len() < 5 || !told.contains(value)), "{told}");
            assert_eq!(told.contains("JSON"), value.starts_with('{'), "{told}");
        }
    }
    let mut account = account();
    template(&mut account, "lt-1", "1", Some("resolve:ssm:"));
    let source = ImageSource::LaunchTemplate { template: TemplateRef::Id("lt-1".into()), version: "1".into() };
    assert!(why(&account, &source).contains("names no parameter"));
}

#[test]
fn a_throttle_an_outage_or_a_missing_right_keeps_its_cause() {
    let mut account = account();
    account.parameters.insert("/acme/image".into(), NEWER.into());
    template(&mut account, "lt-1", "$Latest", Some("resolve:ssm:/acme/image"));
    account.group = Some(group(Some(Launch::Template(version("lt-1", "$Latest"))), Vec::new()));
    for call in ["images", "parameter", "template", "group"] {
        for cause in [Cause::Throttled, Cause::CloudUnavailable, Cause::AccessDenied, Cause::Deadline] {
            account.failure = Some((call, cause));
            let failure = ask(&account, &ImageSource::AutoScalingGroup).expect_err("nothing is known");
            assert_eq!((failure.cause, failure.is_transient()), (cause, true), "{call}");
        }
    }
    account.failure = None;
    assert_eq!(ask(&account, &ImageSource::AutoScalingGroup).expect("an image").image, NEWER);
}

#[test]
fn a_group_is_asked_for_what_it_starts_in_place_of_this_machine() {
    let mut account = account();
    for (id, image) in [("lt-1", RUNNING), ("lt-2", NEWER)] {
        template(&mut account, id, "$Latest", Some(image));
    }
    let base = || Some(Launch::Template(version("lt-1", "$Latest")));
    let configuration =
        |image: Option<&str>| Some(Launch::Configuration { name: "lc".into(), image: image.map(str::to_owned) });
    let table = [
        (base(), vec![], Ok(RUNNING)),
        (configuration(Some(NEWER)), vec![], Ok(NEWER)),
        (configuration(None), vec![], Err("launch configuration lc does not exist")),
        (None, vec![], Err("neither a launch template nor a launch configuration")),
        (base(), vec![with(Some("m7g.large"), None, None)], Ok(RUNNING)),
        (base(), vec![with(Some("c7g.large"), None, None), with(Some("m7g.large"), Some("lt-2"), None)], Ok(NEWER)),
        (base(), vec![with(Some("m7g.large"), Some("lt-1"), Some(NEWER))], Ok(NEWER)),
        (base(), vec![with(None, Some("lt-2"), None)], Ok(NEWER)),
        (base(), vec![with(Some("c7g.large"), None, None), with(Some("r7g.large"), None, None)], Ok(RUNNING)),
        (base(), vec![with(None, Some("lt-2"), None), with(None, None, None)], Err("one of 2 launch templates")),
        (base(), vec![with(Some("c7g.large"), Some("lt-2"), None), with(None, None, None)], Err("one of 2")),
    ];
    for (launch, overrides, expected) in table {
        account.group = Some(group(launch, overrides.clone()));
        match expected {
            Ok(id) => assert_eq!(ask(&account, &ImageSource::AutoScalingGroup).expect("an image").image, id),
            Err(text) => {
                let told = why(&account, &ImageSource::AutoScalingGroup);
                assert!(told.contains(text) && told.contains("Auto Scaling group web"), "{overrides:?}: {told}");
            }
        }
    }
}

#[test]
fn the_running_image_is_described_whatever_the_desired_one_is() {
    let complaint = |change: &dyn Fn(&mut ImageInfo)| {
        let mut account = account();
        change(&mut account.images[0]);
        let desired = ask(&account, &ImageSource::Ami(RUNNING.into())).expect("the running one, in any state");
        desired.running.complaint(now())
    };
    assert_eq!(complaint(&|_| ()), None);
    assert_eq!(complaint(&|image| image.deprecated_at = Some(at("2027-01-01T00:00:00Z"))), None);
    let deprecated = complaint(&|image| image.deprecated_at = Some(now())).expect("a complaint");
    assert!(deprecated.contains("deprecated since 2026-11-21"), "{deprecated}");
    assert!(complaint(&|image| image.state = "disabled".into()).expect("a complaint").contains("is disabled"));
    let mut account = account();
    account.images.remove(0);
    let running = ask(&account, &ImageSource::Ami(RUNNING.into())).expect("an answer").running;
    assert_eq!((running.state.as_str(), running.architecture.as_str()), (DEREGISTERED, own_architecture()));
    assert!(running.complaint(now()).expect("a complaint").contains("deregistered, or no longer shared"));
}

#[test]
fn images_and_public_parameters_are_asked_for_once_in_a_while_and_own_parameters_each_time() {
    let mut account = account();
    for name in [PUBLIC, "/acme/image"] {
        account.parameters.insert(name.into(), NEWER.into());
    }
    let cache = Cache::default();
    let asked = |name: &str, uptime| {
        account.asked.borrow_mut().clear();
        ask_at(&account, &cache, &parameter(name), uptime).expect("an image");
        account.asked.borrow().clone()
    };
    assert_eq!(asked(PUBLIC, 0), ["images", "parameter", "images"]);
    assert_eq!(asked(PUBLIC, 1799), [""; 0]);
    assert_eq!(asked(PUBLIC, 1800), ["images", "images"]);
    assert_eq!(asked(PUBLIC, 3600), ["images", "parameter", "images"]);
    assert_eq!(asked("/acme/image", 3601), ["parameter"]);
    assert_eq!(asked("/acme/image", 3602), ["parameter"]);
}

#[test]
fn what_is_missing_is_looked_for_again() {
    let mut account = account();
    let cache = Cache::default();
    let newer = account.images.pop().expect("two images");
    ask_at(&account, &cache, &parameter(PUBLIC), 0).expect_err("no parameter");
    account.parameters.insert(PUBLIC.into(), NEWER.into());
    ask_at(&account, &cache, &parameter(PUBLIC), 1).expect_err("no image");
    account.images.push(newer);
    assert_eq!(ask_at(&account, &cache, &parameter(PUBLIC), 2).expect("an image").image, NEWER);
}
