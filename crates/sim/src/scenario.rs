//! A scenario: how many machines of what kind, what goes wrong how often, and what may be refused at the end.

use kubestrap_core::model::cause::Cause;
use std::time::Duration;

/// What kind of machines they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// EC2 instances: EC2 can tell whether one is gone.
    Ec2,
    /// Bare metal: only an operator can.
    Host,
}

/// How often a request or a gate crossing goes wrong, per 100 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// A write does not arrive, and nobody says so.
    pub write_lost: u32,
    /// A write takes effect, and nobody says so.
    pub answer_lost: u32,
    /// A write takes effect minutes after its sender was told that nobody knows.
    pub write_late: u32,
    /// A request is not answered at all: only its deadline ends it.
    pub hang: u32,
    /// A request is refused with 403.
    pub denied: u32,
    /// A read, an API request, an EC2 request or IMDS fails at once.
    pub read_fails: u32,
    /// The agent is killed before a change.
    pub killed_before: u32,
    /// The agent is killed after a change, its answer lost.
    pub killed_after: u32,
    /// The agent is killed in the middle of writing a file (appends torn, temporary files left).
    pub killed_within: u32,
    /// The agent is killed at a call that only reads.
    pub killed_reading: u32,
    /// A kubeadm phase fails.
    pub job_fails: u32,
    /// A kubeadm phase never ends.
    pub job_hangs: u32,
}

impl Rates {
    /// Nothing goes wrong.
    pub const NONE: Rates = Rates {
        write_lost: 0,
        answer_lost: 0,
        write_late: 0,
        hang: 0,
        denied: 0,
        read_fails: 0,
        killed_before: 0,
        killed_after: 0,
        killed_within: 0,
        killed_reading: 0,
        job_fails: 0,
        job_hangs: 0,
    };
    /// A store and a network on a very bad day; the agents live.
    pub const BAD_NETWORK: Rates = Rates {
        write_lost: 8_000,
        answer_lost: 8_000,
        write_late: 8_000,
        hang: 1_000,
        denied: 1_000,
        read_fails: 4_000,
        ..Rates::NONE
    };
    /// Agents are killed wherever it hurts.
    pub const KILLS: Rates =
        Rates { killed_before: 3_000, killed_after: 3_000, killed_within: 3_000, killed_reading: 30, ..Rates::NONE };
    /// All of it, and kubeadm fails and hangs too.
    pub const ALL: Rates = Rates {
        write_lost: 4_000,
        answer_lost: 4_000,
        write_late: 6_000,
        hang: 500,
        denied: 500,
        read_fails: 2_000,
        killed_before: 1_500,
        killed_after: 2_000,
        killed_within: 1_500,
        killed_reading: 20,
        job_fails: 2_000,
        job_hangs: 300,
    };
}

/// Something that happens to a machine or to the store at a random time while faults last; how often in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calamity {
    /// The agent is killed.
    Kill,
    /// The machine reboots: jobs vanish, the disk stays.
    Reboot,
    /// The agent is not scheduled for minutes and goes on afterwards.
    Stall,
    /// A machine (a master when the number is odd) loses power for ever.
    Death,
    /// Power is lost for ever right after this machine changed the register: the worst moment.
    DeathOfHolder,
    /// A lifecycle rule of the bucket deletes a shared object.
    Lifecycle,
    /// Somebody puts a foreign, expired, early, broken or rolled-back bundle into the store.
    Tampering,
    /// An administrator deletes all bootstrap tokens.
    TokensRevoked,
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
    pub calamities: &'static [Calamity],
    /// Clocks are wrong by up to this much, either way.
    pub skew: Duration,
    /// Workers' clocks are wrong by up to this much instead, when it is more.
    pub worker_skew: Duration,
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
    /// The first master carries a control plane that somebody made by hand.
    pub foreign_master: bool,
    /// The operator unlocks the register over the heads of living holders, too.
    pub rash_operator: bool,
    /// Late-comers: some workers start this much later at most.
    pub stagger: Duration,
    /// How long a worker waits for a bundle before it gives up (and is started again).
    pub join_wait: Duration,
    /// The life of the tokens a master publishes, in minutes: one of these.
    pub token_minutes: &'static [u64],
    /// Permanent refusals that are right here, beyond a second master's `already-established`.
    pub refusals: &'static [Cause],
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

const BASE: Scenario = Scenario {
    name: "calm",
    about: "nothing goes wrong: the machines become nodes within minutes",
    masters: 1,
    workers: 3,
    ground: Ground::Ec2,
    rates: Rates::NONE,
    calamities: &[],
    skew: Duration::from_secs(2),
    worker_skew: Duration::ZERO,
    faults_last: Duration::ZERO,
    patience: Duration::from_secs(600),
    afterwards: Duration::from_secs(120),
    no_list_permission: false,
    ec2_late: false,
    foreign_master: false,
    rash_operator: false,
    stagger: Duration::from_secs(60),
    join_wait: Duration::from_secs(3600),
    token_minutes: &[10, 20, 60],
    refusals: &[],
};

const ALL: &[Scenario] = &[
    Scenario { afterwards: minutes(45), ..BASE },
    Scenario {
        name: "race",
        about: "five masters claim the register at once over a bad store",
        masters: 5,
        workers: 1,
        rates: Rates::BAD_NETWORK,
        faults_last: minutes(10),
        patience: minutes(90),
        stagger: Duration::from_secs(3),
        ..BASE
    },
    Scenario {
        name: "kills",
        about: "agents are killed before, after and within every kind of change, and machines reboot",
        masters: 2,
        workers: 2,
        rates: Rates::KILLS,
        calamities: &[Calamity::Kill, Calamity::Kill, Calamity::Reboot, Calamity::Reboot],
        faults_last: minutes(10),
        patience: minutes(90),
        ..BASE
    },
    Scenario {
        name: "death",
        about: "holders of the register die for ever and others finish their work",
        masters: 4,
        workers: 1,
        rates: Rates::ALL,
        calamities: &[Calamity::DeathOfHolder, Calamity::DeathOfHolder, Calamity::Stall, Calamity::Kill],
        faults_last: minutes(25),
        patience: minutes(180),
        ec2_late: true,
        ..BASE
    },
    Scenario {
        name: "storm",
        about: "everything at once, with wrong clocks",
        masters: 3,
        workers: 2,
        rates: Rates::ALL,
        calamities: &[
            Calamity::Kill,
            Calamity::Reboot,
            Calamity::Stall,
            Calamity::Stall,
            Calamity::Tampering,
            Calamity::TokensRevoked,
        ],
        skew: Duration::from_secs(45),
        faults_last: minutes(20),
        patience: minutes(180),
        no_list_permission: true,
        ec2_late: true,
        ..BASE
    },
    Scenario {
        name: "metal",
        about: "bare metal: nobody but an operator can say that a machine is gone",
        masters: 3,
        workers: 1,
        ground: Ground::Host,
        rates: Rates::ALL,
        calamities: &[Calamity::DeathOfHolder, Calamity::Reboot, Calamity::Stall],
        faults_last: minutes(20),
        patience: minutes(180),
        ..BASE
    },
    Scenario {
        name: "unlock",
        about: "an operator unlocks the register while its holder lives: two may run init, one commits",
        masters: 3,
        workers: 1,
        ground: Ground::Host,
        rates: Rates::ALL,
        calamities: &[Calamity::Stall, Calamity::Stall, Calamity::Stall, Calamity::Kill],
        faults_last: minutes(15),
        patience: minutes(180),
        rash_operator: true,
        ..BASE
    },
    Scenario {
        name: "clocks",
        about: "workers whose clocks are wrong by minutes refuse, the others join",
        workers: 4,
        worker_skew: minutes(3),
        rates: Rates::KILLS,
        faults_last: minutes(5),
        patience: minutes(90),
        refusals: &[Cause::ClockSkew],
        ..BASE
    },
    Scenario {
        name: "lifecycle",
        about: "the bucket's lifecycle rules delete shared objects under a living cluster",
        masters: 5,
        workers: 2,
        rates: Rates::KILLS,
        calamities: &[Calamity::Lifecycle, Calamity::Lifecycle, Calamity::Lifecycle],
        faults_last: minutes(90),
        patience: minutes(120),
        stagger: minutes(80),
        refusals: &[Cause::RegisterMissing],
        ..BASE
    },
    Scenario {
        name: "foreign",
        about: "a machine carries somebody's control plane: it is refused, untouched, and the others go on",
        masters: 2,
        workers: 1,
        rates: Rates::KILLS,
        faults_last: minutes(8),
        patience: minutes(90),
        foreign_master: true,
        refusals: &[Cause::ForeignState, Cause::ForeignCluster],
        ..BASE
    },
];

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    ALL.to_vec()
}

/// One master and three workers, and nothing goes wrong.
pub fn calm() -> Scenario {
    BASE
}

/// The scenario of this name.
pub fn by_name(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}
