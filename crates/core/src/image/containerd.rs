//! containerd's images, through its own client `ctr`: it is there wherever containerd is, of the same version, and
//! reads the same `hosts.toml` as containerd does. (`crictl` is a package of its own and cannot label an image.)
//!
//! No credentials are handed over: `--user` would show them in the process list. They are in `hosts.toml`, which the
//! duty for the registry keeps; see docs/ecr-containerd.md.

use crate::kubeadm::output::tail;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::Node;
use crate::ports::{JobEnd, JobSpec, JobState};
use std::path::Path;
use std::time::Duration;

/// Asking containerd's data base costs milliseconds; on a machine that boots it may wait for the disk.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// An image of some GiB over a slow network. What was fetched until then stays, and the next attempt goes on from there.
const PULL_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// A change of one row.
const LABEL_DEADLINE: Duration = Duration::from_secs(60);
/// How often a running job is looked at. Nobody waits for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A job's wrapper that has just ended needs a moment to record how.
const VANISHED_LOOKS: u32 = 3;
/// Enough for the last words of a `ctr` whose progress fills the screen.
const OUTPUT_BYTES: usize = 16 * 1024;
/// One at a time: pulls share the network and the disk with what the bootstrap itself needs.
const JOB: &str = "pull-images";
/// Where the kubelet's images are.
const NAMESPACE: &str = "k8s.io";
/// Keeps an image out of the kubelet's garbage collection (containerd, `internal/cri/labels`). Set on the image, so it
/// survives a restart of containerd; whoever pulls the image anew takes it away.
pub const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// An image that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Whether the kubelet's garbage collection leaves it alone.
    pub pinned: bool,
}

/// containerd of this machine.
pub struct Containerd<'a> {
    node: &'a Node,
    socket: String,
    hosts: String,
}

impl<'a> Containerd<'a> {
    /// By the path of its socket, and the folder of its `config_path`.
    pub fn new(node: &'a Node, socket: &str, hosts: &Path) -> Containerd<'a> {
        // `--root` makes a machine of a folder.
        let below = |path: &str| format!("{}{path}", node.rootfs.as_deref().unwrap_or_default());
        Containerd { node, socket: below(socket), hosts: below(&hosts.to_string_lossy()) }
    }

    /// Looks for an image by its whole reference; `None` when it is not there.
    pub async fn look(&self, reference: &str) -> Outcome<Option<Present>> {
        let argv = self.argv(&["list", &format!("name=={reference}")]);
        let attempted = format!("look for the image {reference}");
        let output = self.node.world.jobs.run(&argv, LOOK_DEADLINE).await?;
        if output.code != Some(0) {
            return Err(Failure::new(Cause::ToolFailed, attempted, last_words(&output.stderr)));
        }
        Ok(find(&output.stdout, reference))
    }

    /// Pulls an image; one that is there is asked for again, and loses its labels.
    pub async fn pull(&self, reference: &str) -> Outcome<()> {
        let argv = self.argv(&["pull", "--hosts-dir", &self.hosts, reference]);
        self.carry_out(argv, &format!("pull the image {reference}"), PULL_DEADLINE).await
    }

    /// Pins an image.
    pub async fn pin(&self, reference: &str) -> Outcome<()> {
        let argv = self.argv(&["label", reference, PINNED]);
        self.carry_out(argv, &format!("pin the image {reference}"), LABEL_DEADLINE).await
    }

    fn argv(&self, command: &[&str]) -> Vec<String> {
        let global = ["ctr", "--address", &self.socket, "--namespace", NAMESPACE, "images"];
        global.iter().chain(command).map(|part| (*part).to_owned()).collect()
    }

    /// Runs it as a job, which goes on when the agent dies.
    async fn carry_out(&self, argv: Vec<String>, what: &str, deadline: Duration) -> Outcome<()> {
        self.settle().await?;
        let job = JobSpec { name: JOB.to_owned(), run: self.node.uuid().to_string(), argv, deadline };
        self.node.world.jobs.start(&job).await?;
        let (mut vanished, jobs) = (0, &self.node.world.jobs);
        let end = loop {
            match jobs.observe(JOB).await? {
                JobState::Running { .. } => vanished = 0,
                JobState::Ended { end, .. } => break end,
                JobState::Absent if vanished >= VANISHED_LOOKS => break JobEnd::Killed(9),
                JobState::Absent => vanished += 1,
            }
            self.node.world.time.sleep(LOOK_EVERY).await;
        };
        let output = jobs.output(JOB, OUTPUT_BYTES).await.unwrap_or_default();
        jobs.forget(JOB).await?;
        judge(&end, what, &output, deadline)
    }

    /// Waits for the job of an earlier life. How it ended does not matter: whoever calls looks for the image next.
    pub async fn settle(&self) -> Outcome<()> {
        loop {
            match self.node.world.jobs.observe(JOB).await? {
                JobState::Running { .. } => self.node.world.time.sleep(LOOK_EVERY).await,
                JobState::Ended { .. } => return self.node.world.jobs.forget(JOB).await,
                JobState::Absent => return Ok(()),
            }
        }
    }
}

fn judge(end: &JobEnd, what: &str, output: &str, deadline: Duration) -> Outcome<()> {
    let (cause, why) = match end {
        JobEnd::Exited(0) => return Ok(()),
        JobEnd::Exited(_) => (Cause::ToolFailed, last_words(output)),
        JobEnd::Killed(signal) => (Cause::ToolFailed, format!("signal {signal} ended ctr")),
        JobEnd::TimedOut => (Cause::ToolHung, format!("ctr did not end within {} min", deadline.as_secs() / 60)),
        JobEnd::NotStarted(why) => (Cause::ToolMissing, format!("ctr could not be started: {why}")),
    };
    Err(Failure::new(cause, what, why))
}

/// `ctr` says why in its last line, after all of its progress.
fn last_words(output: &str) -> String {
    tail(output).pop().unwrap_or_else(|| "ctr failed and did not say why".to_owned())
}

/// A reference in the table of `ctr images list`: REF, TYPE, DIGEST, SIZE, PLATFORMS, LABELS.
fn find(table: &str, reference: &str) -> Option<Present> {
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(reference))?;
    let labels = row.split_whitespace().next_back().unwrap_or_default();
    Some(Present { pinned: labels.split(',').any(|label| label == PINNED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_its_whole_name_and_its_label() {
        // Printed by ctr 2.1.9.
        let table = "REF                        TYPE                                                 DIGEST         SIZE      \
                     PLATFORMS   LABELS                                                          \n\
                     registry.k8s.io/pause:3.10 application/vnd.docker.distribution.manifest.v2+json sha256:e3425b7 680.8 KiB \
                     linux/amd64 io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned \n\
                     registry.k8s.io/a:1 application/vnd.oci.image.index.v1+json sha256:e3425b7 1.0 KiB linux/amd64,linux/arm64 - \n";
        assert_eq!(find(table, "registry.k8s.io/pause:3.10"), Some(Present { pinned: true }));
        assert_eq!(find(table, "registry.k8s.io/a:1"), Some(Present { pinned: false }));
        for absent in ["registry.k8s.io/pause:3.1", "REF TYPE", "registry.k8s.io/pause"] {
            assert_eq!(find(table, absent), None);
        }
        assert_eq!(find("REF TYPE DIGEST SIZE PLATFORMS LABELS \n", "registry.k8s.io/a:1"), None);
    }

    #[test]
    fn the_end_of_a_job_is_told_with_its_last_words() {
        let progress = "layer \u{1b}[32m++++\u{1b}[0m\nctr: failed to resolve image: pull access denied\n";
        let told =
            |end| judge(&end, "pull the image a", progress, PULL_DEADLINE).map_err(|failure| failure.to_string());
        assert_eq!(told(JobEnd::Exited(0)), Ok(()));
        assert!(told(JobEnd::Exited(1)).expect_err("it failed").contains("pull access denied"));
        assert!(told(JobEnd::TimedOut).expect_err("it failed").contains("20 min"));
        assert!(told(JobEnd::NotStarted("no such file".into())).expect_err("it failed").contains("no such file"));
    }
}
