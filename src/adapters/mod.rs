//! The only code that touches the world: every port of core, made of files, processes and requests.
//!
//! An adapter makes **one attempt** and translates the answer: one function per library maps its errors to
//! [`kubestrap_core::model::cause::Cause`]. Loops, retries and judgements belong in core. Everything here runs on one
//! tokio current-thread runtime.

pub mod durable;
pub mod files;
pub mod host;
pub mod jobs;
pub mod time;

use kubestrap_core::config::settings::Settings;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{Files, Host, Jobs, Metadata, Time};
use kubestrap_core::world::Ports;
use std::path::PathBuf;
use std::rc::Rc;

/// What the adapters need to know before there are settings.
#[derive(Debug, Clone)]
pub struct Opts {
    /// The folder that stands for `/` (`--root`); `/` on a real node. Paths of core are looked up below it.
    pub root: PathBuf,
    /// Where jobs keep their records, a path on the node (below `root`): `/var/lib/kubestrap/jobs`.
    pub jobs: PathBuf,
    /// The program that supervises a job: it is called with `job --dir DIR ...` and must hand that to
    /// `adapters::jobs::supervise`. `None` is this program itself.
    pub supervisor: Option<PathBuf>,
    /// Base URL of the metadata service when it is known before the settings are (`--metadata-endpoint`); otherwise
    /// `AWS_EC2_METADATA_SERVICE_ENDPOINT`, otherwise the address of EC2.
    pub metadata_endpoint: Option<String>,
}

impl Opts {
    /// The options of a node whose files lie below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let jobs = PathBuf::from("/var/lib/kubestrap/jobs");
        Opts { root: root.into(), jobs, supervisor: None, metadata_endpoint: None }
    }
}

/// What is needed to load settings and to find out who the machine is. They can go into [`Ports`] later.
#[derive(Clone)]
pub struct EarlyPorts {
    /// Local files.
    pub files: Rc<dyn Files>,
    /// Programs.
    pub jobs: Rc<dyn Jobs>,
    /// IMDS.
    pub metadata: Rc<dyn Metadata>,
    /// Facts about the machine.
    pub host: Rc<dyn Host>,
    /// Time and chance.
    pub time: Rc<dyn Time>,
}

/// The ports that need no settings. Nothing is read and nothing is connected before the first call.
pub fn early_ports(opts: &Opts) -> Outcome<EarlyPorts> {
    let _ = opts;
    Err(Failure::new(Cause::Internal, "make the ports", "this build has no adapters yet"))
}

/// Every port, by these settings. Nothing is read and nothing is connected before the first call; the runtime must be
/// entered when a port is called.
pub fn ports(settings: &Settings, opts: &Opts) -> Outcome<Ports> {
    let _ = (settings, opts);
    Err(Failure::new(Cause::Internal, "make the ports", "this build has no adapters yet"))
}
