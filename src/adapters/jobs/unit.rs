//! The transient unit that a job's wrapper becomes under systemd.

/// What systemd is told of the unit, besides what it executes; each with its reason.
const OPTIONS: &[&str] = &[
    // Names of units, and how they ended, are for the journal.
    "--quiet",
    // A failed run must not keep its name from the next one: how it ended is in the record.
    "--collect",
    // systemd-run then says whether the wrapper could be executed at all.
    "--service-type=exec",
    // A kubeadm that the kernel kills for its memory is recorded by the wrapper, which systemd would else stop first.
    "--property=OOMPolicy=continue",
    // Wrapper and kubeadm get SIGTERM together when the machine shuts down, and end at once. Nothing is lost: the next
    // boot finds a run without an end, as after a power cut. What hangs must not hold up the shutdown.
    "--property=KillMode=control-group",
    "--property=TimeoutStopSec=10s",
    // When the machine shuts down the agent is stopped first, and draws no conclusions from a kubeadm that is killed.
    // (What starts later stops earlier. Neither needs the other, and restarts of the agent leave the job alone.)
    "--property=Before=kubestrap.service",
];

/// Options of systemd-run for the job of this name. Everybody can ask systemd for what stands here: plain words only.
/// The name makes a second unit of a running job impossible, beside the record's lock.
pub fn options(name: &str) -> Vec<String> {
    let mut options: Vec<String> = OPTIONS.iter().map(|option| (*option).to_owned()).collect();
    options.push(format!("--unit=kubestrap-job-{name}"));
    options.push(format!("--description={} for kubestrap", name.replace('-', " ")));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_name_of_its_job_and_words_that_everybody_may_read() {
        let options = options("kubeadm-init");
        assert!(options.contains(&"--unit=kubestrap-job-kubeadm-init".to_owned()), "{options:?}");
        assert!(options.contains(&"--description=kubeadm init for kubestrap".to_owned()), "{options:?}");
        assert!(options.iter().all(|option| option.starts_with("--")), "systemd-run would execute it: {options:?}");
        let environment = |option: &String| option.contains("setenv") || option.contains("Environment");
        assert!(!options.iter().any(environment), "it belongs to the record: {options:?}");
    }

    #[test]
    fn the_machine_shuts_down_in_time_and_the_agent_before_the_job() {
        let options = options("kubeadm-join");
        for needed in ["TimeoutStopSec=10s", "KillMode=control-group", "Before=kubestrap.service", "OOMPolicy=continue"]
        {
            assert!(options.contains(&format!("--property={needed}")), "{needed}: {options:?}");
        }
    }
}
