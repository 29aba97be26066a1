//! What the register, the journal and the disk say together: pure.

use crate::journal::{Attempt, AttemptKind};
use crate::kubeadm::machine::Machine;
use crate::model::cause::{Cause, Failure};
use crate::model::register::{Register, RegisterState};
use uuid::Uuid;

/// What is to be done about the register: pure, but for whether another holder is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// We hold it, or our cluster is established.
    Ours(String),
    /// There is none, and nothing in the store speaks of a cluster that ever was, as far as the machine knows.
    Claim,
    /// It vanished, and this machine made the cluster.
    PutBack,
    /// Another holder, who may be gone.
    Contested,
    /// Another master made the cluster: this one joins it.
    Follow(Uuid),
    /// Somebody took it over while this machine initialised.
    Lost(String),
    /// Waiting, or a person, is needed.
    Refuse(Failure),
}

/// `may_follow`: whether a further master has what it needs to join.
pub(super) fn decide(
    register: Option<&Register>,
    attempt: Option<&Attempt>,
    machine: &Machine,
    cluster: &str,
    may_follow: bool,
) -> Decision {
    let claiming = format!("claim the register of cluster {cluster}");
    if let Err(failure) = machine.refuse_foreign(attempt, &claiming) {
        return Decision::Refuse(failure);
    }
    if let Some(joined) = attempt.filter(|attempt| attempt.kind == AttemptKind::Join && !machine.is_clean()) {
        let why = format!("this machine is a worker (attempt {})", joined.id);
        return Decision::Refuse(Failure::new(Cause::ForeignState, claiming, why));
    }
    let unfollowing = attempt.filter(|attempt| attempt.kind == AttemptKind::Init);
    if let Some(attempt) = attempt.filter(|attempt| attempt.kind == AttemptKind::ControlPlane)
        && let Some(decision) = of_follower(register, attempt, machine, &claiming)
    {
        return decision;
    }
    match (register, unfollowing) {
        (None, Some(attempt)) if attempt.commit_attempted => match &attempt.committed {
            Some(ca) if machine.ca.as_ref() == Some(ca) => Decision::PutBack,
            Some(_) => Decision::Refuse(lost_state(&claiming, attempt, machine)),
            // Sent and never confirmed, then the register vanished: another master may have taken over in between.
            None => {
                let why = "it vanished while this machine's commit was under way, so nobody knows whose cluster it was";
                Decision::Refuse(Failure::new(Cause::RegisterMissing, claiming, why))
            }
        },
        (None, _) => Decision::Claim,
        (Some(register), attempt) => match of_register(register, attempt, machine, &claiming) {
            Decision::Refuse(Failure { cause: Cause::AlreadyEstablished, .. }) if may_follow => {
                Decision::Follow(register.uid)
            }
            decision => decision,
        },
    }
}

/// What the register says to a machine that began to join as a further master; `None` when nothing came of that, and it
/// may begin anew.
fn of_follower(register: Option<&Register>, attempt: &Attempt, machine: &Machine, claiming: &str) -> Option<Decision> {
    let refuse = |cause, why: String| Some(Decision::Refuse(Failure::new(cause, claiming, why)));
    let Some(register) = register else {
        return match &attempt.joined {
            Some(ca) if machine.ca.as_ref() == Some(ca) => Some(Decision::PutBack),
            Some(_) => Some(Decision::Refuse(lost_state(claiming, attempt, machine))),
            None if machine.is_clean() => None,
            None => refuse(Cause::RegisterMissing, "it vanished while this machine joined as a master".to_owned()),
        };
    };
    let (same, ca) = (register.uid == attempt.uid, register.ca());
    match ca {
        Some(ca)
            if same && attempt.joined.as_ref().is_some_and(|joined| joined != ca || machine.ca != attempt.joined) =>
        {
            Some(Decision::Refuse(lost_state(claiming, attempt, machine)))
        }
        Some(_) if same => Some(Decision::Ours(format!("a further master of cluster {}", register.uid))),
        _ if machine.is_clean() && attempt.joined.is_none() => None,
        _ => refuse(
            Cause::ForeignCluster,
            format!(
                "this machine is, or was becoming, a master of cluster {}, and the register names {}",
                attempt.uid, register.uid
            ),
        ),
    }
}

fn of_register(register: &Register, attempt: Option<&Attempt>, machine: &Machine, claiming: &str) -> Decision {
    let ours = attempt.filter(|attempt| attempt.id == register.attempt());
    match (&register.state, ours, attempt) {
        (RegisterState::Established { ca_sha256, .. }, Some(attempt), _) if machine.ca.as_ref() != Some(ca_sha256) => {
            Decision::Refuse(lost_state(claiming, attempt, machine))
        }
        (RegisterState::Established { ca_sha256, .. }, Some(_), _) => {
            Decision::Ours(format!("cluster {} is established, CA {ca_sha256}", register.uid))
        }
        (RegisterState::Initialising { .. }, Some(_), _) => Decision::Ours("this machine holds the register".into()),
        // Another master put back a register that had vanished: it names that one's attempt.
        (RegisterState::Established { ca_sha256, .. }, None, Some(attempt))
            if attempt.uid == register.uid
                && attempt.committed.as_ref() == Some(ca_sha256)
                && machine.ca.as_ref() == Some(ca_sha256) =>
        {
            Decision::Ours(format!("cluster {} is established, CA {ca_sha256}", register.uid))
        }
        // Our own attempt left state here, but the register names another one.
        (_, None, Some(attempt)) if !machine.is_clean() => {
            Decision::Lost(format!("the register names attempt {}, not ours ({})", register.attempt(), attempt.id))
        }
        (RegisterState::Established { created_by, created_at, .. }, None, _) => {
            let why = format!("{} ({}) made it on {created_at}", created_by.node_name, created_by.identity);
            Decision::Refuse(Failure::new(Cause::AlreadyEstablished, claiming, format!("the cluster exists: {why}")))
        }
        (RegisterState::Initialising { .. }, None, _) => Decision::Contested,
    }
}

fn lost_state(claiming: &str, attempt: &Attempt, machine: &Machine) -> Failure {
    let has = machine.ca.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let made = attempt.master_of().or(attempt.initialised.as_ref());
    let made = made.map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let why = format!("attempt {} of this machine made CA {made}, but the machine now carries CA {has}", attempt.id);
    Failure::new(Cause::ForeignCluster, claiming, why)
        .advise("restore /etc/kubernetes and /var/lib/etcd from a backup, or `kubestrap cluster retire` and start anew")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::CaHash;
    use crate::model::register::Holder;
    use jiff::Timestamp;

    fn machine(ca: Option<u8>) -> Machine {
        let ca = ca.map(|byte| CaHash::from_digest(&[byte; 32]));
        let traces = ca.iter().map(|_| "/etc/kubernetes/pki/ca.crt".to_owned()).collect();
        Machine { traces, kubelet_conf: ca.is_some(), admin_conf: ca.is_some(), ca }
    }

    fn attempt(id: u128, kind: AttemptKind) -> Attempt {
        Attempt {
            initialised: Some(CaHash::from_digest(&[1; 32])),
            ..Attempt::begun(Uuid::from_u128(id), kind, Uuid::from_u128(99), true)
        }
    }

    fn register(id: u128, established: Option<u8>) -> Register {
        let (attempt, at) = (Uuid::from_u128(id), Timestamp::UNIX_EPOCH);
        let by = Holder { identity: "machine-x".into(), node_name: "x".into(), ec2: None };
        let state = match established {
            Some(byte) => {
                let ca_sha256 = CaHash::from_digest(&[byte; 32]);
                RegisterState::Established { attempt, ca_sha256, created_by: by, created_at: at }
            }
            None => RegisterState::Initialising { attempt, holder: Some(by), since: at },
        };
        Register { schema: 1, cluster: "test".into(), uid: Uuid::from_u128(99), state }
    }

    fn cause(decision: Decision) -> Cause {
        match decision {
            Decision::Refuse(failure) => failure.cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_absent_register_is_claimed_only_by_a_machine_that_made_nothing_yet() {
        let unconfirmed = Attempt { commit_attempted: true, ..attempt(1, AttemptKind::Init) };
        let committed = Attempt { committed: unconfirmed.initialised.clone(), ..unconfirmed.clone() };
        assert_eq!(cause(decide(None, Some(&unconfirmed), &machine(Some(1)), "test", false)), Cause::RegisterMissing);
        assert_eq!(decide(None, None, &machine(None), "test", false), Decision::Claim);
        assert_eq!(decide(None, Some(&attempt(1, AttemptKind::Init)), &machine(None), "test", false), Decision::Claim);
        assert_eq!(decide(None, Some(&committed), &machine(Some(1)), "test", false), Decision::PutBack);
        assert_eq!(cause(decide(None, Some(&committed), &machine(Some(2)), "test", false)), Cause::ForeignCluster);
        assert_eq!(cause(decide(None, Some(&committed), &machine(None), "test", false)), Cause::ForeignCluster);
        assert_eq!(cause(decide(None, None, &machine(Some(1)), "test", false)), Cause::ForeignState);
        assert_eq!(
            cause(decide(None, Some(&attempt(1, AttemptKind::Join)), &machine(Some(1)), "test", false)),
            Cause::ForeignState
        );
    }

    #[test]
    fn our_own_register_is_ours_only_with_our_ca() {
        let ours = attempt(1, AttemptKind::Init);
        let decide =
            |register: &Register, machine: &Machine| decide(Some(register), Some(&ours), machine, "test", false);
        assert!(matches!(decide(&register(1, None), &machine(None)), Decision::Ours(_)));
        assert!(matches!(decide(&register(1, Some(1)), &machine(Some(1))), Decision::Ours(_)));
        assert_eq!(cause(decide(&register(1, Some(1)), &machine(Some(2)))), Cause::ForeignCluster);
        assert_eq!(cause(decide(&register(1, Some(1)), &machine(None))), Cause::ForeignCluster);
    }

    #[test]
    fn a_further_master_follows_a_cluster_that_exists_when_it_has_a_key_for_it() {
        let follow = |attempt: Option<&Attempt>, machine: &Machine, register: &Register| {
            decide(Some(register), attempt, machine, "test", true)
        };
        let (there, uid) = (register(2, Some(2)), Uuid::from_u128(99));
        assert_eq!(follow(None, &machine(None), &there), Decision::Follow(uid));
        // Its own claim came to nothing, and left nothing.
        let lost = Attempt { initialised: None, ..attempt(1, AttemptKind::Init) };
        assert_eq!(follow(Some(&lost), &machine(None), &there), Decision::Follow(uid));
        assert!(matches!(follow(Some(&attempt(1, AttemptKind::Init)), &machine(Some(1)), &there), Decision::Lost(_)));
        assert_eq!(follow(None, &machine(None), &register(2, None)), Decision::Contested);
        assert_eq!(cause(follow(None, &machine(Some(2)), &there)), Cause::ForeignState);
    }

    #[test]
    fn a_master_that_joined_is_one_of_that_cluster_alone() {
        let joining = Attempt { initialised: None, ..attempt(1, AttemptKind::ControlPlane) };
        let joined = Attempt { joined: Some(CaHash::from_digest(&[2; 32])), ..joining.clone() };
        let other = Attempt { uid: Uuid::from_u128(98), ..joining.clone() };
        let (there, uid) = (register(2, Some(2)), Uuid::from_u128(99));
        let decide = |register: Option<&Register>, attempt: &Attempt, ca: Option<u8>| {
            decide(register, Some(attempt), &machine(ca), "test", true)
        };
        for (attempt, ca) in [(&joining, None), (&joining, Some(2)), (&joined, Some(2))] {
            assert!(matches!(decide(Some(&there), attempt, ca), Decision::Ours(_)), "{attempt:?} {ca:?}");
        }
        for ca in [None, Some(1)] {
            assert_eq!(cause(decide(Some(&there), &joined, ca)), Cause::ForeignCluster);
            assert_eq!(cause(decide(None, &joined, ca)), Cause::ForeignCluster);
        }
        // Another cluster took the place of the one it was about to join.
        assert_eq!(decide(Some(&there), &other, None), Decision::Follow(uid));
        assert_eq!(cause(decide(Some(&there), &other, Some(2))), Cause::ForeignCluster);
        assert_eq!(cause(decide(Some(&register(2, None)), &joined, Some(2))), Cause::ForeignCluster);
        assert_eq!(decide(Some(&register(2, None)), &joining, None), Decision::Contested);
        // It vanished.
        assert_eq!(decide(None, &joined, Some(2)), Decision::PutBack);
        assert_eq!(decide(None, &joining, None), Decision::Claim);
        assert_eq!(cause(decide(None, &joining, Some(2))), Cause::RegisterMissing);
    }

    #[test]
    fn the_maker_stays_one_when_another_master_put_the_register_back() {
        let made = Attempt { committed: Some(CaHash::from_digest(&[1; 32])), ..attempt(1, AttemptKind::Init) };
        let of = |attempt: &Attempt, register: &Register| {
            decide(Some(register), Some(attempt), &machine(Some(1)), "test", true)
        };
        assert!(matches!(of(&made, &register(7, Some(1))), Decision::Ours(_)));
        assert!(matches!(of(&made, &register(7, Some(2))), Decision::Lost(_)));
        let other = Attempt { uid: Uuid::from_u128(98), ..made };
        assert!(matches!(of(&other, &register(7, Some(1))), Decision::Lost(_)));
    }

    #[test]
    fn anothers_register_is_waited_for_or_refused_and_never_overridden() {
        let ours = attempt(1, AttemptKind::Init);
        assert_eq!(decide(Some(&register(2, None)), None, &machine(None), "test", false), Decision::Contested);
        assert_eq!(decide(Some(&register(2, None)), Some(&ours), &machine(None), "test", false), Decision::Contested);
        assert!(matches!(
            decide(Some(&register(2, None)), Some(&ours), &machine(Some(1)), "test", false),
            Decision::Lost(_)
        ));
        assert!(matches!(
            decide(Some(&register(2, Some(2))), Some(&ours), &machine(Some(1)), "test", false),
            Decision::Lost(_)
        ));
        assert_eq!(
            cause(decide(Some(&register(2, Some(2))), None, &machine(None), "test", false)),
            Cause::AlreadyEstablished
        );
    }
}
