//! Machines on EC2 whose role has one of our policies, and operators elsewhere.

use super::cloud::{ACCOUNT, BUCKET, Cloud, Credentials, IMAGE, REGION};
use super::documents;
use crate::http::Server;
use crate::process::{Agent, Finished, PATIENCE, finish};
use crate::world::{Machine, World};
use serde_json::{Value, json};
use std::process::Command;

/// Below which prefix of the bucket the store is.
const PREFIX: &str = "k8s";

/// A principal with a policy, in a cluster.
#[derive(Clone)]
pub struct Principal {
    /// The account's address.
    pub url: String,
    /// The name of the cluster its policies are for.
    pub cluster: String,
    /// The instance it runs on, for `${ec2:SourceInstanceARN}`.
    pub instance: String,
    /// Its keys.
    pub credentials: Credentials,
}

/// `document` without an action of a part, its placeholders filled for a machine of a cluster.
pub fn policy(document: &str, cluster: &str, instance: &str, without: Option<(&str, &str)>) -> String {
    let mut policy: Value = serde_json::from_str(&documents::text(document)).expect("JSON");
    if let Some((sid, action)) = without {
        let statements = policy["Statement"].as_array_mut().expect("statements");
        let part = statements.iter_mut().find(|statement| statement["Sid"] == sid).expect(sid);
        let actions = part["Action"].as_array_mut().expect("actions");
        let count = actions.len();
        actions.retain(|known| known != action);
        assert_eq!(actions.len() + 1, count, "{document} {sid} has no {action}");
        statements.retain(|statement| statement["Action"].as_array().is_some_and(|actions| !actions.is_empty()));
    }
    let mut text = policy.to_string();
    // What IAM does with the variable for the instance that signs.
    let arn = arn(instance);
    for (name, value) in [
        ("BUCKET", BUCKET),
        ("PREFIX", PREFIX),
        ("CLUSTER", cluster),
        ("ACCOUNT", ACCOUNT),
        ("REGION", REGION),
        ("${ec2:SourceInstanceARN}", &arn),
    ] {
        text = text.replace(name, value);
    }
    text
}

/// The ARN of an instance.
pub fn arn(instance: &str) -> String {
    format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}")
}

/// Where an object of a cluster lies in the bucket.
pub fn key(cluster: &str, name: &str) -> String {
    format!("{PREFIX}/{cluster}/{name}")
}

/// The register of a cluster that this instance began to initialise, or ended.
pub fn register(cluster: &str, instance: &str, established: bool) -> String {
    let ec2 = json!({
        "instance_id": instance, "account": ACCOUNT, "region": REGION, "partition": "aws", "zone": "eu-central-1a",
        "instance_type": "m7g.large", "image_id": "ami-0abc",
    });
    let holder = json!({ "identity": arn(instance), "node_name": "m0", "ec2": ec2 });
    let (attempt, at) = ("6d0c8a3e-2f5b-4c1d-9a6e-0b1c2d3e4f50", "2026-01-01T00:00:00Z");
    let mut register =
        json!({ "schema": 1, "cluster": cluster, "uid": "7e1d9b4f-305c-4d2e-8b7f-1c2d3e4f5061", "attempt": attempt });
    let more = match established {
        true => {
            json!({ "state": "established", "ca_sha256": format!("sha256:{}", "ab".repeat(32)), "created_by": holder, "created_at": at })
        }
        false => json!({ "state": "initialising", "holder": holder, "since": at }),
    };
    register.as_object_mut().expect("map").extend(more.as_object().expect("map").clone());
    register.to_string()
}

impl Principal {
    /// A role with these policies, before IAM is in force.
    pub fn new(cloud: &Cloud, name: &str, cluster: &str, instance: &str, policies: &[String]) -> Principal {
        let credentials = cloud.role(name, policies);
        Principal { url: cloud.url(), cluster: cluster.to_owned(), instance: instance.to_owned(), credentials }
    }

    /// A master or a worker on this principal's instance.
    pub fn node(&self, world: &World, role: &str, name: &str) -> Node {
        self.node_that_is(world, role, name, &self.instance)
    }

    /// The same on a machine whose metadata names another instance.
    pub fn node_that_is(&self, world: &World, role: &str, name: &str, instance: &str) -> Node {
        let Credentials { id, secret, token } = &self.credentials;
        let imds = Server::imds(
            world,
            &format!(
                "instances: [{{instance_id: {instance}, account: '{ACCOUNT}', region: {REGION}, availability_zone: {REGION}a, \
                 instance_type: m7g.large, image_id: {IMAGE}, private_ip: 10.0.0.7, local_hostname: {name}, role: {{name: node, \
                 access_key_id: '{id}', secret_access_key: '{secret}', token: '{token}', expiration: '2099-01-01T00:00:00Z'}}}}]\n"
            ),
        );
        let port = world.port;
        let more = match role {
            "master" => format!(
                "control_plane_endpoint: 127.0.0.1:{port}\nkubeadm: {{ InitConfiguration: {{ localAPIEndpoint: \
                 {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }} }}\n"
            ),
            _ => String::new(),
        };
        let text = format!(
            "cluster: {}\nrole: {role}\nstore: s3://{BUCKET}/{PREFIX}\ns3: {{ endpoint: '{url}', region: {REGION} }}\nidentity: ec2\n\
             aws: {{ metadata_endpoint: '{}', ec2_endpoint: '{url}', ecr_endpoint: '{url}', ssm_endpoint: '{url}', \
             autoscaling_endpoint: '{url}' }}\n{more}",
            self.cluster,
            imds.url(),
            url = self.url,
        );
        Node { machine: world.bare_machine(name, &text), imds, url: self.url.clone() }
    }

    /// The program on an operator's own machine, with these credentials and no configuration.
    pub fn runs(&self, arguments: &[&str]) -> Finished {
        let world = World::new();
        let machine = world.bare_machine("laptop", "");
        let store = format!("s3://{BUCKET}/{PREFIX}");
        let place = ["--store", &store, "--cluster-name", &self.cluster, "--s3-endpoint", &self.url];
        let mut command = machine.command(&[arguments, &place].concat());
        let Credentials { id, secret, token } = &self.credentials;
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret).env("AWS_SESSION_TOKEN", token);
        finish(command.env("AWS_REGION", REGION).env("AWS_EC2_METADATA_DISABLED", "true"))
    }

    /// What the store says of the cluster, by somebody who may read everything.
    pub fn status(&self) -> Value {
        let said = self.runs(&["status", "--cluster", "--output", "json"]).expect(0);
        serde_json::from_str(&said.stdout).expect("JSON")
    }
}

/// A machine and its metadata service.
pub struct Node {
    /// The machine.
    pub machine: Machine,
    imds: Server,
    url: String,
}

impl Node {
    /// The program, to its end.
    pub fn runs(&self, arguments: &[&str]) -> Finished {
        self.machine.run(arguments)
    }

    /// `run --once` goes on waiting and says all of these.
    pub fn waits(&self, texts: &[&str]) {
        let mut agent = Agent::start(&mut self.machine.command(&["run", "--once"]));
        texts.iter().for_each(|text| agent.until_logged(text));
        assert!(agent.runs(), "it ended:\n{}", agent.log());
        agent.terminate();
        agent.finished(PATIENCE);
    }

    /// `ecr token` for the account's own registry, as the role of the instance.
    pub fn logs_in(&self) -> Finished {
        let host = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com");
        let cache = self.machine.path("/run/kubestrap/ecr").display().to_string();
        let mut command = self.machine.command(&["ecr", "token", "--registry", &host, "--cache-dir", &cache]);
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.imds.url()).env("AWS_ENDPOINT_URL_ECR", &self.url);
        finish(&mut command)
    }

    /// A check of `doctor`: its result, and all it says.
    pub fn doctor(&self, check: &str) -> (String, String) {
        let said = self.runs(&["doctor", "--output", "json"]);
        let found: Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.said()));
        let checks = found["checks"].as_array().expect("checks");
        let found = checks.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("no {check}: {found}"));
        (found["result"].as_str().expect("a result").to_owned(), found.to_string())
    }

    /// `drift` with this source of images.
    pub fn drift(&self, source: &str) -> Finished {
        let folder = self.machine.path("/etc/kubestrap/config.d");
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("drift.yaml"), format!("drift: {{ image: {source} }}\n")).expect("configuration");
        self.runs(&["drift", "--output", "json"])
    }

    /// A command as it would be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.machine.command(arguments)
    }
}
