//! Programs: kubeadm is modelled ([`crate::kubeadm`]), a few short ones answer, the rest are not installed.

use super::Desk;
use crate::faults::Fault;
use crate::images;
use crate::kubeadm::{self, KUBE_VERSION};
use async_trait::async_trait;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{JobEnd, JobSpec, JobState, Jobs, ToolOutput};
use std::time::Duration;

#[async_trait(?Send)]
impl Jobs for Desk {
    async fn start(&self, job: &JobSpec) -> Outcome<()> {
        let universe = &self.universe;
        universe.sleep(Duration::from_millis(20)).await;
        let running = {
            let state = universe.machines[self.machine].state.borrow();
            state.jobs.get(&job.name).is_some_and(|known| known.end.is_none())
        };
        if !running {
            kubeadm::launch(universe, self.machine, job);
        }
        Ok(())
    }

    async fn observe(&self, name: &str) -> Outcome<JobState> {
        self.universe.sleep(Duration::from_millis(2)).await;
        let state = self.universe.machines[self.machine].state.borrow();
        Ok(match state.jobs.get(name) {
            None => JobState::Absent,
            Some(job) => match &job.end {
                None => JobState::Running { run: job.run.clone() },
                Some(end) => JobState::Ended { run: job.run.clone(), end: end.clone() },
            },
        })
    }

    async fn stop(&self, name: &str) -> Outcome<()> {
        self.universe.sleep(Duration::from_millis(20)).await;
        let mut state = self.universe.machines[self.machine].state.borrow_mut();
        if let Some(job) = state.jobs.get_mut(name).filter(|job| job.end.is_none()) {
            job.end = Some(JobEnd::Killed(9));
        }
        Ok(())
    }

    async fn output(&self, name: &str, limit: usize) -> Outcome<String> {
        let state = self.universe.machines[self.machine].state.borrow();
        let output = state.jobs.get(name).map(|job| job.output.as_str()).unwrap_or_default();
        Ok(output[output.len().saturating_sub(limit)..].to_owned())
    }

    async fn forget(&self, name: &str) -> Outcome<()> {
        let mut state = self.universe.machines[self.machine].state.borrow_mut();
        if state.jobs.get(name).is_some_and(|job| job.end.is_some()) {
            state.jobs.remove(name);
        }
        Ok(())
    }

    async fn run(&self, argv: &[String], deadline: Duration) -> Outcome<ToolOutput> {
        let universe = &self.universe;
        let line = argv.join(" ");
        universe.judge_text(6, "the arguments of a program", &line);
        if universe.strikes(Fault::JobHangs) {
            universe.sleep(deadline).await;
            return Err(Failure::new(Cause::ToolHung, format!("run {line}"), "it did not end in time"));
        }
        universe.sleep(Duration::from_millis(50)).await;
        if let Some(answer) = images::answer(universe, self.machine, argv) {
            return Ok(answer);
        }
        let stdout = match argv.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["kubeadm", "version", ..] => format!("{KUBE_VERSION}\n"),
            ["kubelet", "--version"] => format!("Kubernetes {KUBE_VERSION}\n"),
            ["containerd", "--version"] => "containerd github.com/containerd/containerd/v2 v2.1.4\n".to_owned(),
            ["systemctl", "stop", unit, ..] => {
                universe.note(self.machine, format_args!("stops {unit}"));
                String::new()
            }
            ["systemctl", ..] => "active\n".to_owned(),
            _ => return Err(Failure::new(Cause::ToolMissing, format!("run {line}"), "not found in PATH")),
        };
        Ok(ToolOutput { code: Some(0), stdout, stderr: String::new() })
    }
}
