//! A scenario: how many machines of what kind, what goes wrong how often, and what may be refused at the end.

mod masters;
mod simpler;
mod table;

pub use crate::faults::{Fault, Rates};
pub use table::{all, by_name, calm};

use kubestrap_core::model::cause::Cause;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

/// What kind of machines they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// EC2 instances: EC2 can tell whether one is gone.
    Ec2,
    /// Bare metal: only an operator can.
    Host,
}

/// Something that happens to a machine or to the store at a random time while faults last; how often in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Calamity {
    /// The agent is killed.
    Kill,
    /// The machine reboots: jobs vanish, the disk stays.
    Reboot,
    /// The agent is not scheduled for minutes and goes on afterwards.
    Stall,
    /// A machine loses power for ever.
    Death,
    /// A master that is a member of etcd is terminated, when the others go on without it.
    MasterLost,
    /// An operator takes a master out of the cluster with `kubestrap leave`, and terminates its machine afterwards.
    MasterLeaves,
    /// EC2 takes a master's instance back, two minutes after its metadata service said so.
    SpotNotice,
    /// EC2 reboots a master's instance, minutes after its metadata service said so.
    RebootNotice,
    /// The master that leads is lost when the bundle is about to be renewed, or about to end; then a worker is started.
    LeaderLost,
    /// Power is lost for ever right after this machine changed the register: the worst moment.
    DeathOfHolder,
    /// The instance that changed the register is stopped for an hour or two, and started again.
    HolderStopped,
    /// Somebody removes admin.conf from the machine that has just sent its commit, and puts it back minutes later.
    AdminConfLost,
    /// A lifecycle rule of the bucket deletes a shared object.
    Lifecycle,
    /// Somebody puts a foreign, expired, early, broken or rolled-back bundle into the store.
    Tampering,
    /// An administrator deletes all bootstrap tokens.
    TokensRevoked,
    /// A machine is cut off from the store, the API server, the cloud, or everything, for minutes.
    Partition,
    /// A machine's clock jumps by minutes, and back again after a while.
    ClockStep,
    /// A machine's disk is full for minutes.
    DiskFull,
    /// The API server of the cluster is down for up to 25 minutes.
    ApiAway,
    /// EC2 shows nobody anything for half an hour.
    Ec2Blind,
    /// ECR is away for up to an hour.
    EcrAway,
}

impl Calamity {
    /// Its name in counts and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Calamity::Kill => "kill",
            Calamity::Reboot => "reboot",
            Calamity::Stall => "stall",
            Calamity::Death => "death",
            Calamity::MasterLost => "master-lost",
            Calamity::MasterLeaves => "master-leaves",
            Calamity::SpotNotice => "spot-notice",
            Calamity::RebootNotice => "reboot-notice",
            Calamity::LeaderLost => "leader-lost",
            Calamity::DeathOfHolder => "death-of-holder",
            Calamity::HolderStopped => "holder-stopped",
            Calamity::AdminConfLost => "admin-conf-lost",
            Calamity::Lifecycle => "lifecycle",
            Calamity::Tampering => "tampering",
            Calamity::TokensRevoked => "tokens-revoked",
            Calamity::Partition => "partition",
            Calamity::ClockStep => "clock-step",
            Calamity::DiskFull => "disk-full",
            Calamity::ApiAway => "api-away",
            Calamity::Ec2Blind => "ec2-blind",
            Calamity::EcrAway => "ecr-away",
        }
    }
}

/// Clocks that are wrong at boot, until time synchronisation has found a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootClock {
    /// Wrong by up to this much, either way; one in eight comes up in 1970, as without a battery.
    pub wrong_by: Duration,
    /// Right after this long at the latest.
    pub right_within: Duration,
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How it is named on the command line.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Masters.
    pub masters: u64,
    /// Workers.
    pub workers: u64,
    /// What the machines are.
    pub ground: Ground,
    /// What goes wrong by chance.
    pub rates: Rates,
    /// What happens besides, each at a random time.
    pub calamities: Cow<'static, [Calamity]>,
    /// Clocks are wrong by up to this much, either way, for ever.
    pub skew: Duration,
    /// Workers' clocks are wrong by up to this much instead, when it is more.
    pub worker_skew: Duration,
    /// Clocks are wrong when a machine boots, and right later.
    pub boot_clock: Option<BootClock>,
    /// Faults last this long.
    pub faults_last: Duration,
    /// After the faults, everything must have converged within this time.
    pub patience: Duration,
    /// After convergence the nodes run on for this long: refreshed bundles, late writes.
    pub afterwards: Duration,
    /// Workers may not list the bucket: a missing key is 403 for them.
    pub no_list_permission: bool,
    /// Instances are unknown to EC2 for some minutes after their start.
    pub ec2_late: bool,
    /// The metadata service answers only this long after a boot, at most.
    pub imds_late: Duration,
    /// The first master carries a control plane that somebody made by hand.
    pub foreign_master: bool,
    /// The operator unlocks the register over the heads of living holders, too; with `pki` the join lock instead.
    pub rash_operator: bool,
    /// This many of the workers are made from another machine's disk, copied while it ran.
    pub clones: u64,
    /// In the middle every machine is terminated, and the same number of new ones starts on the same bucket.
    pub rebuilt: bool,
    /// The cluster's keys are sealed into the store: every master becomes a member of the control plane.
    pub pki: bool,
    /// So many masters at most are started, each in the place of one that was lost.
    pub spare_masters: u64,
    /// So many workers at most are started, each after the loss of a master that led.
    pub spare_workers: u64,
    /// A master that could refresh the bundle takes this long at most: a Lease that lapses, the signature, and the
    /// back-off of a bad day.
    pub refresh_within: Duration,
    /// Workers are of an Auto Scaling group, and early on there is a new image for them.
    pub rolls: bool,
    /// All but the first master start this much later.
    pub first_alone: Duration,
    /// Late-comers: some machines start this much later at most.
    pub stagger: Duration,
    /// How long a worker waits for a bundle before it gives up (and is started again).
    pub join_wait: Duration,
    /// The life of the tokens a master publishes, in minutes: one of these.
    pub token_minutes: &'static [u64],
    /// Whether images are pulled while the machines become nodes.
    pub images: bool,
    /// The life of the logins that ECR gives.
    pub login_life: Duration,
    /// Permanent refusals that are right here, beyond a second master's `already-established`.
    pub refusals: &'static [Cause],
    /// What must have been counted in a campaign besides its faults and calamities: otherwise it shows nothing.
    pub must: &'static [&'static str],
}

impl Scenario {
    /// Whether a machine may take a time for over that is not.
    pub fn has_wrong_clocks(&self) -> bool {
        let steps = self.calamities.contains(&Calamity::ClockStep);
        steps || self.boot_clock.is_some() || self.login_life < 10 * self.skew.max(self.worker_skew)
    }

    /// Its share of the seeds of a campaign over all scenarios: those of which a seed takes several times as long as others
    /// (a control plane of several machines, a rollout, logins that end all the time) get half.
    pub fn share(&self) -> u64 {
        let short_logins = self.login_life < calm().login_life;
        if self.pki || self.rolls || short_logins { 1 } else { 2 }
    }

    /// Whether a metadata service announces the end of masters, or a reboot.
    pub fn announces(&self) -> bool {
        self.calamities.iter().any(|one| matches!(one, Calamity::SpotNotice | Calamity::RebootNotice))
    }

    /// Everything that must have been counted over the seeds of a campaign.
    pub fn expected(&self) -> BTreeSet<&'static str> {
        let on_ec2 = self.ground == Ground::Ec2;
        let rates = self.rates.in_use().filter(|fault| on_ec2 || !fault.is_of_ec2()).map(Fault::name);
        let calamities = self.calamities.iter().map(|calamity| calamity.name());
        let flags = [
            (self.no_list_permission, "403-for-missing"),
            (self.ec2_late, "ec2-late"),
            (!self.imds_late.is_zero() && on_ec2, "imds-late"),
            (self.foreign_master, "foreign-refused"),
            (self.rash_operator && !self.pki, "unlocks"),
            (self.rash_operator && self.pki, "join-unlocked-in-work"),
            (self.clones > 0, "clone-refused"),
            (self.rebuilt, "retirements"),
            (self.boot_clock.is_some(), "clock-wrong-at-boot"),
        ];
        let flags = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name);
        rates.chain(calamities).chain(flags).chain(self.must.iter().copied()).collect()
    }
}
