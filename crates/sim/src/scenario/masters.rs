//! Scenarios of several masters, which hand the cluster's keys over.

use super::table::{BASE, minutes};
use super::{Calamity, Fault, Ground, Rates, Scenario};
use std::borrow::Cow;
use std::time::Duration;

/// Connections to the store, to the API servers and to etcd that lose and delay.
const BAD_CONNECTIONS: Rates = Rates::BAD_NETWORK.with(Fault::EtcdFails, 4_000).with(Fault::EtcdAnswerLost, 6_000);
/// Every fault of requests, and kills. Of etcd's answers those to changes alone can be lost, and there are few of them.
const EVERYTHING: Rates = Rates::ALL
    .with(Fault::EtcdFails, 2_000)
    .with(Fault::EtcdAnswerLost, 60_000)
    .with(Fault::KmsDown, 2_000)
    .with(Fault::KmsDenied, 2_000);

/// Changes are done and their answers lost, and agents die; requests that only read fail seldom.
const LEAVING: Rates = Rates::NONE
    .with(Fault::KilledBefore, 800)
    .with(Fault::KilledAfter, 1_200)
    .with(Fault::AnswerLost, 3_000)
    .with(Fault::ApiFails, 2_000)
    .with(Fault::ApiAnswerLost, 8_000)
    .with(Fault::EtcdFails, 3_000)
    .with(Fault::EtcdAnswerLost, 15_000);
/// A network that loses answers, and nothing else: what takes longer than promised has no excuse.
const LOST_ANSWERS: Rates =
    Rates::NONE.with(Fault::AnswerLost, 4_000).with(Fault::ApiAnswerLost, 4_000).with(Fault::EtcdAnswerLost, 6_000);

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "masters",
        about: "three masters and two workers from one start: keys are sealed, one after another joins, whatever goes wrong",
        masters: 3,
        workers: 2,
        rates: EVERYTHING,
        calamities: Cow::Borrowed(&[
            Calamity::Kill,
            Calamity::Kill,
            Calamity::Reboot,
            Calamity::Reboot,
            Calamity::Stall,
            Calamity::Partition,
            Calamity::Partition,
        ]),
        faults_last: minutes(20),
        patience: minutes(180),
        ec2_late: true,
        stagger: Duration::from_secs(10),
        pki: true,
        must: &["commits", "joins", "pki-sealed", "control-planes-joined", "own-learner-removed"],
        ..BASE
    },
    Scenario {
        name: "masters-raced",
        about: "three masters are started at the same instant over a bad network: one CA, three members, always",
        masters: 3,
        workers: 1,
        // Nobody but kubeadm changes etcd's members there.
        rates: BAD_CONNECTIONS.with(Fault::EtcdAnswerLost, 0),
        faults_last: minutes(10),
        patience: minutes(90),
        afterwards: minutes(20),
        stagger: Duration::ZERO,
        pki: true,
        must: &["commits", "joins", "pki-sealed", "control-planes-joined", "kubelets-restarted"],
        ..BASE
    },
    Scenario {
        name: "master-lost",
        about: "a master's machine is terminated: its member goes, and the one that is started in its place joins",
        masters: 3,
        workers: 1,
        rates: BAD_CONNECTIONS,
        calamities: Cow::Borrowed(&[Calamity::MasterLost]),
        faults_last: minutes(60),
        patience: minutes(120),
        stagger: Duration::from_secs(5),
        pki: true,
        spare_masters: 1,
        must: &["commits", "joins", "control-planes-joined", "dead-member-removed"],
        ..BASE
    },
    Scenario {
        name: "masters-founder",
        about: "the machine that makes the cluster is lost wherever it stands: another finishes with the keys that are sealed",
        masters: 3,
        workers: 1,
        rates: Rates::KILLS,
        calamities: Cow::Borrowed(&[Calamity::DeathOfHolder]),
        faults_last: minutes(30),
        patience: minutes(120),
        stagger: Duration::from_secs(5),
        pki: true,
        must: &["commits", "joins", "takeovers", "control-planes-joined"],
        ..BASE
    },
    Scenario {
        name: "masters-bare",
        about: "bare metal: a master is lost, and an operator says so with `member remove` and `unlock join`",
        masters: 3,
        workers: 1,
        ground: Ground::Host,
        rates: Rates::KILLS,
        calamities: Cow::Borrowed(&[Calamity::MasterLost, Calamity::Reboot]),
        faults_last: minutes(40),
        patience: minutes(120),
        stagger: Duration::from_secs(30),
        pki: true,
        spare_masters: 1,
        must: &["commits", "joins", "control-planes-joined", "dead-member-removed"],
        ..BASE
    },
    Scenario {
        name: "masters-leave",
        about: "an operator lets masters leave, also the only one, and is cut short by kills and reboots; others join in their places",
        masters: 3,
        workers: 1,
        rates: LEAVING,
        calamities: Cow::Borrowed(&[Calamity::MasterLeaves, Calamity::MasterLeaves, Calamity::Kill, Calamity::Reboot]),
        faults_last: minutes(40),
        patience: minutes(90),
        stagger: Duration::from_secs(5),
        pki: true,
        spare_masters: 2,
        must: &[
            "commits",
            "joins",
            "member-left",
            "leader-moved",
            "left",
            "leave-refused",
            "leave-beside-a-reboot",
            "leave-killed",
            "leave-cut-by-reboot",
            "stays-away",
        ],
        ..BASE
    },
    Scenario {
        name: "masters-noticed",
        about: "EC2 takes a master back, which leaves in its two minutes, and announces reboots, which are no leaving",
        masters: 3,
        workers: 1,
        rates: LEAVING,
        calamities: Cow::Borrowed(&[Calamity::SpotNotice, Calamity::RebootNotice, Calamity::RebootNotice]),
        faults_last: minutes(30),
        patience: minutes(90),
        stagger: Duration::from_secs(5),
        pki: true,
        spare_masters: 1,
        must: &["commits", "joins", "member-left", "leader-moved", "left-in-time"],
        ..BASE
    },
    Scenario {
        name: "masters-unlocked",
        about: "an operator unlocks the joins of masters that live and join: no voter is removed, and all join in the end",
        masters: 4,
        workers: 1,
        rates: EVERYTHING,
        calamities: Cow::Borrowed(&[
            Calamity::Kill,
            Calamity::Kill,
            Calamity::Reboot,
            Calamity::Stall,
            Calamity::Stall,
        ]),
        faults_last: minutes(12),
        patience: minutes(120),
        rash_operator: true,
        stagger: Duration::from_secs(5),
        pki: true,
        must: &["commits", "joins", "control-planes-joined", "unlock-came-too-late", "learner-of-unlocked-removed"],
        ..BASE
    },
    Scenario {
        name: "masters-bundle",
        about: "who leads is lost as the bundle is due, or about to end: another renews it in time, and a new worker joins",
        masters: 3,
        workers: 1,
        rates: LOST_ANSWERS,
        calamities: Cow::Borrowed(&[Calamity::LeaderLost, Calamity::LeaderLost]),
        faults_last: minutes(50),
        patience: minutes(60),
        stagger: Duration::from_secs(5),
        pki: true,
        spare_masters: 2,
        spare_workers: 2,
        token_minutes: &[10],
        refresh_within: Duration::from_secs(90),
        must: &["commits", "joins", "leader-lost-as-bundle-ends", "refreshed-by-successor"],
        ..BASE
    },
];
