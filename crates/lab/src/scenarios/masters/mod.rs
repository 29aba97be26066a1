//! Clusters with several masters, with the real kubeadm and the real etcd, behind a load balancer.

mod client;
mod died;
mod duty;
mod facts;
mod fleet;
mod grow;
mod lost;
mod replaced;

use super::{Needs, Scenario};
use crate::Result;
use crate::lab::Lab;

/// See the module.
pub const SCENARIOS: &[Scenario] = &[
    story(
        "masters-by-hand-k8s",
        "how long until three masters are Ready: kubeadm by hand, and kubestrap",
        grow::by_hand,
    ),
    story(
        "three-masters-k8s",
        "three masters and two workers from one start: one CA, three voting members",
        grow::three_masters,
    ),
    story("masters-kms-k8s", "three masters whose keys are sealed by a KMS key", grow::by_kms),
    story(
        "masters-raced-k8s",
        "three masters started at the same instant, again and again: one CA, three members, always",
        grow::raced,
    ),
    story(
        "master-lost-k8s",
        "power cut and termination of a master that follows, then of the one that leads: replaced unaided",
        lost::on_ec2,
    ),
    story(
        "master-lost-metal-k8s",
        "the same without EC2: nothing is removed before an operator's `kubestrap member remove`",
        lost::on_metal,
    ),
    story(
        "master-join-cut-k8s",
        "power cut in the middle of joins as a master: the next one joins, and one goes on with its power back",
        lost::join_cut,
    ),
    story(
        "init-died-k8s",
        "the initialising master dies, at one moment after another: another finishes the same cluster",
        died::init_died,
    ),
    story(
        "masters-replaced-k8s",
        "all three replaced one after another while a client writes to the API: the longest gap",
        replaced::replaced,
    ),
    story("master-cut-off-k8s", "the master that leads is cut off from the network, and comes back", duty::cut_off),
    story(
        "leader-killed-k8s",
        "the leader dies when the join bundle is about to expire: it never does, and a worker joins",
        duty::leader_killed,
    ),
    story(
        "short-certs-k8s",
        "certificates that live forty minutes are renewed, one master at a time, before they end",
        duty::short_certificates,
    ),
];

/// They need Kubernetes, and masters of their own.
const fn story(name: &'static str, about: &'static str, run: fn(&mut Lab) -> Result<()>) -> Scenario {
    Scenario { name, about, needs: Needs::Kubernetes, shares: false, run }
}
