//! The agent's side of ECR: logins for containerd, the kubelet's wiring, and both taken away again. The real program with
//! a peer that plays ECR, and with moto.

use crate::peer::{Peer, Reply};
use crate::process::{Agent, Finished, KUBESTRAP, PATIENCE, finish};
use crate::world::{Machine, World};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A registry.
pub const IRELAND: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const OHIO: &str = "210987654321.dkr.ecr.us-east-2.amazonaws.com";
const MIRROR: &str = "mirror.corp.example:5000";
/// Our own CredentialProviderConfig.
pub const PROVIDERS: &str = "/etc/kubernetes/kubestrap/credential-providers.yaml";
const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const CERTS: &str = "/etc/containerd/certs.d";

fn json_reply(status: &str, body: &Value) -> Reply {
    Reply::whole(status, "content-type: application/x-amz-json-1.1\r\n", &body.to_string())
}

/// A login with this password, which lives for half a day.
pub fn login(password: &str) -> Reply {
    let expires = (Timestamp::now() + SignedDuration::from_hours(12)).as_second();
    let token = STANDARD.encode(format!("AWS:{password}"));
    json_reply("200 OK", &json!({ "authorizationData": [{ "authorizationToken": token, "expiresAt": expires }] }))
}

/// A refusal of this type.
pub fn refusal(kind: &str) -> Reply {
    json_reply("400 Bad Request", &json!({ "__type": kind, "message": "not now" }))
}

/// The header that containerd sends with this password.
fn header(password: &str) -> String {
    format!("authorization = \"Basic {}\"", STANDARD.encode(format!("AWS:{password}")))
}

/// The program with credentials of AWS that open nothing.
pub fn command(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.command(arguments);
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "hunter2");
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "eu-west-1");
    command
}

fn run(machine: &Machine, arguments: &[&str]) -> Finished {
    finish(&mut command(machine, arguments))
}

fn configure(machine: &Machine, endpoint: &str, more: &str) {
    machine.configure(&format!("aws: {{ ecr_endpoint: '{endpoint}' }}\necr:\n  registries: [{IRELAND}]\n{more}"));
}

/// Where containerd reads what it needs for a host.
pub fn hosts(folder: &str) -> String {
    format!("{CERTS}/{folder}/hosts.toml")
}

/// A node whose agent runs, with a login in this host's folder.
fn node(machine: &Machine, folder: &str) -> Agent {
    let mut agent = Agent::start(&mut command(machine, &["run"]));
    agent.until("there is a login", || machine.has(&hosts(folder)));
    agent.until_logged("phase: ready");
    agent
}

fn stop(agent: Agent) -> Finished {
    agent.terminate();
    agent.finished(PATIENCE).expect(0)
}

#[test]
fn a_node_has_logins_for_containerd_and_a_plugin_for_the_kubelet() {
    let world = World::new();
    let master = world.master("m1");
    let ecr = Peer::start(|request| login(if request.contains("us-east-2") { "ohio-pw" } else { "ireland-pw" }));
    let more = format!("  mirrors: {{ '{MIRROR}': {OHIO}, theirs.example: {IRELAND} }}\n");
    configure(&master, &ecr.url(), &more);
    let theirs = "server = \"https://theirs.example\"\n";
    master.write(&hosts("theirs.example"), theirs);
    let log = stop(node(&master, "mirror.corp.example_5000_")).said();

    for (folder, password) in [(IRELAND, "ireland-pw"), ("mirror.corp.example_5000_", "ohio-pw")] {
        let text = master.read(&hosts(folder));
        assert!(text.contains(&header(password)) && text.contains("capabilities = [\"pull\", \"resolve\"]"), "{text}");
        assert_eq!(master.mode(&hosts(folder)), 0o600);
    }
    assert!(master.read(&hosts("mirror.corp.example_5000_")).contains(&format!("server = \"https://{MIRROR}\"")));
    assert_eq!(ecr.requests(), 2, "one for each region");
    assert_eq!(master.read(&hosts("theirs.example")), theirs);
    assert_eq!(log.matches("containerd gets no login for theirs.example").count(), 1, "{log}");
    assert!(!log.contains("ireland-pw") && !log.contains(&STANDARD.encode("AWS:ireland-pw")), "{log}");

    let providers = master.read(PROVIDERS);
    assert!(providers.contains(&format!("--mirror={MIRROR}={OHIO}")) && providers.contains(&ecr.url()), "{providers}");
    let flags = master.read(KUBELET_FLAGS);
    let folder = Path::new(KUBESTRAP).parent().expect("a folder").display().to_string();
    assert!(flags.contains(&format!("--image-credential-provider-config={PROVIDERS}")), "{flags}");
    assert!(flags.contains(&format!("--image-credential-provider-bin-dir={folder}")), "{flags}");

    // Another life asks nobody for what it has, and writes nothing.
    let before = (master.picture(CERTS), master.read(PROVIDERS));
    run(&master, &["run", "--once"]).expect(0);
    assert_eq!(ecr.requests(), 2);
    assert!(before == (master.picture(CERTS), master.read(PROVIDERS)), "something was written");
}

#[test]
fn a_reset_gives_back_what_was_there() {
    let world = World::new();
    let master = world.master("m1");
    let ecr = Peer::start(|_| login("pw"));
    let theirs = "# ours\nkind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n\
                  - name: corp   # ask platform\n  matchImages: [\"*.corp.example\"]\n  defaultCacheDuration: 1h\n\
                  \x20 apiVersion: credentialprovider.kubelet.k8s.io/v1\n";
    master.write("/etc/kubernetes-corp/providers.yaml", theirs);
    master.write(&hosts("theirs.example"), "server = \"https://theirs.example\"\n");
    let folder = Path::new(KUBESTRAP).parent().expect("a folder").display().to_string();
    let more = format!(
        "kubeadm: {{ InitConfiguration: {{ nodeRegistration: {{ kubeletExtraArgs: [\
         {{ name: image-credential-provider-config, value: /etc/kubernetes-corp/providers.yaml }}, \
         {{ name: image-credential-provider-bin-dir, value: {folder} }}] }} }} }}\n"
    );
    configure(&master, &ecr.url(), &more);
    stop(node(&master, IRELAND));
    let both = master.read("/etc/kubernetes-corp/providers.yaml");
    assert!(both.starts_with(theirs) && both.contains("ecr-credential-provider"), "{both}");
    assert!(!master.has(PROVIDERS));

    run(&master, &["reset", "--force", "--yes", "m1"]).expect(0);
    assert_eq!(master.read("/etc/kubernetes-corp/providers.yaml"), theirs);
    assert!(!master.has(&hosts(IRELAND)) && master.has(&hosts("theirs.example")));
    run(&master, &["reset", "--force", "--yes", "m1"]).expect(0).says(&["Nothing to do"]);
}

#[test]
fn switched_off_it_is_taken_back_as_far_as_the_kubelet_can_do_without() {
    let world = World::new();
    let master = world.master("m1");
    let ecr = Peer::start(|_| login("pw"));
    configure(&master, &ecr.url(), "");
    stop(node(&master, IRELAND));
    configure(&master, &ecr.url(), "  enabled: false\n");
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until("the login is gone", || !master.has(&hosts(IRELAND)));
    agent.until_logged("phase: ready");
    stop(agent);
    assert!(master.has(PROVIDERS), "the kubelet would not start without it");
    let flags: String = master.read(KUBELET_FLAGS).split_inclusive(' ').filter(|f| !f.contains("image-cred")).collect();
    master.write(KUBELET_FLAGS, &flags);
    run(&master, &["run", "--once"]).expect(0);
    assert!(!master.has(PROVIDERS));
}

/// A file of ours for this host, as it was written by an earlier agent.
pub fn written_before(machine: &Machine, host: &str, expires: i64, refresh: i64) {
    let at = |seconds| Timestamp::from_second(Timestamp::now().as_second() + seconds).expect("time");
    let text = format!(
        "# Written by kubestrap: x\n# login expires {} refresh {}\nserver = \"https://{host}\"\n[host.\"https://{host}\"]\n",
        at(expires),
        at(refresh)
    );
    machine.write(&hosts(host), &text);
}

#[test]
fn a_login_is_renewed_when_it_is_due_and_a_dead_one_is_taken_away() {
    let world = World::new();
    let master = world.master("m1");
    let well = Arc::new(AtomicBool::new(false));
    let answers = well.clone();
    let ecr = Peer::start(move |_| match answers.load(Ordering::Relaxed) {
        true => login("new-pw"),
        false => refusal("ThrottlingException"),
    });
    configure(&master, &ecr.url(), &format!("  mirrors: {{ old.example: {IRELAND}, gone.example: {IRELAND} }}\n"));
    written_before(&master, IRELAND, 3600, -60);
    written_before(&master, "old.example", -5, -3600);
    // Nobody wants a login for this one any more.
    written_before(&master, "left.example", 3600, 1800);
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until_logged("throttled");
    agent.until("the dead one is gone", || !master.has(&hosts("old.example")) && !master.has(&hosts("left.example")));
    assert!(master.read(&hosts(IRELAND)).contains("x\n# login"), "a login that lives was taken away");
    agent.until_logged("phase: ready");
    well.store(true, Ordering::Relaxed);
    agent.kill();
    // What an agent that starts finds due is asked for at once.
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until("all have the new one", || {
        [IRELAND, "old.example", "gone.example"].iter().all(|host| {
            std::fs::read_to_string(master.path(&hosts(host))).is_ok_and(|text| text.contains(&header("new-pw")))
        })
    });
    assert_eq!(master.mode(&hosts(IRELAND)), 0o600, "the file of before was open to all");
    stop(agent);
}

#[test]
fn what_is_denied_is_told_once_and_keeps_nobody_from_becoming_a_node() {
    let world = World::new();
    let master = world.master("m1");
    let ecr = Peer::start(|_| refusal("AccessDeniedException"));
    configure(&master, &ecr.url(), &format!("  mirrors: {{ m.example: {IRELAND} }}\n"));
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until_logged("phase: ready");
    agent.until_logged("ecr:GetAuthorizationToken");
    let log = stop(agent).said();
    assert_eq!(log.matches("[access-denied]").count(), 1, "{log}");
    assert_eq!(ecr.requests(), 1, "{log}");
    assert!(!master.has(&hosts(IRELAND)) && !master.has(&hosts("m.example")));
    run(&master, &["doctor"]).expect(21).says(&["ECR login", "access-denied", "ecr:GetAuthorizationToken"]);
}

#[test]
fn somebody_elses_plugins_are_left_alone_and_the_fix_is_one_command() {
    let world = World::new();
    let master = world.master("m1");
    let flags = "kubeadm: { InitConfiguration: { nodeRegistration: { kubeletExtraArgs: [\
                 { name: image-credential-provider-config, value: /etc/corp/providers.yaml }, \
                 { name: image-credential-provider-bin-dir, value: /opt/corp }] } } }\n";
    let theirs = "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n- name: ecr-credential-provider\n\
                  \x20 matchImages: ['*.dkr.ecr.*.amazonaws.com']\n  defaultCacheDuration: 12h\n\
                  \x20 apiVersion: credentialprovider.kubelet.k8s.io/v1\n";
    master.write("/etc/corp/providers.yaml", theirs);
    let ecr = Peer::start(|_| login("pw"));
    configure(&master, &ecr.url(), flags);
    let fix = format!("ln -s {KUBESTRAP} /opt/corp/kubestrap");
    run(&master, &["run", "--once"]).expect(10).says(&["/opt/corp", &fix]);
    assert_eq!(master.read("/etc/corp/providers.yaml"), theirs);
    std::fs::create_dir_all(master.path("/opt/corp")).expect("mkdir");
    std::os::unix::fs::symlink(KUBESTRAP, master.path("/opt/corp/kubestrap")).expect("link");
    run(&master, &["run", "--once"]).expect(0).says(&["asks the provider ecr-credential-provider"]);
    assert!(master.read("/etc/corp/providers.yaml").starts_with(theirs));
    run(&master, &["doctor"]).says(&["before it asks kubestrap", "remove it from /etc/corp/providers.yaml"]);
    // Nothing is written over what cannot be read.
    master.write("/etc/corp/providers.yaml", "kind: [\n");
    let other = world.master("m2");
    other.write("/etc/corp/providers.yaml", "kind: [\n");
    std::fs::create_dir_all(other.path("/opt/corp")).expect("mkdir");
    std::os::unix::fs::symlink(KUBESTRAP, other.path("/opt/corp/kubestrap")).expect("link");
    configure(&other, &ecr.url(), flags);
    run(&other, &["run", "--once"]).expect(10).says(&["/etc/corp/providers.yaml", "line"]);
    assert_eq!(other.read("/etc/corp/providers.yaml"), "kind: [\n");
}

#[test]
fn a_node_that_joined_before_is_told_how_its_kubelet_gets_the_flags() {
    let world = World::new();
    let master = world.master("m1");
    let ecr = Peer::start(|_| login("pw"));
    run(&master, &["run", "--once"]).expect(0);
    let before = master.read(KUBELET_FLAGS);
    configure(&master, &ecr.url(), "");
    stop(node(&master, IRELAND));
    assert!(master.has(PROVIDERS) && master.read(KUBELET_FLAGS) == before, "a running kubelet's flags are its owner's");
    let doctor = run(&master, &["doctor"]).expect(0);
    doctor.says(&["joined before", &format!("--image-credential-provider-config={PROVIDERS}"), KUBELET_FLAGS]);
    let folder = Path::new(KUBESTRAP).parent().expect("a folder").display().to_string();
    let ours = format!("--image-credential-provider-config={PROVIDERS} --image-credential-provider-bin-dir={folder}");
    master.write(KUBELET_FLAGS, &before.replace("--node-ip", &format!("{ours} --node-ip")));
    let again = run(&master, &["doctor"]).expect(0).said();
    assert!(!again.contains("joined before"), "{again}");
}

/// moto gives every login the same end, in 2015.
#[test]
fn a_login_that_is_dead_when_it_is_given_is_not_written() {
    let Some(endpoint) = std::env::var("KUBESTRAP_TEST_S3").ok().filter(|url| !url.is_empty()) else {
        println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
        return;
    };
    let world = World::new();
    let master = world.master("m1");
    configure(&master, &endpoint, "");
    let mut agent = Agent::start(&mut command(&master, &["run"]));
    agent.until_logged("phase: ready");
    agent.until_logged("is dead already, or nearly so");
    stop(agent);
    assert!(!master.has(&hosts(IRELAND)));
    run(&master, &["doctor"]).expect(21).says(&["ECR login", "clock-skew", "2015-01-01"]);
}
