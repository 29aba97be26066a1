//! `pull-images`: what the bootstrap will need is pulled while the machine waits for it; the sandbox image stays pinned.
//!
//! Nothing waits for this duty, and its failures are nobody else's: what could not be pulled ahead the kubelet pulls.

use crate::config::settings::ImageSettings;
use crate::engine::Duty;
use crate::image::containerd::Containerd;
use crate::kubeadm::output::tail;
use crate::kubeadm::tools;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Role;
use crate::node::{Event, Node};
use crate::steps::{journal, runtime_socket};
use async_trait::async_trait;
use std::cell::Cell;
use std::time::Duration;

/// Whoever pulls the sandbox image by hand takes its pin away; until the garbage collection of a full disk an hour is soon
/// enough.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// Settings and the kind of the runtime do not change in the life of an agent.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// What is not pulled by then goes on as a job, and the next tick waits for it.
const TICK: Duration = Duration::from_secs(30 * 60);
/// kubeadm prints names that it has in itself.
const LIST_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct ImagesDuty {
    /// That nothing is to be done is said once.
    said: Cell<bool>,
}

#[async_trait(?Send)]
impl Duty for ImagesDuty {
    fn name(&self) -> &'static str {
        "pull-images"
    }

    fn runs_during_bootstrap(&self) -> bool {
        true
    }

    fn deadline(&self) -> Duration {
        TICK
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let Some(images) = &node.settings.images else {
            return Ok(self.idle(node, "`images` is not configured"));
        };
        let socket = runtime_socket(node)?;
        if !socket.contains("containerd") {
            return Ok(self.idle(node, &format!("only containerd's are, and this machine has {socket}")));
        }
        let containerd = Containerd::new(node, &socket, node.settings.ecr.certs_dir());
        containerd.settle().await?;
        // On a machine that is a node the kubelet decides what stays on the disk, but for the sandbox image.
        let becomes_a_node = !journal(node).attempt()?.is_some_and(|attempt| attempt.completed);
        let (ahead, mut failure) = if becomes_a_node { ahead(node, images).await } else { (Vec::new(), None) };
        if let Some(sandbox) = &images.sandbox
            && let Err(why) = pinned(node, &containerd, sandbox).await
        {
            failure.get_or_insert(why);
        }
        for reference in ahead {
            if let Err(why) = present(node, &containerd, &reference).await {
                // The others are pulled all the same.
                failure.get_or_insert(why);
            }
        }
        failure.map_or(Ok(LOOK_EVERY), Err)
    }
}

impl ImagesDuty {
    fn idle(&self, node: &Node, why: &str) -> Duration {
        if !self.said.replace(true) {
            node.tell(&Event::Note(&format!("no images are pulled ahead: {why}")));
        }
        NEVER
    }
}

/// What is pulled ahead beside the sandbox image. kubeadm pulls itself what init needs; kube-proxy is the first thing a
/// joined worker waits for.
async fn ahead(node: &Node, images: &ImageSettings) -> (Vec<String>, Option<Failure>) {
    let mut ahead = Vec::new();
    let mut failure = None;
    if node.settings.role == Role::Worker {
        match kube_proxy(node).await {
            Ok(reference) => ahead.push(reference),
            Err(why) => failure = Some(why),
        }
    }
    for reference in &images.pull {
        if !ahead.contains(reference) && images.sandbox.as_ref() != Some(reference) {
            ahead.push(reference.clone());
        }
    }
    (ahead, failure)
}

/// kubeadm's name for kube-proxy's image. The cluster may have another version; then this one was pulled in vain.
async fn kube_proxy(node: &Node) -> Outcome<String> {
    let kubernetes = &node.settings.kubernetes;
    let version = match &kubernetes.version {
        Some(version) => version.to_string(),
        None => tools::versions(node).await?.kubeadm.to_string(),
    };
    // Without a version kubeadm asks the Internet for one.
    let mut argv =
        ["kubeadm", "config", "images", "list", "--kubernetes-version", &version].map(str::to_owned).to_vec();
    if let Some(repository) = &kubernetes.image_repository {
        argv.extend(["--image-repository".to_owned(), repository.clone()]);
    }
    let attempted = "learn the name of kube-proxy's image from kubeadm";
    let output = node.world.jobs.run(&argv, LIST_DEADLINE).await?;
    if output.code != Some(0) {
        return Err(Failure::new(Cause::ToolFailed, attempted, tail(&output.stderr).join("; ")));
    }
    let found = output.stdout.lines().map(str::trim).find(|line| line.contains("/kube-proxy:"));
    found.map(str::to_owned).ok_or_else(|| Failure::new(Cause::ToolFailed, attempted, "it is not in its list"))
}

async fn present(node: &Node, containerd: &Containerd<'_>, reference: &str) -> Outcome<()> {
    if containerd.look(reference).await?.is_some() {
        return Ok(());
    }
    let began = node.world.time.uptime();
    containerd.pull(reference).await?;
    let took = node.world.time.uptime().saturating_sub(began).as_secs_f64();
    node.tell(&Event::Note(&format!("the image {reference} was pulled ahead in {took:.1} s")));
    Ok(())
}

async fn pinned(node: &Node, containerd: &Containerd<'_>, reference: &str) -> Outcome<()> {
    present(node, containerd, reference).await?;
    if containerd.look(reference).await?.is_some_and(|image| image.pinned) {
        return Ok(());
    }
    containerd.pin(reference).await?;
    node.tell(&Event::Note(&format!("the sandbox image {reference} is pinned")));
    Ok(())
}
