//! Every scenario there is.

use super::{BootClock, Calamity, Fault, Ground, Rates, Scenario};
use kubestrap_core::model::cause::Cause;
use std::borrow::Cow;
use std::time::Duration;

pub(super) const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

pub(super) const BASE: Scenario = Scenario {
    name: "calm",
    about: "nothing goes wrong: the machines become nodes within minutes",
    masters: 1,
    workers: 3,
    ground: Ground::Ec2,
    rates: Rates::NONE,
    calamities: Cow::Borrowed(&[]),
    skew: Duration::from_secs(2),
    worker_skew: Duration::ZERO,
    boot_clock: None,
    faults_last: Duration::ZERO,
    patience: Duration::from_secs(600),
    afterwards: Duration::from_secs(120),
    no_list_permission: false,
    ec2_late: false,
    imds_late: Duration::ZERO,
    foreign_master: false,
    rash_operator: false,
    clones: 0,
    rebuilt: false,
    pki: false,
    spare_masters: 0,
    spare_workers: 0,
    refresh_within: minutes(12),
    rolls: false,
    first_alone: Duration::ZERO,
    stagger: Duration::from_secs(60),
    join_wait: Duration::from_secs(3600),
    token_minutes: &[10, 20, 60],
    images: false,
    login_life: Duration::from_secs(12 * 3600),
    refusals: &[],
    must: &["commits", "joins"],
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
        must: &["commits", "joins", "late-landing", "late-refused", "pages"],
        ..BASE
    },
    Scenario {
        name: "kills",
        about: "agents are killed before, after and within every kind of change, and machines reboot",
        masters: 2,
        workers: 2,
        rates: Rates::KILLS,
        calamities: Cow::Borrowed(&[Calamity::Kill, Calamity::Kill, Calamity::Reboot, Calamity::Reboot]),
        faults_last: minutes(10),
        patience: minutes(90),
        images: true,
        must: &["commits", "joins", "resets", "image-pulls", "image-pins"],
        ..BASE
    },
    Scenario {
        name: "death",
        about: "holders of the register die for ever and others finish their work",
        masters: 4,
        workers: 1,
        rates: Rates::ALL,
        calamities: Cow::Borrowed(&[
            Calamity::DeathOfHolder,
            Calamity::DeathOfHolder,
            Calamity::Stall,
            Calamity::Kill,
            Calamity::Partition,
        ]),
        faults_last: minutes(25),
        patience: minutes(180),
        ec2_late: true,
        must: &["commits", "joins", "resets", "takeovers", "late-of-the-dead"],
        ..BASE
    },
    Scenario {
        name: "storm",
        about: "everything at once, with wrong clocks",
        masters: 3,
        workers: 2,
        rates: Rates::ALL.with(Fault::SlowDisk, 300),
        calamities: Cow::Borrowed(&[
            Calamity::Kill,
            Calamity::Reboot,
            Calamity::Stall,
            Calamity::Stall,
            Calamity::Partition,
            Calamity::DiskFull,
            Calamity::ApiAway,
            Calamity::Tampering,
            Calamity::TokensRevoked,
        ]),
        skew: Duration::from_secs(45),
        faults_last: minutes(20),
        patience: minutes(180),
        no_list_permission: true,
        ec2_late: true,
        imds_late: minutes(2),
        ..BASE
    },
    Scenario {
        name: "metal",
        about: "bare metal: nobody but an operator can say that a machine is gone",
        masters: 3,
        workers: 1,
        ground: Ground::Host,
        rates: Rates::ALL,
        calamities: Cow::Borrowed(&[Calamity::DeathOfHolder, Calamity::Reboot, Calamity::Stall]),
        faults_last: minutes(20),
        patience: minutes(180),
        must: &["commits", "joins", "unlocks", "takeovers"],
        ..BASE
    },
    Scenario {
        name: "unlock",
        about: "an operator unlocks the register while its holder lives: two may run init, one commits",
        masters: 3,
        workers: 1,
        ground: Ground::Host,
        rates: Rates::ALL,
        calamities: Cow::Borrowed(&[Calamity::Stall, Calamity::Stall, Calamity::Stall, Calamity::Kill]),
        faults_last: minutes(15),
        patience: minutes(180),
        rash_operator: true,
        must: &["commits", "joins", "takeovers", "woke-after-takeover"],
        ..BASE
    },
    Scenario {
        name: "commit",
        about: "commits are lost, late or unanswered, agents die, admin.conf vanishes: nothing is reset after a commit",
        workers: 1,
        rates: Rates::BAD_NETWORK
            .with(Fault::WriteLost, 60_000)
            .with(Fault::AnswerLost, 15_000)
            .with(Fault::KilledBefore, 5_000)
            .with(Fault::KilledAfter, 5_000),
        calamities: Cow::Borrowed(&[Calamity::AdminConfLost, Calamity::Reboot]),
        faults_last: minutes(15),
        patience: minutes(90),
        refusals: &[Cause::ForeignState],
        must: &["commits", "joins", "refused-after-commit"],
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
        must: &["commits", "joins", "clock-refused"],
        ..BASE
    },
    Scenario {
        name: "boot-clock",
        about: "clocks are wrong at boot, by minutes or by years, and right within 8 minutes, or too late for a worker",
        masters: 2,
        workers: 3,
        boot_clock: Some(BootClock { wrong_by: minutes(30), right_within: minutes(8) }),
        calamities: Cow::Borrowed(&[Calamity::Reboot, Calamity::Reboot]),
        faults_last: minutes(5),
        // A token that a master with a wrong clock does not sign is given up by the worker that was told of it, which then
        // waits for the next: half of the longest life, and some minutes.
        patience: minutes(40),
        stagger: minutes(4),
        refusals: &[Cause::ClockSkew],
        must: &["commits", "joins", "clock-refused", "clock-waited-for"],
        ..BASE
    },
    Scenario {
        name: "clock-steps",
        about: "clocks jump by minutes while machines join and tokens are renewed",
        masters: 1,
        workers: 4,
        calamities: Cow::Borrowed(&[
            Calamity::ClockStep,
            Calamity::ClockStep,
            Calamity::ClockStep,
            Calamity::ClockStep,
            Calamity::ClockStep,
            Calamity::ClockStep,
        ]),
        faults_last: minutes(40),
        patience: minutes(20),
        stagger: minutes(40),
        refusals: &[Cause::ClockSkew],
        must: &["commits", "joins", "clock-waited-for"],
        ..BASE
    },
    Scenario {
        name: "partitions",
        about: "machines are cut off from the store, the API server, the cloud, or from everything, also one-way",
        masters: 3,
        workers: 3,
        calamities: Cow::Borrowed(&[Calamity::Partition; 8]),
        faults_last: minutes(20),
        patience: minutes(90),
        stagger: minutes(10),
        must: &[
            "commits",
            "joins",
            "cut-from-store",
            "cut-from-api",
            "cut-from-cloud",
            "cut-from-everything",
            "cut-one-way",
            "request-lost-in-cut",
            "answer-lost-in-cut",
        ],
        ..BASE
    },
    Scenario {
        name: "api-away",
        about: "the API server is down for up to 25 minutes while workers join and nodes restart",
        workers: 4,
        calamities: Cow::Borrowed(&[
            Calamity::ApiAway,
            Calamity::ApiAway,
            Calamity::Reboot,
            Calamity::Reboot,
            Calamity::Reboot,
            Calamity::TokensRevoked,
        ]),
        faults_last: minutes(60),
        patience: minutes(60),
        stagger: minutes(50),
        must: &["commits", "joins", "api-away-in-join", "rebooted-in-join"],
        ..BASE
    },
    Scenario {
        name: "disk",
        about: "disks are full for minutes, or slow",
        masters: 2,
        workers: 2,
        rates: Rates::NONE.with(Fault::SlowDisk, 2_000),
        calamities: Cow::Borrowed(&[
            Calamity::DiskFull,
            Calamity::DiskFull,
            Calamity::DiskFull,
            Calamity::DiskFull,
            Calamity::DiskFull,
            Calamity::Reboot,
        ]),
        faults_last: minutes(20),
        patience: minutes(90),
        stagger: minutes(5),
        must: &["commits", "joins", "write-on-full-disk", "kubeadm-on-full-disk"],
        ..BASE
    },
    Scenario {
        name: "logins",
        about: "ECR throttles, denies, is away for up to an hour and gives logins that are nearly over; those of nodes die",
        workers: 2,
        rates: Rates::KILLS
            .with(Fault::EcrThrottled, 20_000)
            .with(Fault::EcrDenied, 5_000)
            .with(Fault::EcrNearlyOver, 5_000)
            .with(Fault::TimeOut, 2_000),
        calamities: Cow::Borrowed(&[
            Calamity::EcrAway,
            Calamity::EcrAway,
            Calamity::Partition,
            Calamity::DiskFull,
            Calamity::Reboot,
            Calamity::Stall,
        ]),
        faults_last: minutes(150),
        patience: minutes(120),
        afterwards: minutes(60),
        login_life: minutes(40),
        must: &["commits", "joins", "logins-refreshed", "logins-died", "ecr-asked-in-outage"],
        ..BASE
    },
    Scenario {
        name: "cloud",
        about: "EC2 is consistent eventually, the metadata service is late and fails, and holders die",
        masters: 4,
        workers: 2,
        rates: Rates::BAD_CLOUD,
        calamities: Cow::Borrowed(&[Calamity::DeathOfHolder, Calamity::Reboot, Calamity::Reboot, Calamity::Partition]),
        faults_last: minutes(25),
        patience: minutes(120),
        ec2_late: true,
        imds_late: minutes(7),
        must: &["commits", "joins", "takeovers", "imds-gave-up"],
        ..BASE
    },
    Scenario {
        name: "blind",
        about: "a holder is stopped for an hour or two, and EC2 shows nobody anything for long: nothing is taken",
        masters: 3,
        workers: 1,
        calamities: Cow::Borrowed(&[
            Calamity::HolderStopped,
            Calamity::Ec2Blind,
            Calamity::Ec2Blind,
            Calamity::Ec2Blind,
            Calamity::Ec2Blind,
        ]),
        faults_last: minutes(150),
        patience: minutes(120),
        must: &["commits", "joins", "held-for-an-hour"],
        ..BASE
    },
    Scenario {
        name: "forgotten",
        about: "a holder died so long ago that EC2 has forgotten it: many looks prove that it is gone",
        masters: 4,
        workers: 1,
        rates: Rates::NONE.with(Fault::Ec2Throttled, 5_000).with(Fault::Ec2HidesAsker, 5_000),
        calamities: Cow::Borrowed(&[Calamity::DeathOfHolder]),
        faults_last: minutes(130),
        patience: minutes(120),
        first_alone: minutes(80),
        must: &["commits", "joins", "takeovers", "taken-from-forgotten"],
        ..BASE
    },
    Scenario {
        name: "lifecycle",
        about: "the bucket's lifecycle rules delete shared objects under a living cluster",
        masters: 5,
        workers: 2,
        rates: Rates::KILLS,
        calamities: Cow::Borrowed(&[Calamity::Lifecycle, Calamity::Lifecycle, Calamity::Lifecycle]),
        faults_last: minutes(90),
        patience: minutes(120),
        stagger: minutes(80),
        refusals: &[Cause::RegisterMissing],
        // That a replace meets what was deleted in between is rare here (2 in 755 seeds); `rebuilt` demands it.
        must: &["commits", "joins", "put-back"],
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
    Scenario {
        name: "clone",
        about: "instances are made from the disk of one that runs: they are refused, and touch nothing",
        masters: 2,
        workers: 4,
        rates: Rates::KILLS,
        calamities: Cow::Borrowed(&[Calamity::Reboot, Calamity::Reboot]),
        faults_last: minutes(10),
        patience: minutes(60),
        clones: 2,
        ..BASE
    },
    Scenario {
        name: "rebuilt",
        about: "an environment is torn down and rebuilt on the same bucket: refused until `cluster retire`",
        masters: 2,
        workers: 2,
        rates: Rates::NONE.with(Fault::WriteLate, 4_000).with(Fault::AnswerLost, 2_000).with(Fault::SlowDown, 2_000),
        faults_last: minutes(45),
        patience: minutes(45),
        rebuilt: true,
        must: &["commits", "joins", "second-cluster", "refused-until-retired", "replace-of-missing"],
        ..BASE
    },
    Scenario {
        name: "roll",
        about: "a new image for the workers' group: each is drained and replaced, one at a time, whatever goes wrong",
        rates: Rates::ALL,
        calamities: Cow::Borrowed(&[
            Calamity::Kill,
            Calamity::Kill,
            Calamity::Reboot,
            Calamity::Stall,
            Calamity::Partition,
            Calamity::ApiAway,
        ]),
        faults_last: minutes(60),
        patience: minutes(360),
        rolls: true,
        must: &["commits", "joins", "grant", "eviction", "eviction-blocked", "instance-replaced", "api-conflict"],
        ..BASE
    },
];

/// Too slow for every change: hours of it are run by name.
const WORST: Scenario = Scenario {
    name: "worst",
    about: "the worst night: every calamity there is, once, with every fault of requests",
    masters: 4,
    workers: 4,
    rates: Rates::ALL.with(Fault::SlowDisk, 300),
    calamities: Cow::Borrowed(&[
        Calamity::Kill,
        Calamity::Reboot,
        Calamity::Stall,
        Calamity::Death,
        Calamity::DeathOfHolder,
        Calamity::HolderStopped,
        Calamity::AdminConfLost,
        Calamity::Lifecycle,
        Calamity::Tampering,
        Calamity::TokensRevoked,
        Calamity::Partition,
        Calamity::Partition,
        Calamity::ClockStep,
        Calamity::ClockStep,
        Calamity::DiskFull,
        Calamity::ApiAway,
        Calamity::Ec2Blind,
    ]),
    skew: Duration::from_secs(20),
    faults_last: minutes(60),
    patience: minutes(240),
    ec2_late: true,
    imds_late: minutes(2),
    clones: 1,
    stagger: minutes(20),
    refusals: &[Cause::ClockSkew, Cause::RegisterMissing, Cause::ForeignState],
    ..BASE
};

/// Every scenario that CI runs.
pub fn all() -> Vec<Scenario> {
    ALL.iter().chain(super::masters::ALL).cloned().collect()
}

/// One master and three workers, and nothing goes wrong.
pub fn calm() -> Scenario {
    BASE
}

/// The scenario of this name; also `worst`, which is not among [`all`].
pub fn by_name(name: &str) -> Option<Scenario> {
    all().into_iter().chain([WORST]).find(|scenario| scenario.name == name)
}
