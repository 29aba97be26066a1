//! Somebody between a node and the S3 server: without a certificate that the machine's roots vouch for, nothing is asked,
//! and no credential is sent.

use super::{Attacker, Case, Scene, Waits};
use crate::http::Server;

/// Against a worker.
pub const ATTACKER: Attacker =
    Attacker { who: "who is between a node and the S3 server", scene: Scene::worker, cases: CASES };

const KEY: &str = "s3://bucket/k8s/prod/join/worker.json";

/// The victim's store is this server, over TLS.
fn store(scene: &mut Scene, server: Server, scheme: &str) {
    let url = format!("{scheme}://{}", server.address);
    let text = scene.victim.read("/etc/kubestrap/config.yaml");
    let lines = text.lines().filter(|line| !line.starts_with("store:"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let store = format!("store: s3://bucket/k8s\ns3: {{ endpoint: '{url}', region: eu-central-1 }}\n");
    scene.victim.write("/etc/kubestrap/config.yaml", &format!("{text}\n{store}"));
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        scene.environment(name, value);
    }
    scene.standins.push(server);
}

fn certificate(scene: &mut Scene, kind: &str) {
    let roots = scene.world.path("roots.pem");
    let server = Server::s3_tls(kind, &roots);
    // As SSL_CERT_FILE says: the machine's roots, and no others.
    scene.environment("SSL_CERT_FILE", roots.display().to_string());
    store(scene, server, "https");
}

macro_rules! case {
    ($what:literal, $prepare:expr, $cause:literal, $($says:expr),+) => {
        Case { name: $what, prepare: $prepare, answer: Waits, cause: $cause, says: &[KEY, $($says),+] }
    };
}

const CASES: &[Case] = &[
    case!("a certificate of another CA", |scene| certificate(scene, "other-ca"), "tls", "certificate", "CA bundle"),
    case!("a certificate for another host", |scene| certificate(scene, "other-host"), "tls", "not valid for name"),
    case!("a certificate that has expired", |scene| certificate(scene, "expired"), "tls", "expired"),
    case!(
        "no TLS where https is configured",
        |scene| {
            let roots = scene.world.path("roots.pem");
            drop(Server::s3_tls("good", &roots));
            scene.environment("SSL_CERT_FILE", roots.display().to_string());
            let plain = Server::s3(&scene.world, "{}");
            store(scene, plain, "https");
        },
        "tls",
        "CA bundle"
    ),
    case!(
        "no trusted roots on the machine",
        |scene| {
            certificate(scene, "good");
            scene.environment.retain(|(name, _)| name != "SSL_CERT_FILE");
            scene.environment("SSL_CERT_FILE", scene.bystander("empty.pem", "").display().to_string());
            scene.environment("SSL_CERT_DIR", "/nonexistent");
        },
        "tls",
        "no trusted root certificates",
        "ca-certificates"
    ),
];

#[test]
fn a_worker_withstands_it() {
    super::withstands(&ATTACKER);
}

/// The same server with the certificate that it should have is used: the cases above fail for their reasons.
#[test]
fn a_good_certificate_is_accepted() {
    let mut scene = Scene::worker();
    certificate(&mut scene, "good");
    let mut agent = crate::process::Agent::start(&mut scene.command());
    agent.until_logged("no master has published one yet");
    agent.terminate();
    agent.finished(crate::process::PATIENCE).expect(0);
}
