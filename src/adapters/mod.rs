//! The only code that touches the world: every port of core, made of files, processes and requests.
//!
//! An adapter makes **one attempt** and translates the answer: one function per library maps its errors to
//! [`kubestrap_core::model::cause::Cause`]. Loops, retries and judgements belong in core. Everything here runs on one
//! tokio current-thread runtime.

pub mod autoscaling;
pub mod aws;
pub mod cloud;
pub mod cluster;
pub mod download;
pub mod durable;
pub mod ecr;
pub mod etcd;
pub mod files;
pub mod host;
pub mod images;
pub mod imds;
pub mod jobs;
pub mod killpoint;
pub mod memory;
pub mod net;
pub mod objects;
pub mod ssm;
pub mod time;
pub mod token_cache;
pub mod vault;

use self::aws::Aws;
use self::cloud::{AwsCloud, Endpoints};
use self::cluster::Api;
use self::files::Disk;
use self::host::Machine;
use self::imds::Imds;
use self::net::Names;
use self::objects::folder::FolderStore;
use self::objects::install::InBucket;
use self::objects::s3::S3Store;
use self::time::SystemTime;
use self::vault::Keys;
use kubestrap_core::config::settings::{Settings, StoreLocation};
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::ports::{Files, Host, Jobs, Metadata, Objects, Time};
use kubestrap_core::world::Ports;
use kubestrap_install::source::StoreFiles;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// This program, whatever became of its file since it was started.
const OURSELVES: &str = "/proc/self/exe";

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
    let names = Names::default();
    let base = imds::base_url(opts.metadata_endpoint.as_deref());
    Ok(early(opts, base, names))
}

/// Every port, by these settings. Nothing is read and nothing is connected before the first call; the runtime must be
/// entered when a port is called.
pub fn ports(settings: &Settings, opts: &Opts) -> Outcome<Ports> {
    let names = Names::default();
    // A command line knows better than a file.
    let base = imds::base_url(opts.metadata_endpoint.as_deref().or(settings.metadata_endpoint.as_deref()));
    let aws = Rc::new(Aws::new(names.clone(), base.clone()));
    let early = early(opts, base, names.clone());
    Ok(Ports {
        objects: store(settings, aws.clone()),
        files: early.files,
        jobs: early.jobs,
        metadata: early.metadata,
        cloud: Rc::new(AwsCloud::new(aws.clone(), endpoints(settings))),
        cluster: Rc::new(Api::new(names.clone(), &opts.root)),
        vault: Rc::new(Keys::new(aws, settings.kms_endpoint.clone())),
        etcd: Rc::new(etcd::Gateway::new(names, &opts.root)),
        host: early.host,
        time: early.time,
    })
}

fn endpoints(settings: &Settings) -> Endpoints {
    Endpoints {
        ec2: settings.ec2_endpoint.clone(),
        ecr: settings.ecr_endpoint.clone(),
        sts: settings.sts_endpoint.clone(),
        ssm: settings.ssm_endpoint.clone(),
        autoscaling: settings.autoscaling_endpoint.clone(),
    }
}

fn early(opts: &Opts, metadata: String, names: Names) -> EarlyPorts {
    let folder = opts.root.join(opts.jobs.strip_prefix("/").unwrap_or(&opts.jobs));
    let systemd = jobs::Jobs::has_systemd(&opts.root);
    EarlyPorts {
        files: Rc::new(Disk::new(&opts.root)),
        jobs: Rc::new(jobs::Jobs::new(folder, supervisor(opts, systemd), systemd)),
        metadata: Rc::new(Imds::new(metadata, names)),
        host: Rc::new(Machine::new(&opts.root)),
        time: Rc::new(SystemTime),
    }
}

/// systemd cannot start `/proc/self/exe`, which would be systemd itself: it needs the file's own path.
fn supervisor(opts: &Opts, systemd: bool) -> PathBuf {
    let own = || systemd.then(std::env::current_exe).and_then(Result::ok).filter(|path| path.exists());
    opts.supervisor.clone().or_else(own).unwrap_or_else(|| Path::new(OURSELVES).to_owned())
}

/// Released files in the store of these settings. Nothing is read and nothing is connected before the first call.
pub fn store_files(settings: &Settings, opts: &Opts) -> Rc<dyn StoreFiles> {
    match &settings.store {
        StoreLocation::Folder(folder) => Rc::new(FolderStore::new(folder)),
        StoreLocation::S3 { bucket, prefix } => {
            let base = imds::base_url(opts.metadata_endpoint.as_deref().or(settings.metadata_endpoint.as_deref()));
            let aws = Rc::new(Aws::new(Names::default(), base));
            let store = S3Store::new(aws, bucket.clone(), prefix.clone(), settings.s3.clone());
            Rc::new(InBucket(Rc::new(store)))
        }
    }
}

fn store(settings: &Settings, aws: Rc<Aws>) -> Rc<dyn Objects> {
    match &settings.store {
        StoreLocation::Folder(folder) => Rc::new(FolderStore::new(folder)),
        StoreLocation::S3 { bucket, prefix } => {
            Rc::new(S3Store::new(aws, bucket.clone(), prefix.clone(), settings.s3.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a runtime, a network or an existing root: whatever would be read or connected here would fail.
    #[test]
    fn making_the_ports_touches_nothing() {
        let early = early_ports(&Opts::new("/nonexistent")).expect("ports");
        assert_eq!(early.files.read(Path::new("/etc/hostname"), 9), Ok(None));
        assert!(!Path::new("/nonexistent").exists());
    }
}
