//! Secrets audit with S3, the metadata service and a proxy: no credential of AWS, no token of the metadata service, no
//! web identity and no password of a proxy is logged, stored, shown, or told to what we start, also when it is refused.

use crate::audit::{Execs, Secrets, below};
use crate::http::Server;
use crate::process::{Agent, Finished, PATIENCE, finish};
use crate::secrets::VERBS;
use crate::world::{Machine, World, free_port};
use std::process::Command;

const ROLE_KEY: &str = "roleSecretAccessKeyMARKERroleSecretAccess";
const SESSION: &str = "FwoGZXIvYXdzEsessionTokenMARKERsessionToken";
const IMDS_TOKEN: &str = "AQAEAimdsTokenMARKERimdsTokenMARKER==";
const ENVIRONMENT_KEY: &str = "environmentSecretKeyMARKERenvironmentKey";
const WEB_IDENTITY: &str = "webIdentityMARKER.webIdentityMARKER.webIdentityMARKER";
const PASSWORD: &str = "proxyPasswordMARKER";
/// A name that nobody resolves: requests to it pass through the proxy or nowhere.
const STORE: &str = "http://s3.example.invalid:9000";

/// Everything that must not be seen, and how the proxy's password travels in a header.
fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    for (kind, text) in [
        ("the role's secret access key", ROLE_KEY),
        ("the session token", SESSION),
        ("the metadata service's token", IMDS_TOKEN),
        ("the secret access key of the environment", ENVIRONMENT_KEY),
        ("the web identity token", WEB_IDENTITY),
        ("the proxy's password", PASSWORD),
        ("the proxy's user and password", "user:proxyPasswordMARKER"),
    ] {
        secrets.add(kind, text);
    }
    secrets
}

fn imds(world: &World, expiration: &str) -> Server {
    let text = format!(
        "token: {IMDS_TOKEN}\ninstances: [{{instance_id: i-0123456789abcdef0, account: '123456789012', \
         region: eu-central-1, availability_zone: eu-central-1b, instance_type: m7g.large, image_id: ami-0abc, \
         private_ip: 127.0.0.1, local_hostname: m1, role: {{name: node, access_key_id: ASIAMARKER, \
         secret_access_key: {ROLE_KEY}, token: {SESSION}, expiration: '{expiration}'}}}}]\n"
    );
    Server::imds(world, &text)
}

/// A master on EC2 whose store is an S3 behind a proxy.
fn master(world: &World, imds: &Server) -> Machine {
    let port = world.port;
    let text = format!(
        "cluster: prod\nrole: master\nstore: s3://bucket/k8s\ns3: {{ endpoint: '{STORE}', region: eu-central-1 }}\n\
         identity: ec2\naws: {{ metadata_endpoint: '{}', ec2_endpoint: 'http://ec2.example.invalid', \
         ecr_endpoint: 'http://ecr.example.invalid' }}\n\
         control_plane_endpoint: 127.0.0.1:{port}\nmetrics: {{ textfile: /var/lib/kubestrap.prom }}\n\
         kubeadm: {{ InitConfiguration: {{ localAPIEndpoint: {{ advertiseAddress: 127.0.0.1, bindPort: {port} }} }} }}\n",
        imds.url()
    );
    world.bare_machine("m1", &text)
}

/// The program, logging everything it can, behind a proxy at this address.
fn command(machine: &Machine, form: &str, proxy: &str, arguments: &[&str]) -> Command {
    let mut command = machine.command_logging(form, arguments);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, format!("http://user:{PASSWORD}@{proxy}"));
    }
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env("KUBESTRAP_LOG", "trace");
    command
}

/// Everything on a machine and all it said. Only the record of a job may have the proxy's password, for kubeadm needs
/// it; and that is for root alone, and gone when the node is complete.
fn audit_machine(machine: &Machine, secrets: &Secrets, said: &[Finished]) {
    for finished in said {
        secrets.absent("what it said", finished.said());
    }
    for entry in below(machine.root()) {
        let place = entry.path.display().to_string();
        if !(place.ends_with("/spec.json") && entry.mode == 0o600) {
            secrets.absent(&place, &entry.body);
        }
    }
}

fn audit(form: &str) {
    let world = World::new();
    let imds = imds(&world, "2099-01-01T00:00:00Z");
    // Refused once each on the way, with documents that repeat what came with the request.
    let stub = Server::s3(
        &world,
        "faults: [{method: GET, key: cluster.json, action: expired_token, after: 1, times: 1}, \
                  {method: PUT, key: worker.json, action: signature_does_not_match, times: 1}]",
    );
    let (secrets, proxy) = (secrets(), stub.address.to_string());
    let master = master(&world, &imds);
    let execs = Execs::of(&master, world.path("execs"));
    let mut said = Vec::new();
    let mut comes_up = false;
    for _ in 0..5 {
        let finished = finish(&mut command(&master, form, &proxy, &["run", "--once"]));
        comes_up = finished.code == Some(0);
        said.push(finished);
        if comes_up {
            break;
        }
    }
    let all: String = said.iter().map(Finished::said).collect();
    assert!(comes_up, "{all}");
    for refused in ["ExpiredToken", "SignatureDoesNotMatch"] {
        assert!(all.contains(refused), "the store refused nothing with {refused}: {all}");
    }
    said.extend(VERBS.iter().map(|verb| finish(&mut command(&master, form, &proxy, verb))));
    audit_machine(&master, &secrets, &said);
    let (status, listing) = stub.request("GET /bucket?list-type=2");
    assert_eq!(status, 200);
    let keys: Vec<&str> = listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).collect();
    assert!(keys.len() >= 3, "register, bundle and report: {keys:?}");
    for key in keys {
        secrets.absent(key, stub.request(&format!("GET /bucket/{key}")).1);
    }
    // Proxy variables, with their password, are what a child is meant to know.
    let passed = format!("http://user:{PASSWORD}@");
    for exec in execs.all() {
        let without = |text: &str| text.replace(&passed, "");
        assert!(exec.environment.contains(&passed), "kubeadm pulls images through the proxy");
        secrets.absent("arguments", format!("{} {}", exec.line, exec.parent));
        secrets.absent("an environment", without(&exec.environment));
        secrets.absent("a wrapper's environment", without(&exec.wrapper_environment));
    }
}

#[test]
fn no_credential_leaves_its_place_json() {
    audit("json");
}

#[test]
fn no_credential_leaves_its_place_human() {
    audit("human");
}

/// Runs until something was said, and then ends it.
fn run_until(command: &mut Command, texts: &[&str]) -> Finished {
    let mut agent = Agent::start(command);
    let log = agent.news();
    agent.until(&format!("one of {texts:?} is logged"), || texts.iter().any(|text| log().contains(text)));
    agent.terminate();
    agent.finished(PATIENCE)
}

/// Credentials that cannot be used: the SDK's own warnings print them.
#[test]
fn credentials_that_cannot_be_read_are_not_repeated() {
    let world = World::new();
    let imds = imds(&world, "never");
    let stub = Server::s3(&world, "{}");
    let machine = master(&world, &imds);
    let proxy = stub.address.to_string();
    let finished = finish(&mut command(&machine, "json", &proxy, &["doctor"]));
    assert!(finished.said().contains("credentials"), "{}", finished.said());
    audit_machine(&machine, &secrets(), &[finished]);
}

/// A proxy that is down, and STS behind it: the errors name the proxy's address at most.
#[test]
fn a_proxy_that_is_down_is_named_without_its_password() {
    let world = World::new();
    let imds = imds(&world, "2099-01-01T00:00:00Z");
    let machine = master(&world, &imds);
    let down = format!("127.0.0.1:{}", free_port());
    machine.write("/web-identity", WEB_IDENTITY);
    let web = |command: &mut Command| {
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", machine.path("/web-identity"));
        command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/node").env("AWS_REGION", "eu-central-1");
    };
    let keys = |command: &mut Command| {
        command.env("AWS_ACCESS_KEY_ID", "AKIAMARKER").env("AWS_SECRET_ACCESS_KEY", ENVIRONMENT_KEY);
    };
    let mut said = Vec::new();
    for form in ["json", "human"] {
        for prepare in [&web as &dyn Fn(&mut Command), &keys] {
            for verb in [&["doctor"][..], &["plan"], &["status", "--cluster"]] {
                let mut command = command(&machine, form, &down, verb);
                prepare(&mut command);
                said.push(finish(&mut command));
            }
            let mut run = command(&machine, form, &down, &["run"]);
            prepare(&mut run);
            said.push(run_until(&mut run, &["next attempt", "failed to"]));
        }
    }
    let failed = said.iter().filter(|finished| finished.said().contains("s3://bucket/k8s")).count();
    assert!(failed >= 8, "{failed} of {} speak of the store", said.len());
    std::fs::remove_file(machine.path("/web-identity")).expect("rm");
    audit_machine(&machine, &secrets(), &said);
}

/// A password in a URL of the configuration is refused and not repeated.
#[test]
fn a_password_in_the_configuration_is_not_repeated() {
    let world = World::new();
    let secrets = secrets();
    for (number, line) in [
        format!("s3: {{ endpoint: 'http://user:{PASSWORD}@s3.example.com' }}"),
        format!("s3: {{ endpoint: 'user:{PASSWORD}@s3.example.com' }}"),
        format!("aws: {{ ec2_endpoint: 'ftp://user:{PASSWORD}@ec2.example.com' }}"),
        format!("aws: {{ metadata_endpoint: 'http://user:{PASSWORD}@127.0.0.1' }}"),
        format!("store: 's3://user:{PASSWORD}@bucket/k8s'"),
    ]
    .into_iter()
    .enumerate()
    {
        let store = if line.starts_with("store") { "" } else { "store: s3://bucket/k8s\n" };
        let text = format!("cluster: prod\nrole: worker\nidentity: host\n{store}{line}\n");
        let machine = world.bare_machine(&format!("w{number}"), &text);
        for verb in [&["config", "check"][..], &["config", "show"], &["doctor"], &["run", "--once"]] {
            let finished = machine.run(verb);
            assert_ne!(finished.code, Some(0), "{line}: {verb:?}");
            secrets.absent(&format!("{line}: {verb:?}"), finished.said());
        }
    }
}
