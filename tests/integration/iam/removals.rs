//! What breaks without each action: the words of the page's tables, and what shows that they are true.

use super::cloud::{Cloud, NEWER};
use super::machines::{Principal, key, register};
use crate::http::Server;
use crate::world::World;

/// An action that is taken away.
pub struct Case {
    /// From which document.
    pub document: &'static str,
    /// Of which part.
    pub sid: &'static str,
    /// Which one.
    pub action: &'static str,
    /// What breaks, as the page says it.
    pub breaks: &'static str,
    /// What lies in the bucket before.
    pub before: fn(&Cloud, &Site),
    /// Shows it.
    pub shows: fn(&Site),
}

/// Where a case happens.
pub struct Site {
    /// Who lacks the action.
    pub who: Principal,
    /// Who may read everything.
    pub admin: Principal,
    /// An instance that was terminated.
    pub gone: String,
}

/// Actions whose lack cannot be seen here, and why the page says what it says: moto serves no registry, answers 500 for
/// public ECR, uses no keys, looks at resources of S3 alone (an action that is
/// allowed on some is refused on all), and has no lifecycle actions. Archives need a Node whose instance is gone, which core's
/// tests have.
pub const UNSEEN: &[((&str, &str, &str), &str)] = &[
    (("master", "EcrPull", "ecr:BatchCheckLayerAvailability"), LAYERS),
    (("master", "EcrPull", "ecr:BatchGetImage"), IMAGE),
    (("master", "EcrPull", "ecr:GetDownloadUrlForLayer"), DOWNLOAD),
    (("worker", "EcrPull", "ecr:BatchCheckLayerAvailability"), LAYERS),
    (("worker", "EcrPull", "ecr:BatchGetImage"), IMAGE),
    (("worker", "EcrPull", "ecr:GetDownloadUrlForLayer"), DOWNLOAD),
    (
        ("optional/drift", "Parameters", "ssm:GetParameter"),
        "drift is unknown where a parameter is the source, or the launch template names one",
    ),
    (
        ("optional/drift", "Group", "autoscaling:DescribeLaunchConfigurations"),
        "drift is unknown where the group is the source and has a launch configuration; such a group's nodes are not replaced",
    ),
    (
        ("optional/drift", "Lifecycle", "autoscaling:CompleteLifecycleAction"),
        "a hook ends by its own time-out, with its default result",
    ),
    (
        ("optional/drift", "Lifecycle", "autoscaling:RecordLifecycleActionHeartbeat"),
        "a hook ends by its own time-out, although the drain or the bootstrap goes on",
    ),
    (
        ("optional/replace", "Replace", "autoscaling:TerminateInstanceInAutoScalingGroup"),
        "drained nodes are not replaced",
    ),
    (("optional/archive", "Archive", "s3:GetObject"), "reports of machines that are gone stay in `status --cluster`"),
    (("optional/archive", "Archive", "s3:PutObject"), "as without `s3:GetObject`"),
    (("optional/archive", "Archived", "s3:DeleteObject"), "they are copied to `retired/`, and stay"),
    (
        ("optional/ecr-public", "EcrPublicLogin", "ecr-public:GetAuthorizationToken"),
        "public images are pulled anonymously, with AWS's lower limits",
    ),
    (
        ("optional/ecr-public", "EcrPublicLogin", "sts:GetServiceBearerToken"),
        "as without `ecr-public:GetAuthorizationToken`, which is made of it",
    ),
    (("optional/pki", "SealedKeys", "s3:GetObject"), "`run` waits before `kubeadm init`, and no further master joins"),
    (("optional/pki", "SealedKeys", "s3:PutObject"), "`run` waits before `kubeadm init`: the keys are sealed first"),
    (
        ("optional/pki", "JoinLock", "s3:DeleteObject"),
        "a master that has joined cannot give the lock back, and the next one waits for it",
    ),
    (("optional/pki", "JoinLock", "s3:GetObject"), "a further master waits before it joins"),
    (("optional/pki", "JoinLock", "s3:PutObject"), "a further master waits before it joins: it takes the lock first"),
    (("optional/pki", "SealKey", "kms:Decrypt"), "no further master joins: it is `access-denied`"),
    (
        ("optional/pki", "SealKey", "kms:GenerateDataKey"),
        "`run` waits before `kubeadm init`: the keys are sealed first",
    ),
    (("optional/kms", "StoreKey", "kms:Decrypt"), "every read of the store is `access-denied`"),
    (("optional/kms", "StoreKey", "kms:GenerateDataKey"), "every write to the store is `access-denied`"),
];
const LAYERS: &str = "a pull is refused (403) where the client looks for a layer before it fetches it";
const IMAGE: &str = "a pull is refused (403) at the manifest";
const DOWNLOAD: &str = "a pull is refused (403) at the first layer";

/// Every action of which moto shows the lack.
pub const CASES: &[Case] = &[
    Case {
        document: "master",
        sid: "Register",
        action: "s3:GetObject",
        breaks: "`run` waits before the claim; kubeadm is not started",
        before: nothing,
        shows: |site| refuses_master(site, &["s3:GetObject", "/cluster.json"], 0),
    },
    Case {
        document: "master",
        sid: "Register",
        action: "s3:PutObject",
        breaks: "`run` waits at the claim; kubeadm is not started",
        before: nothing,
        shows: |site| refuses_master(site, &["grant s3:PutObject", "/cluster.json"], 0),
    },
    Case {
        document: "master",
        sid: "SelfTest",
        action: "s3:GetObject",
        breaks: "`run` waits before the claim: it does not trust a store that it could not test",
        before: nothing,
        shows: |site| refuses_master(site, &["s3:GetObject", "selftest/conditions"], 0),
    },
    Case {
        document: "master",
        sid: "SelfTest",
        action: "s3:PutObject",
        breaks: "`run` waits before the claim: it does not trust a store that it could not test",
        before: nothing,
        shows: |site| refuses_master(site, &["grant s3:PutObject", "selftest/conditions"], 0),
    },
    Case {
        document: "master",
        sid: "JoinBundle",
        action: "s3:GetObject",
        breaks: "the control plane comes up, and no bundle is published",
        before: nothing,
        shows: |site| refuses_master(site, &["s3:GetObject", "join/worker.json"], 1),
    },
    Case {
        document: "master",
        sid: "JoinBundle",
        action: "s3:PutObject",
        breaks: "the control plane comes up, and no bundle is published",
        before: nothing,
        shows: |site| refuses_master(site, &["grant s3:PutObject", "join/worker.json"], 1),
    },
    Case {
        document: "master",
        sid: "OwnReport",
        action: "s3:PutObject",
        breaks: "`status --cluster` does not show the node; all else works",
        before: nothing,
        shows: |site| works_unseen(site, "master"),
    },
    Case {
        document: "master",
        sid: "Traces",
        action: "s3:GetObject",
        breaks: "`run` waits before the first claim: it cannot see whether there was a cluster",
        before: |cloud, site| cloud.put(&key(&site.who.cluster, "nodes/machine-1/report.json"), "{}"),
        shows: |site| refuses_master(site, &["s3:GetObject", "/nodes/"], 0),
    },
    Case {
        document: "master",
        sid: "List",
        action: "s3:ListBucket",
        breaks: "`run` waits before the first claim, or at its first read: S3 answers 403 for an object that is not there",
        before: nothing,
        shows: |site| {
            refuses_master(site, &["grant s3:ListBucket", "list s3://"], 0);
            let world = World::new();
            let (_stub, elsewhere) = site.where_missing_is_forbidden(&world);
            refuses_master(&elsewhere, &["s3:ListBucket", "/cluster.json"], 0);
        },
    },
    Case {
        document: "master",
        sid: "Takeover",
        action: "ec2:DescribeInstances",
        breaks: "a master does not take over from one that was terminated, until an operator's `unlock init`",
        before: held_by_the_terminated,
        shows: |site| refuses_master(site, &["grant ec2:DescribeInstances"], 0),
    },
    Case {
        document: "master",
        sid: "EcrLogin",
        action: "ecr:GetAuthorizationToken",
        breaks: "there are no ECR credentials: only public images are pulled",
        before: nothing,
        shows: |site| gets_no_login(site, "master"),
    },
    Case {
        document: "worker",
        sid: "Join",
        action: "s3:GetObject",
        breaks: "`run` waits before the join; kubeadm is not started",
        before: nothing,
        shows: |site| {
            let world = World::new();
            let node = site.who.node(&world, "worker", "w1");
            node.waits(&["access-denied", "s3:GetObject", "join/worker.json"]);
            assert_eq!(node.machine.begun("join"), 0);
        },
    },
    Case {
        document: "worker",
        sid: "OwnReport",
        action: "s3:GetObject",
        breaks: "a report is made once and not replaced: `status --cluster` shows the node as it was at first",
        before: nothing,
        shows: |site| {
            let world = World::new();
            let node = site.who.node(&world, "worker", &site.name());
            node.runs(&["run", "--once"]).expect(0);
            node.runs(&["run", "--once"]).expect(0).says(&["access-denied", "s3:GetObject", "/nodes/arn:aws:ec2:"]);
            assert_eq!(site.reported(), [site.name()]);
        },
    },
    Case {
        document: "worker",
        sid: "OwnReport",
        action: "s3:PutObject",
        breaks: "`status --cluster` does not show the node; all else works",
        before: nothing,
        shows: |site| works_unseen(site, "worker"),
    },
    Case {
        document: "worker",
        sid: "AbsentIsNotForbidden",
        action: "s3:ListBucket",
        breaks: "a worker that is there before the bundle reports `access-denied` while it waits (S3 answers 403), and joins all the same",
        before: nothing,
        shows: |site| {
            let world = World::new();
            let (_stub, elsewhere) = site.where_missing_is_forbidden(&world);
            let node = elsewhere.who.node(&world, "worker", "w1");
            node.waits(&["access-denied", "s3:ListBucket", "join/worker.json"]);
        },
    },
    Case {
        document: "worker",
        sid: "EcrLogin",
        action: "ecr:GetAuthorizationToken",
        breaks: "there are no ECR credentials: only public images are pulled",
        before: nothing,
        shows: |site| gets_no_login(site, "worker"),
    },
    Case {
        document: "operator",
        sid: "Read",
        action: "s3:GetObject",
        breaks: "`cluster retire` and `status --cluster` fail",
        before: ended,
        shows: |site| {
            for verb in [RETIRE, STATUS] {
                site.denied(verb, &["s3:GetObject", "cluster.json"]);
            }
        },
    },
    Case {
        document: "operator",
        sid: "List",
        action: "s3:ListBucket",
        breaks: "`cluster retire` and `status --cluster` fail",
        before: ended,
        shows: |site| {
            for verb in [RETIRE, STATUS] {
                site.denied(verb, &["grant s3:ListBucket"]);
            }
        },
    },
    Case {
        document: "operator",
        sid: "RetireCopy",
        action: "s3:PutObject",
        breaks: "`cluster retire` fails before it removes anything",
        before: ended,
        shows: |site| {
            site.denied(RETIRE, &["grant s3:PutObject", "/retired/"]);
            assert_eq!(site.admin.status()["register"]["state"], "established");
        },
    },
    Case {
        document: "operator",
        sid: "RetireMove",
        action: "s3:DeleteObject",
        breaks: "`cluster retire` fails after its first copy; the cluster stays as it is",
        before: ended,
        shows: |site| {
            site.denied(RETIRE, &["grant s3:DeleteObject", "/nodes/"]);
            assert_eq!(site.admin.status()["register"]["state"], "established");
        },
    },
    Case {
        document: "reader",
        sid: "Status",
        action: "s3:GetObject",
        breaks: "`status --cluster` fails",
        before: ended,
        shows: |site| site.denied(STATUS, &["s3:GetObject", "cluster.json"]),
    },
    Case {
        document: "reader",
        sid: "List",
        action: "s3:ListBucket",
        breaks: "`status --cluster` fails",
        before: ended,
        shows: |site| site.denied(STATUS, &["grant s3:ListBucket"]),
    },
    Case {
        document: "optional/doctor",
        sid: "HopLimit",
        action: "ec2:DescribeInstances",
        breaks: "`doctor` skips its check of the metadata service's hop limit",
        before: nothing,
        shows: |site| site.skips("IMDS hop limit", "ec2:DescribeInstances", "bucket lifecycle rules"),
    },
    Case {
        document: "optional/doctor",
        sid: "LifecycleRules",
        action: "s3:GetLifecycleConfiguration",
        breaks: "`doctor` skips its check for lifecycle rules that would delete the cluster's objects",
        before: nothing,
        shows: |site| site.skips("bucket lifecycle rules", "s3:GetLifecycleConfiguration", "IMDS hop limit"),
    },
    Case {
        document: "optional/drift",
        sid: "Images",
        action: "ec2:DescribeImages",
        breaks: "drift is unknown, whatever the source",
        before: nothing,
        shows: |site| site.knows_no_drift(&format!("{{ ami: {NEWER} }}"), "ec2:DescribeImages"),
    },
    Case {
        document: "optional/drift",
        sid: "Images",
        action: "ec2:DescribeLaunchTemplateVersions",
        breaks: "drift is unknown where a launch template is the source, or the group has one; such a group's nodes are not replaced",
        before: nothing,
        shows: |site| site.knows_no_drift("{ launch_template: { name: any } }", "ec2:DescribeLaunchTemplateVersions"),
    },
    Case {
        document: "optional/drift",
        sid: "Group",
        action: "autoscaling:DescribeAutoScalingGroups",
        breaks: "drift is unknown where the group is the source; lifecycle hooks hear nothing; nodes are not replaced",
        before: in_a_group,
        shows: |site| site.knows_no_drift("{ auto_scaling_group: true }", "autoscaling:DescribeAutoScalingGroups"),
    },
    Case {
        document: "optional/drift",
        sid: "Group",
        action: "autoscaling:DescribeAutoScalingInstances",
        breaks: "as without `autoscaling:DescribeAutoScalingGroups`",
        before: in_a_group,
        shows: |site| site.knows_no_drift("{ auto_scaling_group: true }", "autoscaling:DescribeAutoScalingInstances"),
    },
];

const RETIRE: &[&str] = &["cluster", "retire", "--yes"];
const STATUS: &[&str] = &["status", "--cluster"];

fn nothing(_: &Cloud, _: &Site) {}

/// The instance of the site in a group of its own.
fn in_a_group(cloud: &Cloud, site: &Site) {
    let name = format!("group-{}", site.who.instance);
    cloud.template(&name, NEWER);
    cloud.group(&name, &name, &site.who.instance);
}

/// A cluster of which nothing lives any more.
fn ended(cloud: &Cloud, site: &Site) {
    let cluster = &site.who.cluster;
    cloud.put(&key(cluster, "cluster.json"), &register(cluster, &site.gone, true));
    cloud.put(&key(cluster, "nodes/machine-1/report.json"), "{}");
}

/// A cluster whose first master was terminated before the end of its init.
pub fn held_by_the_terminated(cloud: &Cloud, site: &Site) {
    let cluster = &site.who.cluster;
    cloud.put(&key(cluster, "cluster.json"), &register(cluster, &site.gone, false));
}

/// A master that waits, says `access-denied` and all of these, and has begun init so many times.
fn refuses_master(site: &Site, texts: &[&str], inits: usize) {
    let world = World::new();
    let node = site.who.node(&world, "master", "m1");
    node.waits(&[&["access-denied"], texts].concat());
    assert_eq!(node.machine.begun("init"), inits);
}

/// A machine that gets no login of ECR, and is told which right it lacks.
fn gets_no_login(site: &Site, role: &str) {
    let world = World::new();
    let node = site.who.node(&world, role, "n1");
    node.logs_in().expect(14).says(&["access-denied", "grant ecr:GetAuthorizationToken"]);
}

/// A node that becomes one, and of which nobody hears.
fn works_unseen(site: &Site, role: &str) {
    let world = World::new();
    let node = site.who.node(&world, role, &site.name());
    node.runs(&["run", "--once"]).expect(0).says(&["access-denied", "grant s3:PutObject", "/nodes/arn:aws:ec2:"]);
    assert_eq!(site.reported(), Vec::<String>::new());
}

impl Site {
    /// The same with an S3 that does not list. moto says 404 whatever the policy is; the stub does what S3 does.
    fn where_missing_is_forbidden(&self, world: &World) -> (Server, Site) {
        let stub = Server::s3(world, "list_allowed: false");
        let who = Principal { url: stub.url(), ..self.who.clone() };
        (stub, Site { who, admin: self.admin.clone(), gone: self.gone.clone() })
    }

    /// A node name of its own.
    fn name(&self) -> String {
        format!("node-{}", self.who.instance)
    }

    /// The node of this site, if the store has heard of it.
    fn reported(&self) -> Vec<String> {
        let status = self.admin.status();
        let nodes = status["nodes"].as_array().expect("nodes").iter();
        let names = nodes.filter_map(|node| node["report"]["identity"]["node_name"].as_str());
        names.filter(|name| *name == self.name()).map(str::to_owned).collect()
    }

    /// A verb of an operator fails and names the right.
    fn denied(&self, verb: &[&str], texts: &[&str]) {
        let cluster = self.who.cluster.as_str();
        let confirmed = [verb, if verb == RETIRE { std::slice::from_ref(&cluster) } else { &[] }].concat();
        self.who.runs(&confirmed).expect(14).says(&[&["access-denied"], texts].concat());
    }

    /// `drift` fails and names the right.
    fn knows_no_drift(&self, source: &str, action: &str) {
        let world = World::new();
        let node = self.who.node(&world, "worker", "w1");
        node.drift(source).expect(14).says(&["access-denied", &format!("grant {action}"), "unknown"]);
    }

    /// A check of `doctor` is skipped, and names the right; the other one is made.
    fn skips(&self, check: &str, action: &str, other: &str) {
        let world = World::new();
        let node = self.who.node(&world, "worker", "w1");
        let (result, said) = node.doctor(check);
        assert!(result == "skipped" && said.contains(action), "{said}");
        let (result, said) = node.doctor(other);
        assert!(["ok", "warning"].contains(&result.as_str()), "{said}");
    }
}
