//! A node's end, and the signals of its beginning: the real program, notices of a metadata service over HTTP, and Auto
//! Scaling's API.

use crate::http::Server;
use crate::process::{Agent, finish};
use crate::world::{Machine, World};
use serde_json::Value;

const INSTANCE: &str = "i-0123456789abcdef0";
const NAME: &str = "ip-10-0-0-7.eu-central-1.compute.internal";
const SPOT: &str = "spot/instance-action";
const LIFECYCLE: &str = "autoscaling/target-lifecycle-state";

/// A worker on EC2 whose metadata service says what the files of a folder say.
struct Scene {
    world: World,
    worker: Machine,
    auto_scaling: Server,
    _imds: Server,
}

impl Scene {
    /// `more` is configuration of the worker; both hooks wait for its instance.
    fn new(world: World, more: &str) -> Scene {
        let notices = world.path("notices");
        std::fs::create_dir_all(&notices).expect("mkdir");
        let imds = format!(
            "instances: [{{instance_id: {INSTANCE}, account: '123456789012', region: eu-central-1, \
             availability_zone: eu-central-1b, instance_type: m7g.large, image_id: ami-0abc, private_ip: 10.0.0.7, \
             local_hostname: {NAME}, notices: '{}'}}]\n",
            notices.display()
        );
        let imds = Server::imds(&world, &imds);
        let waiting = format!(
            "groups: {{ {INSTANCE}: workers }}\nthrottled: 1\n\
             waiting: [{{ instance: {INSTANCE}, hook: join }}, {{ instance: {INSTANCE}, hook: drain }}]\n"
        );
        let auto_scaling = Server::autoscaling(&world, &waiting);
        let text = format!(
            "cluster: prod\nrole: worker\nstore: file://{}\nidentity: ec2\naws: {{ metadata_endpoint: '{}', \
             autoscaling_endpoint: '{}', ecr_endpoint: 'http://127.0.0.1:9' }}\n{more}",
            world.path("store").display(),
            imds.url(),
            auto_scaling.url()
        );
        let worker = world.bare_machine(INSTANCE, &text);
        Scene { world, worker, auto_scaling, _imds: imds }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.worker.command(arguments);
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "c2VjcmV0c2VjcmV0c2VjcmV0");
        command
    }

    fn say(&self, path: &str, text: Option<&str>) {
        let file = self.world.path("notices").join(path);
        std::fs::create_dir_all(file.parent().expect("folder")).expect("mkdir");
        match text {
            Some(text) => std::fs::write(&file, text).expect("write"),
            None => std::fs::remove_file(&file).expect("remove"),
        }
    }

    /// What Auto Scaling was told and took: the action, the hook, the result.
    fn heard(&self) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string(self.world.path("autoscaling.jsonl")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = whole.map(|line| serde_json::from_str::<Value>(line).expect(line));
        let text = |line: &Value, key: &str| line["parameters"][key].as_str().unwrap_or_default().to_owned();
        lines
            .filter(|line| line["status"] == 200 && line["parameters"]["LifecycleHookName"].is_string())
            .map(|line| {
                let words = ["Action", "LifecycleHookName", "LifecycleActionResult"];
                let [action, hook, result] = words.map(|key| text(&line, key));
                (action, hook, result)
            })
            .collect()
    }

    fn count(&self, action: &str, hook: &str, result: &str) -> usize {
        let told = (action.to_owned(), hook.to_owned(), result.to_owned());
        self.heard().iter().filter(|heard| **heard == told).count()
    }

    fn report(&self) -> Value {
        let arn = format!("arn:aws:ec2:eu-central-1:123456789012:instance/{INSTANCE}");
        self.world.object(&format!("nodes/{arn}/report.json")).expect("a report")
    }
}

/// A cluster whose nodes are Ready, with a pod bound to the worker.
fn cluster() -> (World, Machine) {
    let world = World::new();
    let master = world.master("m1");
    master.script("api: { signer_delay: 0.05, crd_delay: 0.05, nodes_ready: always }");
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: web, namespace: default }}\n\
         spec: {{ nodeName: {NAME}, containers: [{{ name: web, image: web }}] }}\n"
    );
    master.write("/etc/kubestrap/addons/web.yaml", &pod);
    master.configure("addons: [/etc/kubestrap/addons/web.yaml]\n");
    master.run(&["run", "--once"]).expect(0);
    assert!(has_pod(&master));
    (world, master)
}

fn has_pod(master: &Machine) -> bool {
    master.api_objects().contains_key("/api/v1/namespaces/default/pods/web")
}

fn is_cordoned(master: &Machine) -> bool {
    master.node(NAME)["spec"]["unschedulable"] == true
}

#[test]
fn a_spot_interruption_empties_the_node_and_garbage_does_not() {
    let (world, master) = cluster();
    let scene = Scene::new(world, "");
    let mut agent = Agent::start(&mut scene.command(&["run"]));
    agent.until_logged("\"ready\"");
    scene.say(SPOT, Some("<html>terminate</html>"));
    agent.until_logged("meta-data/spot/instance-action");
    assert!(!is_cordoned(&master) && has_pod(&master));
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(120);
    scene.say(SPOT, Some(&format!(r#"{{"action": "terminate", "time": "{at}"}}"#)));
    agent.until("the pod is gone", || !has_pod(&master));
    assert!(is_cordoned(&master));
    let node = master.node(NAME);
    let annotations = &node["metadata"]["annotations"];
    assert_eq!(annotations["kubestrap.io/cordoned-by"], "end:spot");
    let mark: Value = serde_json::from_str(annotations["kubestrap.io/end"].as_str().expect("a mark")).expect("JSON");
    assert_eq!(mark["event"], "spot");
    assert!(mark["at"].as_str().expect("a time") < at.to_string().as_str(), "{mark}");
    agent.until("the report says so", || scene.report()["end"]["state"] == "drained");
    // Another life finds the same, and one without the notice gives the node back.
    agent.kill();
    scene.say(SPOT, None);
    let mut agent = Agent::start(&mut scene.command(&["run"]));
    agent.until("the node takes pods again", || !is_cordoned(&master));
    agent.until("the mark is gone", || master.node(NAME)["metadata"]["annotations"]["kubestrap.io/end"].is_null());
}

#[test]
fn the_hooks_hear_of_the_launch_and_of_the_drain() {
    let (world, master) = cluster();
    let scene = Scene::new(world, "end: { launch_hook: join, terminate_hook: drain }\n");
    let mut agent = Agent::start(&mut scene.command(&["run"]));
    let (beat, complete) = ("RecordLifecycleActionHeartbeat", "CompleteLifecycleAction");
    agent.until("the launch goes on", || scene.count(complete, "join", "CONTINUE") == 1);
    agent.kill();
    let mut agent = Agent::start(&mut scene.command(&["run"]));
    agent.until_logged("\"ready\"");
    scene.say(LIFECYCLE, Some("Terminated"));
    agent.until("the termination goes on", || scene.count(complete, "drain", "CONTINUE") == 1);
    assert!(!has_pod(&master) && is_cordoned(&master));
    assert_eq!(scene.count(beat, "drain", ""), 1);
    assert_eq!(scene.heard().iter().filter(|(action, ..)| action == complete).count(), 2, "{:?}", scene.heard());
    assert_eq!(scene.auto_scaling.request("GET /").0, 403, "the stand-in refuses what is not signed");
}

#[test]
fn once_the_launch_goes_on_before_it_ends() {
    let (world, _master) = cluster();
    let scene = Scene::new(world, "end: { launch_hook: join }\n");
    finish(&mut scene.command(&["run", "--once"])).expect(0);
    assert_eq!(scene.count("CompleteLifecycleAction", "join", "CONTINUE"), 1);
}

#[test]
fn a_launch_is_abandoned_for_a_machine_with_foreign_state_and_not_for_a_store_without_a_bundle() {
    let scene = Scene::new(World::new(), "end: { launch_hook: join }\n");
    scene.worker.write("/etc/kubernetes/kubelet.conf", "somebody else's\n");
    finish(&mut scene.command(&["run", "--once"])).expect(11);
    assert_eq!(scene.report()["error"]["cause"], "foreign-state", "it was reported before");
    assert_eq!(scene.heard(), [("CompleteLifecycleAction".into(), "join".into(), "ABANDON".into())]);

    let scene = Scene::new(World::new(), "end: { launch_hook: join }\njoin: { wait: 1m }\n");
    let mut agent = Agent::start(&mut scene.command(&["run", "--once"]));
    agent.until("a sign of life", || scene.count("RecordLifecycleActionHeartbeat", "join", "") == 1);
    agent.terminate();
    agent.finished(crate::process::PATIENCE);
    assert!(scene.heard().iter().all(|(action, ..)| action == "RecordLifecycleActionHeartbeat"), "{:?}", scene.heard());
}
