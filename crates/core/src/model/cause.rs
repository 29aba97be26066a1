//! The one table of failures: every kind, with its exit code, whether waiting can mend it, its metric label and the
//! fix. Adapters map their library's errors to a [`Cause`]; `doctor`, `status`, `main` and the engine only read.

use super::plain::is_plain;
use std::fmt;
use std::time::Duration;

/// Exit codes of the program; they are API (README, systemd `RestartPreventExitStatus=2 10 11`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for was done.
    Done = 0,
    /// A defect of kubestrap itself.
    Internal = 1,
    /// The command line was wrong.
    Usage = 2,
    /// The configuration was wrong; waiting cannot mend it.
    Configuration = 10,
    /// Going on would break a safety rule; waiting cannot mend it.
    Refused = 11,
    /// A transient cause lasted longer than we were told to wait.
    GaveUp = 12,
    /// An external tool (kubeadm, systemd) failed.
    Tool = 13,
    /// Permission or credentials are missing.
    Permission = 14,
    /// `drift` found drift.
    Drift = 20,
    /// `doctor` found a failed check.
    CheckFailed = 21,
}

impl ExitCode {
    /// Every exit code with its meaning, in ascending order; the README's table is compared with it.
    pub const TABLE: &'static [(ExitCode, &'static str)] = &[
        (ExitCode::Done, "done"),
        (ExitCode::Internal, "internal error"),
        (ExitCode::Usage, "usage"),
        (ExitCode::Configuration, "configuration"),
        (ExitCode::Refused, "refused for safety"),
        (ExitCode::GaveUp, "gave up waiting (a transient cause persisted)"),
        (ExitCode::Tool, "an external tool failed"),
        (ExitCode::Permission, "permission or credentials"),
        (ExitCode::Drift, "drift found (`drift`)"),
        (ExitCode::CheckFailed, "a check failed (`doctor`)"),
    ];
}

/// Whether waiting can mend a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Retried with back-off and jitter until the step's patience ends.
    Transient,
    /// Reported at once; nothing but a person or another configuration mends it.
    Permanent,
}

/// One row of the failure table.
#[derive(Debug)]
pub struct CauseRow {
    /// The row's key.
    pub cause: Cause,
    /// Metric label and the value of `cause` in reports: stable, kebab-case.
    pub label: &'static str,
    /// The exit code when this failure ends the program.
    pub exit: ExitCode,
    /// Whether it is worth waiting.
    pub lasting: Lasting,
    /// What a person can do about it.
    pub fix: &'static str,
}

macro_rules! causes {
    ($( $(#[$doc:meta])* $name:ident => $label:literal, $exit:ident, $lasting:ident, $fix:literal; )*) => {
        /// Every kind of failure kubestrap distinguishes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Cause { $( $(#[$doc])* $name, )* }

        /// The failure table, in the order of [`Cause`].
        pub const CAUSES: &[CauseRow] = &[
            $( CauseRow { cause: Cause::$name, label: $label, exit: ExitCode::$exit, lasting: Lasting::$lasting, fix: $fix }, )*
        ];
    };
}

causes! {
    /// A defect: an invariant of our own did not hold.
    Internal => "internal", Internal, Permanent, "please report this with the log";
    /// The command line cannot be carried out as given.
    Usage => "usage", Usage, Permanent, "see --help";
    /// The configuration is wrong.
    Configuration => "configuration", Configuration, Permanent, "correct the configuration; `kubestrap config check` shows every problem";
    /// The bucket named in the configuration does not exist.
    BucketMissing => "bucket-missing", Configuration, Permanent, "create the bucket or correct `store`";
    /// What should name the desired image names none, or one that this machine cannot run.
    ImageSource => "image-source", Configuration, Permanent, "correct `drift.image`, or what it names";
    /// The store does not honour conditional writes.
    StoreUnconditional => "store-unconditional", Refused, Permanent, "use a store that honours If-None-Match and If-Match on PUT; without them two masters could make two clusters";
    /// The machine carries Kubernetes state that our journal does not account for.
    ForeignState => "foreign-state", Refused, Permanent, "if this machine may be wiped, run `kubeadm reset` yourself and start again";
    /// The machine or the store belongs to a cluster with another CA or uid.
    ForeignCluster => "foreign-cluster", Refused, Permanent, "check `cluster` and `store`; a rebuilt environment on the same bucket needs `kubestrap cluster retire`";
    /// The cluster already has a master that initialised it.
    AlreadyEstablished => "already-established", Refused, Permanent, "for a further master, configure `pki` on all masters (docs/ha.md); otherwise give this machine `role: worker`";
    /// The register vanished while other objects still name a cluster.
    RegisterMissing => "register-missing", Refused, Permanent, "restore cluster.json (the master that made the cluster puts it back when it runs), or `kubestrap cluster retire`";
    /// Another machine took the register over while we initialised.
    TakenOver => "taken-over", Refused, Permanent, "this machine lost the right to initialise; reinstall it as a worker or wipe it";
    /// The state directory belongs to another machine (a cloned disk).
    ClonedState => "cloned-state", Refused, Permanent, "this disk was copied from another machine: bake images before the first boot, or remove /var/lib/kubestrap";
    /// The kubelet is newer than the API server, or more than three minor versions older.
    VersionSkew => "version-skew", Refused, Permanent, "install a kubelet not newer than the API server and at most three minor versions older";
    /// The local clock and the store's clock disagree.
    ClockSkew => "clock-skew", Refused, Transient, "set up time synchronisation (chrony or systemd-timesyncd)";
    /// Another process works on this state directory.
    Busy => "busy", Refused, Permanent, "another kubestrap runs on this machine (see `systemctl status kubestrap`)";
    /// A file of ours or a configuration file can be changed or read by others.
    UnsafeFile => "unsafe-file", Refused, Permanent, "make it owned by root and not writable by others (chmod go-w)";
    /// The sealed PKI in the store is not what it must be.
    PkiRejected => "pki-rejected", Refused, Permanent, "check that all masters have the same `pki` key; `kubestrap pki rewrap` on a master of the cluster writes it anew";
    /// An object in the store is not what it must be.
    ObjectRejected => "object-rejected", GaveUp, Transient, "look at the object named above; the next one published is tried";
    /// No usable join bundle is in the store yet.
    NoBundle => "no-bundle", GaveUp, Transient, "is the master up? `kubestrap status --cluster` shows its last report";
    /// Another master holds the register and is not known to be gone.
    HeldByOther => "held-by-other", GaveUp, Transient, "wait for the holder, or, when you know that it is gone, `kubestrap unlock init`";
    /// Another machine of the cluster has this machine's name or address.
    DuplicateNode => "duplicate-node", GaveUp, Transient, "give every machine a name and an address of its own";
    /// The bootstrap token no longer exists.
    TokenGone => "token-gone", GaveUp, Transient, "the master publishes a new one within a minute";
    /// The object store answers 5xx or not in time.
    StoreUnavailable => "store-unavailable", GaveUp, Transient, "check the store's endpoint and the network";
    /// Too many requests.
    Throttled => "throttled", GaveUp, Transient, "wait; the request is repeated more slowly";
    /// The machine's metadata service does not answer.
    MetadataUnavailable => "metadata-unavailable", GaveUp, Transient, "check that IMDSv2 is enabled for the instance";
    /// The cloud's API does not answer.
    CloudUnavailable => "cloud-unavailable", GaveUp, Transient, "check the AWS endpoint and the network";
    /// The Kubernetes API server does not answer.
    ApiUnavailable => "api-unavailable", GaveUp, Transient, "check `control_plane_endpoint` and the kube-apiserver container on the master";
    /// The Kubernetes API server refused a request.
    ApiRefused => "api-refused", Tool, Transient, "see the answer above";
    /// No member of etcd answers.
    EtcdUnavailable => "etcd-unavailable", GaveUp, Transient, "check the etcd containers on the masters, and that port 2379 is open between them";
    /// etcd has lost its quorum: it can neither be read reliably nor changed.
    NoQuorum => "no-quorum", GaveUp, Transient, "bring members back until more than half of them run; nothing is removed before. If their disks are lost, restore etcd from a snapshot";
    /// etcd refused a request.
    EtcdRefused => "etcd-refused", Tool, Transient, "see the answer above";
    /// Without this member etcd would have no voter at all.
    LastVoter => "last-voter", Refused, Permanent, "let another master join first; to end the cluster, end its machines, then `kubestrap cluster retire`";
    /// Without this member etcd would have no quorum.
    QuorumNeeded => "quorum-needed", Refused, Permanent, "let another master join, and wait until its member is healthy; `kubestrap member list` shows it";
    /// This machine left its cluster.
    LeftCluster => "left-cluster", Refused, Permanent, "terminate it, or `kubestrap reset --force` to let it join again";
    /// A name cannot be resolved.
    Dns => "dns", GaveUp, Transient, "check /etc/resolv.conf and the name";
    /// A connection cannot be made.
    Network => "network", GaveUp, Transient, "check routes, security groups and proxies";
    /// The peer's certificate is not trusted, or there are no trusted roots.
    Tls => "tls", GaveUp, Transient, "check the CA bundle (package ca-certificates) and the endpoint";
    /// A call did not end before its deadline.
    Deadline => "deadline", GaveUp, Transient, "check the network and the load of this machine";
    /// The container runtime's socket does not answer.
    RuntimeNotReady => "runtime-not-ready", GaveUp, Transient, "check `systemctl status containerd`";
    /// The node's own object is not in the cluster yet.
    NotRegistered => "not-registered", GaveUp, Transient, "check `journalctl -u kubelet`";
    /// The disk is full.
    DiskFull => "disk-full", GaveUp, Transient, "free some space";
    /// A file or folder cannot be read or written.
    FileAccess => "file-access", Permission, Permanent, "run as root; check that the file system is mounted read-write and, for the service, in ReadWritePaths of its unit";
    /// There is no such released file where it was looked for.
    DownloadMissing => "download-missing", Configuration, Permanent, "check `install.versions` and the mirror";
    /// What was downloaded, a bundle or an archive is not what it must be.
    DownloadRejected => "download-rejected", Refused, Permanent, "do not use it; look at who answers there, and compare the checksum with the project's own";
    /// The place of released files answers 5xx, too slowly, or with less than it promised.
    DownloadUnavailable => "download-unavailable", GaveUp, Transient, "check the place and the network, then run it again: what is verified already is kept";
    /// A program that is needed is not installed.
    ToolMissing => "tool-missing", Tool, Permanent, "install it, or correct PATH";
    /// A program ended with an error.
    ToolFailed => "tool-failed", Tool, Transient, "see its output above";
    /// A program did not end in time.
    ToolHung => "tool-hung", Tool, Transient, "see its output above";
    /// No credentials were found.
    NoCredentials => "no-credentials", Permission, Transient, "attach an instance profile, or set up ~/.aws/credentials on bare metal";
    /// The credentials have expired or are not accepted.
    BadCredentials => "bad-credentials", Permission, Transient, "renew the credentials";
    /// The credentials do not allow the call.
    AccessDenied => "access-denied", Permission, Transient, "grant the action named above to this machine's role";
}

impl Cause {
    /// This cause's row of the table.
    pub fn row(self) -> &'static CauseRow {
        // The macro lists rows in the order of the variants, so the discriminant is the index.
        &CAUSES[self as usize]
    }

    /// The cause with this label, if there is one.
    pub fn by_label(label: &str) -> Option<Cause> {
        CAUSES.iter().find(|row| row.label == label).map(|row| row.cause)
    }

    /// Whether it is worth waiting.
    pub fn is_transient(self) -> bool {
        self.row().lasting == Lasting::Transient
    }
}

/// The longest [`Failure::detail`], in bytes. It is repeated in the log, the journal and the report, and may be what a
/// server or a program said: a message without an end must not fill them.
const MAX_DETAIL: usize = 4096;

/// A failed operation, told to the person on call: what was attempted, on what, why it failed, what to do.
///
/// `attempted` reads after "failed to"; neither text may contain a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind; decides exit code, retry and fix.
    pub cause: Cause,
    /// What was attempted, and on what: "read s3://acme/k8s/prod/cluster.json".
    pub attempted: String,
    /// Why it failed, in the words of whoever refused; the middle of a long text is left out.
    pub detail: String,
    /// A fix better than the table's, when the place knows one.
    pub advice: Option<String>,
    /// Whoever failed has already waited as long as it was told to: the engine does not try again.
    pub exhausted: bool,
}

impl Failure {
    /// A failure whose fix is the table's. Control characters but tab and line feed become spaces: what servers and
    /// programs said is part of errors, and errors reach terminals.
    pub fn new(cause: Cause, attempted: impl Into<String>, detail: impl Into<String>) -> Self {
        let (attempted, detail) = (printable(attempted.into()), printable(shortened(detail.into())));
        Failure { cause, attempted, detail, advice: None, exhausted: false }
    }

    /// The same failure with a fix better than the table's.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(printable(advice.into()));
        self
    }

    /// The same failure, after `waited`: it is not tried again.
    #[must_use]
    pub fn exhausted(self, waited: Duration) -> Self {
        let detail = format!("{} (gave up after {} s)", self.detail, waited.as_secs());
        Failure { detail, exhausted: true, ..self }
    }

    /// What to do about it.
    pub fn fix(&self) -> &str {
        self.advice.as_deref().unwrap_or(self.cause.row().fix)
    }

    /// Whether it is worth trying again.
    pub fn is_transient(&self) -> bool {
        self.cause.is_transient() && !self.exhausted
    }
}

/// `text` without what a terminal obeys, or what makes it read otherwise than it is.
pub(crate) fn printable(text: String) -> String {
    let obeyed = |c: char| !is_plain(c) && !matches!(c, '\n' | '\t');
    if text.contains(obeyed) { text.replace(obeyed, " ") } else { text }
}

/// The text without its middle, when it is longer than [`MAX_DETAIL`]: a server begins with the reason, and a program
/// ends with it.
fn shortened(text: String) -> String {
    if text.len() <= MAX_DETAIL {
        return text;
    }
    let half = MAX_DETAIL / 2;
    let (start, end) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{} [... {} bytes ...] {}", &text[..start], end - start, &text[end..])
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {} [{}]; {}", self.attempted, self.detail, self.cause.row().label, self.fix())
    }
}

impl std::error::Error for Failure {}

/// What nearly every function of core returns.
pub type Outcome<T> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_cause_finds_its_own_row_and_labels_are_unique() {
        let mut labels = BTreeSet::new();
        for row in CAUSES {
            assert_eq!(row.cause.row().label, row.label);
            assert_eq!(Cause::by_label(row.label), Some(row.cause));
            assert!(labels.insert(row.label), "{} twice", row.label);
            assert!(row.label.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", row.label);
            assert!(!row.fix.is_empty() && !row.fix.ends_with('.'), "{}", row.label);
        }
    }

    #[test]
    fn what_waiting_cannot_mend_is_never_restarted_by_systemd() {
        // The unit stops for 2, 10 and 11: what waiting can mend must not end with one of them.
        let final_ones = [ExitCode::Usage, ExitCode::Configuration, ExitCode::Refused];
        // Safety rule 9 makes one exception: a clock is waited for, and then it is a refusal.
        for row in CAUSES.iter().filter(|row| final_ones.contains(&row.exit) && row.cause != Cause::ClockSkew) {
            assert_eq!(row.lasting, Lasting::Permanent, "{}", row.label);
        }
    }

    #[test]
    fn a_long_detail_keeps_its_beginning_and_its_end() {
        let detail = |text: &str| Failure::new(Cause::ToolFailed, "run it", text).detail;
        let fits = "ä".repeat(MAX_DETAIL / 2);
        assert_eq!(detail(&fits), fits);
        for pad in 0..4 {
            let long = format!("first {}{} last", "x".repeat(pad), "ä€".repeat(1_000_000));
            let told = detail(&long);
            assert!(told.starts_with("first ") && told.ends_with(" last") && told.len() < MAX_DETAIL + 50, "{told}");
        }
    }

    #[test]
    fn a_failure_reads_as_a_sentence_that_ends_with_what_to_do() {
        let failure = Failure::new(Cause::Dns, "resolve s3.eu-west-1.amazonaws.com", "no such host");
        assert_eq!(
            failure.to_string(),
            "failed to resolve s3.eu-west-1.amazonaws.com: no such host [dns]; check /etc/resolv.conf and the name"
        );
        assert!(failure.advise("wait").to_string().ends_with("; wait"));
    }

    #[test]
    fn a_failure_cannot_command_a_terminal() {
        let failure = Failure::new(Cause::ApiRefused, "read \u{1b}]0;x\u{7}", "a\u{9b}2J\r\n\tb").advise("c\u{8}");
        let shown = failure.to_string();
        assert!(shown.starts_with("failed to read  ]0;x : a 2J \n\tb [") && shown.ends_with("; c "), "{shown:?}");
    }
}
