use super::*;
use crate::gate::Open;
use crate::model::cause::{Cause, Failure};
use crate::model::identity::Origin;
use crate::model::register::Register;
use crate::model::secret::Secret;
use crate::node::Silent;
use crate::ports::{
    ApiAnswer, ApiRequest, Cloud, Cluster, GroupInfo, Host, ImageInfo, ImageQuery, JobSpec, JobState, Jobs,
    LifecycleAnswer, LifecycleHook, LifecycleResult, Metadata, MetadataAnswer, RegistryToken, TemplateInfo,
    TemplateVersion, TokenRequest, ToolOutput,
};
use crate::store::fake::{Lab, OneFile, etag_of, run};
use crate::testing::{identity, settings};
use crate::world::{Ports, World};
use async_trait::async_trait;
use jiff::Timestamp;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

const MINUTE: Duration = Duration::from_secs(60);
const OLD: Option<SignedDuration> = Some(SignedDuration::from_secs(3601));

fn ec2(instance_id: &str) -> Ec2 {
    Ec2 {
        instance_id: instance_id.into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        partition: "aws".into(),
        zone: "eu-west-1a".into(),
        instance_type: "m7g.large".into(),
        image_id: "ami-1".into(),
    }
}

fn machine(ec2: Option<Ec2>) -> Identity {
    let host = identity("own");
    Identity { origin: ec2.map_or(host.origin.clone(), Origin::Ec2), ..host }
}

fn held_by(ec2: Option<Ec2>) -> Holder {
    let identity = ec2.as_ref().map_or("machine-other".to_owned(), Ec2::arn);
    Holder { identity, node_name: "other".into(), ec2 }
}

fn info(instance_id: &str, state: &str) -> InstanceInfo {
    InstanceInfo {
        instance_id: instance_id.into(),
        account: "123456789012".into(),
        state: state.into(),
        hop_limit: None,
        image_id: None,
        launched_at: None,
    }
}

#[test]
fn only_an_ec2_neighbour_is_asked_about() {
    let own = machine(Some(ec2("i-own")));
    let asked = |holder: &Holder, own: &Identity| match question(Some(holder), own, OPERATOR) {
        Question::Ask { holder, own } => Ok((holder.instance_id.clone(), own.instance_id.clone())),
        Question::Unlocked => Err("unlocked".to_owned()),
        Question::Pointless(why) => Err(why),
    };
    assert_eq!(asked(&held_by(Some(ec2("i-a"))), &own), Ok(("i-a".into(), "i-own".into())));
    assert_eq!(question(None, &own, OPERATOR), Question::Unlocked);
    let elsewhere = [
        Ec2 { account: "210987654321".into(), ..ec2("i-a") },
        Ec2 { region: "eu-west-2".into(), ..ec2("i-a") },
        Ec2 { partition: "aws-cn".into(), ..ec2("i-a") },
    ];
    for other in elsewhere {
        assert!(asked(&held_by(Some(other)), &own).is_err_and(|why| why.contains("unlock init")));
    }
    assert!(asked(&held_by(None), &own).is_err_and(|why| why.contains("not on EC2")));
    assert!(asked(&held_by(Some(ec2("i-a"))), &machine(None)).is_err_and(|why| why.contains("not on EC2")));
    assert!(asked(&held_by(Some(ec2("i-own"))), &own).is_err_and(|why| why.contains("this very machine")));
    let bare = Holder { identity: machine(None).key(), ..held_by(None) };
    assert!(asked(&bare, &machine(None)).is_err_and(|why| why.contains("this very machine")));
}

#[test]
fn an_answer_counts_only_when_it_shows_the_asker() {
    let find = |answer: &[InstanceInfo]| finding(answer, &ec2("i-a"), &ec2("i-own"));
    let own = info("i-own", "running");
    assert_eq!(find(&[own.clone(), info("i-a", "terminated")]), Finding::Terminated);
    for state in ["pending", "running", "shutting-down", "stopping", "stopped", "Terminated", ""] {
        assert_eq!(find(&[info("i-a", state), own.clone()]), Finding::Exists(state.into()));
    }
    assert_eq!(find(std::slice::from_ref(&own)), Finding::NotFound);
    let foreign_own = InstanceInfo { account: "210987654321".into(), ..own.clone() };
    let foreign = InstanceInfo { account: "210987654321".into(), ..info("i-a", "terminated") };
    for blind in
        [vec![], vec![info("i-a", "terminated")], vec![foreign_own, info("i-a", "terminated")], vec![own, foreign]]
    {
        assert!(matches!(find(&blind), Finding::Blind(_)), "{blind:?}");
    }
}

/// Looks at these minutes; whether the last one said gone.
fn gone_after(minutes: &[u32], age: Option<SignedDuration>) -> bool {
    let mut looks = Looks::default();
    let judged = minutes.iter().map(|m| looks.judge(Uuid::from_u128(1), Finding::NotFound, age, MINUTE * *m));
    judged.last().is_some_and(|last| last.is_ok())
}

#[test]
fn not_found_counts_for_an_old_record_in_five_looks_over_ten_minutes() {
    let table: [(&[u32], Option<SignedDuration>, bool); 9] = [
        (&[0, 3, 6, 9, 12], OLD, true),
        (&[0, 3, 6, 9, 12], Some(SignedDuration::from_hours(1)), false),
        (&[0, 3, 6, 9, 12], Some(SignedDuration::from_hours(-9)), false),
        (&[0, 3, 6, 9, 12], None, false),
        (&[0, 3, 6, 9], OLD, false),
        (&[0, 4, 8, 12], OLD, false),
        (&[0, 0, 0, 0, 0, 0, 12], OLD, false),
        (&[0, 9, 9, 9, 9, 9], OLD, false),
        (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], OLD, true),
    ];
    for (minutes, age, gone) in table {
        assert_eq!(gone_after(minutes, age), gone, "{minutes:?} {age:?}");
    }
}

#[test]
fn looks_at_a_young_record_do_not_count_and_a_living_holder_or_another_attempt_begins_anew() {
    let missing = |looks: &mut Looks, of: u128, age, minute: u32| {
        looks.judge(Uuid::from_u128(of), Finding::NotFound, age, MINUTE * minute).is_ok()
    };
    let mut looks = Looks::default();
    let young = Some(SignedDuration::from_mins(59));
    assert!([0, 3, 6, 9].iter().all(|m| !missing(&mut looks, 1, young, *m)));
    assert!(!missing(&mut looks, 1, OLD, 12));
    for (n, between) in [Finding::Exists("running".into()), Finding::Blind("no answer".into())].into_iter().enumerate()
    {
        let mut looks = Looks::default();
        assert!([0, 3, 6, 9].iter().all(|m| !missing(&mut looks, 1, OLD, *m)));
        assert!(looks.judge(Uuid::from_u128(1), between, OLD, MINUTE * 10).is_err());
        // A blind look proves nothing either way.
        assert_eq!(missing(&mut looks, 1, OLD, 12), n == 1);
    }
    let mut looks = Looks::default();
    assert!([0, 3, 6, 9].iter().all(|m| !missing(&mut looks, 1, OLD, *m)));
    assert!(!missing(&mut looks, 2, OLD, 12));
    assert!(looks.judge(Uuid::from_u128(2), Finding::Terminated, None, Duration::ZERO).is_ok());
}

/// EC2 with one answer; every other port refuses.
pub(crate) struct Ec2Says(pub(crate) Outcome<Vec<InstanceInfo>>);

fn refused<T>() -> Outcome<T> {
    Err(Failure::new(Cause::Internal, "call a port", "this test has none"))
}

#[async_trait(?Send)]
impl Cloud for Ec2Says {
    async fn instances(&self, region: &str, ids: &[String]) -> Outcome<Vec<InstanceInfo>> {
        assert_eq!((region, ids), ("eu-west-1", ["i-a".to_owned(), "i-own".to_owned()].as_slice()));
        self.0.clone()
    }
    async fn credentials(&self) -> Outcome<String> {
        refused()
    }
    async fn registry_token(&self, _: &TokenRequest) -> Outcome<RegistryToken> {
        refused()
    }
    async fn images(&self, _: &str, _: &ImageQuery) -> Outcome<Vec<ImageInfo>> {
        refused()
    }
    async fn parameter(&self, _: &str, _: &str) -> Outcome<Option<String>> {
        refused()
    }
    async fn launch_template(&self, _: &str, _: &TemplateVersion) -> Outcome<Option<TemplateInfo>> {
        refused()
    }
    async fn group_of(&self, _: &str, _: &str) -> Outcome<Option<GroupInfo>> {
        refused()
    }
    async fn terminate_in_group(&self, _: &str, _: &str) -> Outcome<()> {
        refused()
    }
    async fn complete_lifecycle(&self, _: &str, _: &LifecycleHook, _: LifecycleResult) -> Outcome<LifecycleAnswer> {
        refused()
    }
    async fn heartbeat(&self, _: &str, _: &LifecycleHook) -> Outcome<LifecycleAnswer> {
        refused()
    }
}

#[async_trait(?Send)]
impl Jobs for Ec2Says {
    async fn start(&self, _: &JobSpec) -> Outcome<()> {
        refused()
    }
    async fn observe(&self, _: &str) -> Outcome<JobState> {
        refused()
    }
    async fn stop(&self, _: &str) -> Outcome<()> {
        refused()
    }
    async fn output(&self, _: &str, _: usize) -> Outcome<String> {
        refused()
    }
    async fn forget(&self, _: &str) -> Outcome<()> {
        refused()
    }
    async fn run(&self, _: &[String], _: Duration) -> Outcome<ToolOutput> {
        refused()
    }
}

#[async_trait(?Send)]
impl Metadata for Ec2Says {
    async fn token(&self, _: Duration) -> Outcome<MetadataAnswer> {
        refused()
    }
    async fn get(&self, _: &str, _: &Secret) -> Outcome<MetadataAnswer> {
        refused()
    }
}

#[async_trait(?Send)]
impl Cluster for Ec2Says {
    async fn call(&self, _: ApiRequest) -> Outcome<ApiAnswer> {
        refused()
    }
}

impl Host for Ec2Says {
    fn hostname(&self) -> Outcome<String> {
        refused()
    }
    fn default_address(&self) -> Outcome<Option<IpAddr>> {
        refused()
    }
    fn program(&self) -> Outcome<PathBuf> {
        refused()
    }
}

fn node(lab: &Lab, answer: Outcome<Vec<InstanceInfo>>) -> Node {
    let says = Rc::new(Ec2Says(answer));
    let ports = Ports {
        objects: lab.objects.clone(),
        files: Rc::new(OneFile::default()),
        jobs: says.clone(),
        metadata: says.clone(),
        cloud: says.clone(),
        cluster: says.clone(),
        vault: Rc::new(crate::ports::Nobody),
        etcd: Rc::new(crate::ports::Nobody),
        host: says,
        time: lab.time.clone(),
    };
    let world = World::new(ports, Rc::new(Open), Rc::new(Silent));
    Node::new(Rc::new(settings("role: master")), Rc::new(machine(Some(ec2("i-own")))), world)
}

fn seen(holder: Option<Holder>, hours: i64) -> Seen {
    let state = RegisterState::Initialising { attempt: Uuid::from_u128(1), holder, since: Timestamp::UNIX_EPOCH };
    let register = Register { schema: 1, cluster: "test".into(), uid: Uuid::from_u128(9), state };
    let modified = Timestamp::UNIX_EPOCH;
    let served_at = modified + SignedDuration::from_hours(hours);
    Seen { register, etag: etag_of(b"this version"), modified: Some(modified), served_at: Some(served_at) }
}

#[test]
fn a_look_gives_a_proof_about_exactly_the_version_it_was_shown() {
    let lab = Lab::new();
    let held = seen(Some(held_by(Some(ec2("i-a")))), 0);
    let terminated = node(&lab, Ok(vec![info("i-own", "running"), info("i-a", "terminated")]));
    let look = |node: &Node, seen: &Seen| run(GoneWatch::new().look(node, seen)).expect("alive");
    let Ok(Judgement::Gone(gone)) = look(&terminated, &held) else { panic!("not gone") };
    assert!(gone.covers(&held) && gone.why().contains("terminated"));
    assert!(!gone.covers(&Seen { etag: etag_of(b"another version"), ..held.clone() }));

    let unlocked = seen(None, 0);
    assert!(matches!(look(&node(&lab, refused()), &unlocked), Ok(Judgement::Gone(_))));
    // EC2's own failures are passed on and prove nothing.
    assert_eq!(look(&node(&lab, refused()), &held).map_err(|f| f.cause), Err(Cause::Internal));
}

#[test]
fn a_watch_remembers_its_looks() {
    let lab = Lab::new();
    let alone = node(&lab, Ok(vec![info("i-own", "running")]));
    let held = seen(Some(held_by(Some(ec2("i-a")))), 2);
    let watch = GoneWatch::new();
    let mut gone_at = None;
    for minute in 0..30 {
        if let Some(Ok(Judgement::Gone(_))) = run(watch.look(&alone, &held)) {
            gone_at = gone_at.or(Some(minute));
        }
        lab.time.pass(MINUTE);
    }
    assert_eq!(gone_at, Some(12));
}

#[test]
fn machines_are_judged_like_holders_each_by_its_own_looks() {
    let lab = Lab::new();
    let holder = held_by(Some(ec2("i-a")));
    let record = MachineWatch::record_of(&holder.identity);
    assert_eq!(record, MachineWatch::record_of(&holder.identity));
    let look = |watch: &MachineWatch, node: &Node, holder: &Holder, age| {
        run(watch.look(node, holder, record, age)).expect("alive").map(|proof| proof.map(|gone| gone.why().to_owned()))
    };
    let watch = MachineWatch::new();
    let terminated = node(&lab, Ok(vec![info("i-own", "running"), info("i-a", "terminated")]));
    assert!(look(&watch, &terminated, &holder, None).expect("answered").is_ok_and(|why| why.contains("terminated")));
    for state in ["running", "stopped", "shutting-down"] {
        let other = node(&lab, Ok(vec![info("i-own", "running"), info("i-a", state)]));
        let why = look(&watch, &other, &holder, OLD).expect("answered").expect_err(state);
        assert!(why.contains(state) && why.contains("kubestrap member remove"), "{why}");
        let why = look(&MachineWatch::of_lock(), &other, &holder, OLD).expect("answered").expect_err(state);
        assert!(why.contains("unlock join"), "{why}");
    }
    let blind = node(&lab, Ok(vec![info("i-a", "terminated")]));
    assert!(look(&watch, &blind, &holder, OLD).expect("answered").is_err(), "it does not show the asker");
    assert!(look(&watch, &terminated, &held_by(None), OLD).expect("answered").is_err(), "bare metal");
    assert!(look(&watch, &node(&lab, refused()), &holder, OLD).is_err(), "EC2's failures are passed on");
    let forgotten = node(&lab, Ok(vec![info("i-own", "running")]));
    let (watch, mut gone_at) = (MachineWatch::new(), None);
    for minute in 0..20 {
        if look(&watch, &forgotten, &holder, OLD).expect("answered").is_ok() {
            gone_at = gone_at.or(Some(minute));
        }
        lab.time.pass(MINUTE);
    }
    assert_eq!(gone_at, Some(12));
}
