//! The IAM policies of `iam/`: with them everything works, driven by the real program against moto with IAM in force;
//! without any one action exactly that breaks which the page says.

mod cloud;
mod documents;
mod drift;
mod machines;
mod removals;

use crate::process::{Agent, PATIENCE};
use crate::world::World;
use cloud::{BUCKET, Cloud};
use machines::{Principal, key, policy};
use removals::{CASES, Case, Site};
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many cases run side by side: each waits for its agent most of the time.
const AT_A_TIME: usize = 4;
/// The cluster that the cases of workers share.
const SHARED: &str = "prod";

/// Somebody who may read everything, of a cluster.
fn admin(cloud: &Cloud, cluster: &str) -> Principal {
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"],
          "Resource": [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")] },
    ] });
    Principal::new(cloud, &format!("admin-{cluster}"), cluster, "none", &[policy.to_string()])
}

/// A principal with exactly these documents.
fn with(cloud: &Cloud, name: &str, documents: &[&str], cluster: &str, instance: &str) -> Principal {
    let policies: Vec<String> = documents.iter().map(|document| policy(document, cluster, instance, None)).collect();
    Principal::new(cloud, name, cluster, instance, &policies)
}

#[test]
fn everything_the_agent_does_works_with_the_policies() {
    let Some(cloud) = Cloud::start() else { return };
    let ids = cloud.instances(5);
    cloud.terminate(&ids[4]);
    let who = |name: &str, documents: &[&str], at: usize| with(&cloud, name, documents, SHARED, &ids[at]);
    let master = who("master", &["master"], 0);
    let (worker, looked_at) = (who("worker", &["worker"], 1), who("doctor", &["worker", "optional/doctor"], 2));
    let (operator, reader) = (who("operator", &["operator"], 3), who("reader", &["reader"], 3));
    let successor = with(&cloud, "successor", &["master"], "taken", &ids[3]);
    let held = machines::register("taken", &ids[4], false);
    cloud.put(&key("taken", "cluster.json"), &held);
    cloud.enforce();

    let world = World::new();
    let m1 = master.node(&world, "master", "m1");
    let early = worker.node(&world, "worker", "w1");
    let mut waiting = Agent::start(&mut early.command(&["run", "--once"]));
    waiting.until_logged("no master has published one yet");
    m1.runs(&["run", "--once"]).expect(0);
    waiting.finished(PATIENCE).expect(0);
    // Once more, over what is there: a report is replaced.
    early.runs(&["run", "--once"]).expect(0);
    let said = m1.runs(&["run", "--once"]).expect(0).said();
    assert!(!said.contains("access-denied"), "{said}");
    m1.runs(&["token", "rotate", "--revoke"]).expect(0);
    let w2 = looked_at.node(&world, "worker", "w2");
    w2.runs(&["run", "--once"]).expect(0);
    for name in ["w1", "w2"] {
        assert_eq!(m1.machine.node(name)["metadata"]["name"], name);
    }

    for (node, checks) in [
        (&m1, &["credentials", "store", "join bundle", "clock", "IMDS hop limit"][..]),
        (&early, &["credentials", "store", "join bundle", "clock"]),
        (&w2, &["credentials", "store", "join bundle", "clock", "IMDS hop limit", "bucket lifecycle rules"]),
    ] {
        for check in checks {
            let (result, said) = node.doctor(check);
            assert!(["ok", "warning"].contains(&result.as_str()), "{said}");
        }
    }
    for node in [&m1, &early] {
        node.logs_in().expect(0).says(&["ECR in eu-central-1", "from       ECR"]);
    }
    reader.runs(&["status", "--cluster"]).expect(0).says(&["m1", "w1", "w2", "established"]);

    let heir = World::new();
    let m2 = successor.node(&heir, "master", "m2");
    m2.runs(&["run", "--once"]).expect(0);
    assert_eq!((m2.machine.begun("init"), m2.machine.succeeded("init")), (1, 1));

    drop((m1, early, w2));
    let uid = reader.status()["register"]["uid"].as_str().expect("a uid").to_owned();
    operator.runs(&["cluster", "retire", "--yes", SHARED]).expect(0).says(&[&format!("retired/{uid}/")]);
    reader.runs(&["status", "--cluster"]).expect(0).says(&["no master has claimed it yet"]);
}

#[test]
fn what_the_policies_do_not_allow_is_refused() {
    let Some(cloud) = Cloud::start() else { return };
    let ids = cloud.instances(2);
    let master = with(&cloud, "master", &["master"], SHARED, &ids[0]);
    let worker = with(&cloud, "worker", &["worker"], SHARED, &ids[1]);
    let reader = with(&cloud, "reader", &["reader"], SHARED, "none");
    // A master's machine of another cluster in the same bucket.
    let stranger = Principal { cluster: "other".to_owned(), ..master.clone() };
    let (intruder, owner) =
        (with(&cloud, "intruder", &["worker"], "held", &ids[1]), with(&cloud, "owner", &["master"], "held", &ids[1]));
    cloud.put(&key("held", "cluster.json"), &machines::register("held", &ids[0], false));
    cloud.enforce();
    let world = World::new();
    let m1 = master.node(&world, "master", "m1");
    m1.runs(&["run", "--once"]).expect(0);
    // A worker whose metadata names the master's instance does not get to write the master's report.
    let liar = worker.node_that_is(&world, "worker", "w1", &ids[0]);
    liar.runs(&["run", "--once"]).expect(0).says(&["access-denied", "grant s3:PutObject", "/nodes/arn:aws:ec2:"]);
    // Nor the register, with a configuration that makes a master of its machine; a master does.
    let other = World::new();
    let unlock = ["unlock", "init", "--yes", "held"];
    let usurper = intruder.node(&other, "master", "w2");
    usurper.runs(&unlock).expect(14).says(&["access-denied", "grant s3:PutObject", "held/cluster.json"]);
    owner.node(&other, "master", "m2").runs(&unlock).expect(0);
    stranger.node(&World::new(), "master", "m9").waits(&["access-denied", "other/cluster.json"]);
    drop(m1);
    for nobody in [&worker, &master, &reader] {
        nobody.runs(&["cluster", "retire", "--yes", SHARED]).expect(14).says(&["access-denied"]);
    }
}

/// A case with its own role, and its own cluster where it needs one.
fn site(cloud: &Cloud, case: &Case, number: usize, instance: &str, gone: &str) -> Site {
    let is_added = ["optional/doctor", "optional/drift"].contains(&case.document);
    let shares = case.document == "worker" || is_added;
    let cluster = if shares { SHARED.to_owned() } else { format!("c{number}") };
    let mut policies = vec![policy(case.document, &cluster, instance, Some((case.sid, case.action)))];
    if is_added {
        policies.push(policy("worker", &cluster, instance, None));
    }
    let who = Principal::new(cloud, &format!("role-{number}"), &cluster, instance, &policies);
    let admin = Principal { cluster, ..admin(cloud, &format!("c{number}")) };
    let site = Site { who, admin, gone: gone.to_owned() };
    (case.before)(cloud, &site);
    site
}

#[test]
fn each_removed_action_breaks_exactly_what_the_page_says() {
    let Some(cloud) = Cloud::start() else { return };
    let ids = cloud.instances(CASES.len() + 2);
    let (gone, maker) = (&ids[CASES.len()], &ids[CASES.len() + 1]);
    cloud.terminate(gone);
    let maker = with(&cloud, "maker", &["master"], SHARED, maker);
    let sites: Vec<(&Case, Site)> =
        CASES.iter().enumerate().map(|(number, case)| (case, site(&cloud, case, number, &ids[number], gone))).collect();
    cloud.enforce();
    let world = World::new();
    let master = maker.node(&world, "master", "m1");
    master.runs(&["run", "--once"]).expect(0);

    let next = AtomicUsize::new(0);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while let Some((case, site)) = sites.get(next.fetch_add(1, Ordering::Relaxed)) {
                let name = format!("{} {} {}", case.document, case.sid, case.action);
                let thread = std::thread::Builder::new().name(name.clone());
                let outcome = thread.spawn_scoped(scope, || (case.shows)(site)).expect("thread").join();
                failed.extend(outcome.is_err().then_some(name));
            }
            failed
        };
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("worker")).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases: {failed:#?}", failed.len(), CASES.len());
}
