//! Prometheus metrics. The table in the README lists them; a test compares.

use crate::observe::plugin_counts::PluginCounts;
use kubestrap_core::gate::{Admission, Call, Delivery, Gate, Method};
use kubestrap_core::model::cause::Failure;
use kubestrap_core::model::report::Phase;
use kubestrap_core::node::{Event, Observer, Status};
use kubestrap_core::rollout::wire::Verdict;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

type Seconds = Gauge<f64, AtomicU64>;
/// The labels of a metric that has none, but may have no series at all.
type Nothing = Vec<(String, String)>;
type SecondsSum = Counter<f64, AtomicU64>;

macro_rules! labels {
    ($($name:ident { $($label:ident),+ })*) => { $(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: &'static str),+ }
    )* };
}

labels! {
    Of { phase }
    Version { version }
    VerdictOnly { verdict }
    Step { step }
    StepCause { step, cause }
    Duty { duty }
    DutyCause { duty, cause }
    CauseOnly { cause }
    PortCall { call }
    PortCallCause { call, cause }
}

/// Everything the agent counts. Labels come from fixed sets (steps, duties, causes, port methods), so the number of
/// series is bounded.
pub struct Metrics {
    registry: Registry,
    phase: Family<Of, Gauge>,
    step_seconds: Family<Step, Seconds>,
    step_failures: Family<StepCause, Counter>,
    duty_seconds: Family<Duty, Seconds>,
    duty_failures: Family<DutyCause, Counter>,
    bundle_expiry: Family<Nothing, Gauge>,
    certificate_expiry: Family<Nothing, Gauge>,
    store_errors: Family<CauseOnly, Counter>,
    registry_calls: Counter,
    registry_errors: Family<CauseOnly, Counter>,
    registry_expiry: Family<Nothing, Gauge>,
    drift: Family<VerdictOnly, Gauge>,
    content_differences: Family<Nothing, Gauge>,
    calls: Family<PortCall, Counter>,
    call_seconds: Family<PortCall, SecondsSum>,
    call_failures: Family<PortCallCause, Counter>,
    last_report: Family<Nothing, Gauge>,
    rollout_open: Gauge,
    rollout_paused: Gauge,
    rollout_refused: Gauge,
    pending: RefCell<BTreeMap<u64, Instant>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("kubestrap"),
            phase: Family::default(),
            step_seconds: Family::default(),
            step_failures: Family::default(),
            duty_seconds: Family::default(),
            duty_failures: Family::default(),
            bundle_expiry: Family::default(),
            certificate_expiry: Family::default(),
            store_errors: Family::default(),
            registry_calls: Counter::default(),
            registry_errors: Family::default(),
            registry_expiry: Family::default(),
            drift: Family::default(),
            content_differences: Family::default(),
            calls: Family::default(),
            call_seconds: Family::default(),
            call_failures: Family::default(),
            last_report: Family::default(),
            rollout_open: Gauge::default(),
            rollout_paused: Gauge::default(),
            rollout_refused: Gauge::default(),
            pending: RefCell::default(),
        };
        metrics.register();
        metrics.enter(Phase::Starting);
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let build = Family::<Version, Gauge>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        let r = &mut self.registry;
        r.register("build_info", "The running version; always 1", build);
        r.register("bootstrap_phase", "1 for the phase the node is in, 0 for the others", self.phase.clone());
        r.register("step_duration_seconds", "How long the last run of a step took", self.step_seconds.clone());
        r.register("step_failures", "Failed runs of a step by cause", self.step_failures.clone());
        r.register("duty_duration_seconds", "How long the last tick of a duty took", self.duty_seconds.clone());
        r.register("duty_failures", "Failed ticks of a duty by cause", self.duty_failures.clone());
        let expiry = "When the token of the published join bundle expires; masters only";
        r.register("join_bundle_expiry_timestamp_seconds", expiry, self.bundle_expiry.clone());
        let expiry = "When the first certificate below /etc/kubernetes expires";
        r.register("certificate_expiry_timestamp_seconds", expiry, self.certificate_expiry.clone());
        r.register("store_errors", "Failed requests to the object store by cause", self.store_errors.clone());
        r.register("registry_token_calls", "Requests of the agent to ECR for a login", self.registry_calls.clone());
        r.register("registry_token_errors", "Those that failed by cause", self.registry_errors.clone());
        let expiry = "When the first of the logins that containerd has for ECR ends";
        r.register("registry_login_expiry_timestamp_seconds", expiry, self.registry_expiry.clone());
        let drift =
            "1 for the verdict on this node (drifted, current, unknown), 0 for the others; none before the first";
        r.register("drift", drift, self.drift.clone());
        let differences = "How much of this node differs from its bake manifest";
        r.register("content_differences", differences, self.content_differences.clone());
        let open = "Nodes that may be away for a rollout now; 0 but on the arbiter";
        r.register("rollout_grants", open, self.rollout_open.clone());
        let paused = "Rollouts that stand until an operator resumes them; 0 but on the arbiter";
        r.register("rollouts_paused", paused, self.rollout_paused.clone());
        let refused = "Rollouts that stand until the reason ends; 0 but on the arbiter";
        r.register("rollouts_refused", refused, self.rollout_refused.clone());
        r.register("port_calls", "Calls to the outside world by port and method", self.calls.clone());
        r.register("port_call_seconds", "Time spent in these calls", self.call_seconds.clone());
        r.register("port_call_failures", "Failed calls by port, method and cause", self.call_failures.clone());
        let report = "When the store last accepted this node's report";
        r.register("last_report_timestamp_seconds", report, self.last_report.clone());
    }

    /// Shows these counts too.
    pub fn show_plugins(&mut self, counts: PluginCounts) {
        self.registry.register_collector(Box::new(counts));
    }

    fn enter(&self, phase: Phase) {
        for other in Phase::ALL {
            self.phase.get_or_create(&Of { phase: other.as_str() }).set(i64::from(*other == phase));
        }
    }

    /// Takes over what the node knows of itself; call it before [`Metrics::encode`].
    pub fn refresh(&self, status: &Status) {
        self.enter(status.phase);
        let times = [
            (&self.bundle_expiry, status.bundle_expires_at),
            (&self.certificate_expiry, status.certificates_expire_at),
            (&self.last_report, status.last_report_at),
            (&self.registry_expiry, status.registry_login_expires_at),
        ];
        self.refresh_drift(status);
        for (family, time) in times {
            match time {
                Some(time) => {
                    family.get_or_create(&Nothing::new()).set(time.as_second());
                }
                None => family.clear(),
            }
        }
        let rollout = status.rollout.as_ref();
        let counts = [
            (&self.rollout_open, rollout.map(|rollout| rollout.open)),
            (&self.rollout_paused, rollout.map(|rollout| rollout.paused)),
            (&self.rollout_refused, rollout.map(|rollout| rollout.refused)),
        ];
        for (gauge, count) in counts {
            gauge.set(count.and_then(|count| i64::try_from(count).ok()).unwrap_or_default());
        }
    }

    fn refresh_drift(&self, status: &Status) {
        let Some(drift) = &status.drift else {
            self.drift.clear();
            self.content_differences.clear();
            return;
        };
        let all = [("drifted", Verdict::Drifted), ("current", Verdict::Current), ("unknown", Verdict::Unknown)];
        for (verdict, of) in all {
            self.drift.get_or_create(&VerdictOnly { verdict }).set(i64::from(of == drift.verdict));
        }
        let differences = i64::try_from(drift.differences).unwrap_or(i64::MAX);
        self.content_differences.get_or_create(&Nothing::new()).set(differences);
    }

    /// The text exposition format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Replaces a node_exporter textfile atomically. Not fsynced: after a power loss the next write brings it back.
pub fn write_textfile(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // node_exporter reads only *.prom, so it never sees the half-written one.
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&temporary, path)
}

impl Observer for Metrics {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Phase(phase) => self.enter(*phase),
            Event::StepEnded { step, took, result } => {
                self.step_seconds.get_or_create(&Step { step }).set(took.as_secs_f64());
                if let Err(failure) = result {
                    let cause = failure.cause.row().label;
                    self.step_failures.get_or_create(&StepCause { step, cause }).inc();
                }
            }
            Event::DutyTicked { duty, took, result } => {
                self.duty_seconds.get_or_create(&Duty { duty }).set(took.as_secs_f64());
                if let Err(failure) = result {
                    let cause = failure.cause.row().label;
                    self.duty_failures.get_or_create(&DutyCause { duty, cause }).inc();
                }
            }
            _ => {}
        }
    }
}

impl Gate for Metrics {
    fn before(&self, _call: &Call, ticket: u64) -> Admission {
        self.pending.borrow_mut().insert(ticket, Instant::now());
        Admission::Pass
    }

    fn after(&self, call: &Call, ticket: u64, result: Result<(), &Failure>) -> Delivery {
        let mut pending = self.pending.borrow_mut();
        let took = pending.remove(&ticket).map_or(0.0, |began| began.elapsed().as_secs_f64());
        // Calls whose future was dropped (a tick that was cut off) never come here; they are older than what comes.
        if pending.len() > 1000 {
            pending.pop_first();
        }
        let label = PortCall { call: call.name };
        self.calls.get_or_create(&label).inc();
        self.call_seconds.get_or_create(&label).inc_by(took);
        let is_registry = call.name == Method::CloudRegistryToken.name();
        if is_registry {
            self.registry_calls.inc();
        }
        if let Err(failure) = result {
            let cause = failure.cause.row().label;
            if is_registry {
                self.registry_errors.get_or_create(&CauseOnly { cause }).inc();
            }
            self.call_failures.get_or_create(&PortCallCause { call: call.name, cause }).inc();
            if call.name.starts_with("objects.") {
                self.store_errors.get_or_create(&CauseOnly { cause }).inc();
            }
        }
        Delivery::Deliver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubestrap_core::model::cause::Cause;
    use std::time::Duration;

    fn call(name: &'static str) -> Call {
        Call { name, subject: "prod/cluster.json".to_owned(), changes: false, deadline: None }
    }

    #[test]
    fn there_is_one_series_for_every_phase_and_one_of_them_is_1() {
        let metrics = Metrics::default();
        metrics.on(&Event::Phase(Phase::Waiting));
        let text = metrics.encode();
        assert!(text.contains("kubestrap_bootstrap_phase{phase=\"waiting\"} 1\n"), "{text}");
        for phase in Phase::ALL.iter().filter(|phase| **phase != Phase::Waiting) {
            assert!(text.contains(&format!("kubestrap_bootstrap_phase{{phase=\"{}\"}} 0\n", phase.as_str())), "{text}");
        }
    }

    #[test]
    fn store_errors_are_counted_by_cause_and_other_ports_are_not_store_errors() {
        let metrics = Metrics::default();
        let failure = Failure::new(Cause::AccessDenied, "read", "403");
        for (ticket, name) in [(1, "objects.get"), (2, "cluster.call")] {
            metrics.before(&call(name), ticket);
            metrics.after(&call(name), ticket, Err(&failure));
        }
        let text = metrics.encode();
        assert!(text.contains("kubestrap_store_errors_total{cause=\"access-denied\"} 1\n"), "{text}");
        assert!(text.contains("kubestrap_port_calls_total{call=\"cluster.call\"} 1\n"), "{text}");
        assert!(
            text.contains("kubestrap_port_call_failures_total{call=\"objects.get\",cause=\"access-denied\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_time_that_is_not_known_has_no_series() {
        let metrics = Metrics::default();
        let at = jiff::Timestamp::from_second(1_700_000_000).expect("time");
        metrics.refresh(&Status { bundle_expires_at: Some(at), ..Status::default() });
        let series = |text: String| {
            let name = "kubestrap_join_bundle_expiry_timestamp_seconds";
            text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect::<Vec<_>>()
        };
        let known = series(metrics.encode());
        assert!(known.len() == 1 && known[0].ends_with(" 1700000000"), "{known:?}");
        metrics.refresh(&Status::default());
        assert_eq!(series(metrics.encode()), Vec::<String>::new());
    }

    #[test]
    fn requests_for_logins_are_counted_with_their_errors() {
        let metrics = Metrics::default();
        let failure = Failure::new(Cause::AccessDenied, "ask ECR", "403");
        for (ticket, result) in [(1, Ok(())), (2, Err(&failure))] {
            metrics.before(&call("cloud.registry_token"), ticket);
            metrics.after(&call("cloud.registry_token"), ticket, result);
        }
        let text = metrics.encode();
        assert!(text.contains("kubestrap_registry_token_calls_total 2\n"), "{text}");
        assert!(text.contains("kubestrap_registry_token_errors_total{cause=\"access-denied\"} 1\n"), "{text}");
    }

    #[test]
    fn steps_have_a_duration_and_failures_a_cause() {
        let metrics = Metrics::default();
        let failure = Failure::new(Cause::ToolFailed, "run kubeadm", "exit 1");
        let took = Duration::from_millis(1500);
        metrics.on(&Event::StepEnded { step: "init", took, result: Err(&failure) });
        let text = metrics.encode();
        assert!(text.contains("kubestrap_step_duration_seconds{step=\"init\"} 1.5\n"), "{text}");
        assert!(text.contains("kubestrap_step_failures_total{step=\"init\",cause=\"tool-failed\"} 1\n"), "{text}");
    }

    #[test]
    fn the_textfile_is_replaced_whole_and_world_readable() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("kubestrap.prom");
        write_textfile(&path, "one 1\n").expect("first");
        write_textfile(&path, "two 2\n").expect("second");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "two 2\n");
        assert_eq!(std::fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}
