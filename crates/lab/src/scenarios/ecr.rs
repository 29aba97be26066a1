//! Pulls from a registry that demands credentials whose tokens die soon, by the real containerd; with the real kubelet too
//! where there is a Kubernetes folder.

use super::support::{BUCKET, STAYS_ON_A_FULL_DISK, await_ready, expect, master, said, worker};
use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::registry::{HOST, endpoint, open_address};
use crate::{Result, fail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ecr",
        about: "containerd pulls from a registry that demands credentials, ahead and after the first token has expired",
        needs: Needs::Nothing,
        shares: false,
        run: ecr,
    },
    Scenario {
        name: "ecr-k8s",
        about: "a cluster whose sandbox and pod images are in such a registry, new pods after the first token has expired",
        needs: Needs::Kubernetes,
        shares: false,
        run: ecr_k8s,
    },
];

/// Longer than the minute in which a login counts as nearly dead.
const LIFE: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);
const CA: &str = "/etc/ssl/certs/kubestrap-lab-registry.pem";
const CONTAINERD: &str = "/etc/containerd/config.toml";
const SANDBOX: &str = "k8s/pause:lab";
const APP: &str = "team/app:1";
const CERTS: &str = "/etc/containerd/certs.d";
const HOSTS: &str = "/etc/containerd/certs.d/123456789012.dkr.ecr.us-east-1.amazonaws.com/hosts.toml";

/// Makes an image `$1` that no machine has a layer of: the pause image `$2` with one more file, or that file alone.
const MAKE_IMAGE: &str = r#"set -e
ctr="ctr --namespace k8s.io images"
rm -rf /seed && mkdir -p /seed/root /seed/old && cd /seed
config={}
if [ -n "$2" ]; then
    $ctr export old.tar "$2" && tar -xf old.tar -C old
    for layer in $(jq -r '.[0].Layers[]' old/manifest.json); do tar -xf "old/$layer" -C root; done
    config=$(jq -c .config "old/$(jq -r '.[0].Config' old/manifest.json)")
fi
echo "$1" >root/of-the-lab
tar -cf layer.tar -C root .
sum=$(sha256sum layer.tar | cut -d' ' -f1)
printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$config" "$sum" >config.json
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$1" >manifest.json
tar -cf image.tar manifest.json config.json layer.tar
$ctr import image.tar
$ctr push --plain-http "$1""#;

/// A registry with these images, which then asks for credentials: the CA.
fn registry(lab: &mut Lab) -> Result<String> {
    lab.fabric().open_registry()?;
    let seed = lab.machine(&Spec::new("seed").boot(Boot::Plain))?;
    seed.power_on()?;
    seed.wait_booted()?;
    let source = lab.kubernetes().map(|kubernetes| crate::tree::images::sandbox(Some(&kubernetes))).unwrap_or_default();
    for name in [SANDBOX, APP] {
        let there = format!("{}/{name}", open_address());
        let done = seed.exec(&["sh", "-c", MAKE_IMAGE, "make-image", &there, &source])?;
        done.success(format!("make the image {there}"))?;
    }
    seed.remove()?;
    lab.fabric().close_registry(LIFE)
}

/// The machine knows the CA, ECR's API and the images; containerd's sandbox image is in the registry.
fn node(lab: &mut Lab, spec: Spec, ca: &str) -> Result<Machine> {
    let more = format!(
        "aws: {{ ecr_endpoint: '{}' }}\nimages: {{ sandbox: '{HOST}/{SANDBOX}', pull: ['{HOST}/{APP}'] }}\n",
        endpoint()
    );
    let text = spec.user_data.clone().unwrap_or_default() + &more;
    let machine = lab.machine(&spec.user_data(text).file(CA, ca))?;
    let config = machine.read(CONTAINERD).unwrap_or_default();
    let sandbox = |line: &str| {
        if line.trim().starts_with("sandbox =") { format!("  sandbox = \"{HOST}/{SANDBOX}\"") } else { line.to_owned() }
    };
    let config: Vec<String> = config.lines().map(sandbox).collect();
    machine.write(CONTAINERD, &(config.join("\n") + "\n"), 0o644)?;
    Ok(machine)
}

/// The labels of an image; nothing when it is not there.
fn labels(machine: &Machine, image: &str) -> String {
    let list = format!("ctr --namespace k8s.io images list name=={HOST}/{image} | tail -n +2");
    let row = machine.shell(&list).unwrap_or_default();
    row.split_whitespace().last().unwrap_or_default().to_owned()
}

fn pinned(machine: &Machine, image: &str) -> bool {
    labels(machine, image).contains("io.cri-containerd.pinned=pinned")
}

/// How many requests were so.
fn count(lab: &Lab, wanted: &[(&str, &str)]) -> usize {
    let is = |request: &Value| wanted.iter().all(|(key, value)| request[*key].to_string().trim_matches('"') == *value);
    lab.fabric().registry_requests().iter().filter(|request| is(request)).count()
}

/// How many tokens ECR gave.
fn given(lab: &Lab) -> usize {
    count(lab, &[("at", "api"), ("status", "200")])
}

/// Waits for the first token: when it was given at the latest.
fn await_token(lab: &Lab, machine: &Machine) -> Result<Instant> {
    machine.until("to ask ECR for a token", SOON, |_| given(lab) > 0)?;
    Ok(Instant::now())
}

/// Waits until the first token is dead, and sees that the registry lets in nobody who has the login of then.
fn await_expiry(lab: &Lab, machine: &Machine, since: Instant) -> Result<()> {
    let first = machine.read(HOSTS).unwrap_or_default();
    lab.say(&format!("waiting for the end of the first token, {} s after it was given", LIFE.as_secs()));
    while since.elapsed() < LIFE + Duration::from_secs(2) {
        crate::interrupt::check()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let now = machine.read(HOSTS).unwrap_or_default();
    expect(!now.is_empty() && now != first, "hosts.toml holds another login by then")?;
    machine.write(&HOSTS.replace(CERTS, "/root/dead"), &first, 0o600)?;
    let refused = pull(machine, "/root/dead", APP).err().map(|error| error.to_string()).unwrap_or_default();
    expect(refused.contains("pull access denied"), &format!("the first login is dead: {refused}"))?;
    expect(count(lab, &[("at", "registry"), ("login", "dead"), ("status", "401")]) > 0, "the registry saw it")
}

/// Removes an image, and pulls it by hand with the hosts of this folder.
fn pull(machine: &Machine, hosts: &str, image: &str) -> Result<String> {
    machine.shell(&format!(
        "ctr --namespace k8s.io images rm --sync {HOST}/{image} >/dev/null 2>&1
         ctr --namespace k8s.io images pull --hosts-dir {hosts} {HOST}/{image} 2>&1"
    ))
}

/// No login went to the blobs' host, none is in what others may read.
fn nothing_leaked(lab: &Lab, machine: &Machine) -> Result<()> {
    let (all, bare) = (count(lab, &[("at", "blobs")]), count(lab, &[("at", "blobs"), ("login", "none")]));
    expect(all > 0 && all == bare, &format!("blobs were asked for without a login: {bare} of {all}"))?;
    let mode = machine.shell(&format!("stat -c %a {HOSTS}"))?;
    expect(mode.trim() == "600", &format!("hosts.toml is for root alone, not {mode}"))?;
    let Some(login) =
        machine.read(HOSTS).and_then(|text| Some(text.split("Basic ").nth(1)?.split('"').next()?.to_owned()))
    else {
        return fail("there is no login in hosts.toml");
    };
    let known =
        ["journalctl -b --no-pager", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '"];
    for script in known {
        let text = machine.shell(&format!("{script} || true"))?;
        expect(text.len() > 1000 && !text.contains(&login), &format!("no login in the output of `{script}`"))?;
    }
    let open = "find /etc /run /var/lib/kubestrap /var/lib/kubelet /var/log /tmp -xdev -type f -perm /077 -size -1024k";
    let script = format!("{open} -print0 2>/dev/null | xargs -0 grep -lF -e '{login}' 2>/dev/null || true");
    let found = machine.shell(&script)?;
    expect(found.trim().is_empty(), &format!("no file that others may read holds the login: {found}"))
}

fn ecr(lab: &mut Lab) -> Result<()> {
    let ca = registry(lab)?;
    lab.fabric().bucket(BUCKET)?;
    let worker = worker("w1", "ecr")?;
    let worker = node(lab, worker, &ca)?;
    worker.power_on()?;
    let since = await_token(lab, &worker)?;
    // There is no cluster: this is all that the worker can do.
    worker.until("to pull the sandbox image ahead", SOON, |machine| pinned(machine, SANDBOX))?;
    worker.until("to pull the other image ahead", SOON, |machine| !labels(machine, APP).is_empty())?;
    lab.say("w1 pulled its images while it waits for the cluster; the sandbox image is pinned");
    await_expiry(lab, &worker, since)?;
    pull(&worker, CERTS, APP)?;
    lab.say(&format!("after the first token had expired the image was pulled anew; ECR gave {} tokens", given(lab)));
    expect(given(lab) < 10, "one token for each half of a life, and not more")?;
    nothing_leaked(lab, &worker)
}

fn ecr_k8s(lab: &mut Lab) -> Result<()> {
    let ca = registry(lab)?;
    lab.fabric().bucket(BUCKET)?;
    let master = master("m1", "ecr-k8s", STAYS_ON_A_FULL_DISK)?;
    let master = node(lab, master, &ca)?;
    master.power_on()?;
    let since = await_token(lab, &master)?;
    // Nothing starts on it without a sandbox image from the registry.
    await_ready(lab, &master, &master)?;
    master.until("to have the sandbox image pinned", SOON, |machine| pinned(machine, SANDBOX))?;
    await_expiry(lab, &master, since)?;
    // Whatever is there was pulled with the first token: new images, with another one.
    master.shell(&format!(
        "for i in $(ctr --namespace k8s.io images list -q | grep -e '^{HOST}'); do ctr --namespace k8s.io images rm --sync $i; done"
    ))?;
    let before = count(lab, &[("at", "registry"), ("method", "HEAD"), ("status", "200")]);
    runs_pod(&master, "one")?;
    expect(!labels(&master, SANDBOX).is_empty(), "containerd pulled the sandbox image itself")?;
    let more = count(lab, &[("at", "registry"), ("method", "HEAD"), ("status", "200")]) - before;
    expect(more >= 2, &format!("both images came from the registry: {more} were looked for there"))?;
    lab.say(&format!("after the first token had expired a new pod runs; ECR gave {} tokens", given(lab)));
    let agent = said(&master);
    expect(!agent.contains("Basic "), "the agent's log shows no login")?;
    nothing_leaked(lab, &master)?;
    // Without the agent and its file: the kubelet asks the plugin, and containerd nobody.
    master.shell(&format!("systemctl stop kubestrap && rm {HOSTS} && kubectl delete pod one --now"))?;
    let anonymous = pull(&master, CERTS, APP);
    expect(anonymous.is_err(), "the registry lets nobody in without a login")?;
    runs_pod(&master, "two")?;
    lab.say("the kubelet's plugin alone pulls a pod's image");
    Ok(())
}

/// Starts a pod whose image is pulled anew, and waits until it runs.
fn runs_pod(master: &Machine, name: &str) -> Result<()> {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "app", "image": format!("{HOST}/{APP}"), "imagePullPolicy": "Always" }],
        },
    });
    let path = format!("/root/{name}.json");
    master.write(&path, &pod.to_string(), 0o600)?;
    // The controller that makes service accounts is among the last to start.
    master.until("to take the pod", SOON, |machine| machine.shell(&format!("kubectl apply -f {path}")).is_ok())?;
    master.until("to run the pod", SOON, |machine| {
        machine.kubectl(&["get", "pod", name]).is_ok_and(|pod| pod["status"]["phase"] == "Running")
    })?;
    Ok(())
}
