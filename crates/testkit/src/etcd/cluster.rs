//! Who is a member, who lives, and which changes etcd allows: the rules of `server/etcdserver/server.go`,
//! `api/membership/cluster.go` and `membership/membership.go` with `StrictReconfigCheck`, which is on by default.

use super::Own;
use crate::{apiserver, files};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// What etcd refuses with: a gRPC code and a text (`api/v3rpc/rpctypes/error.go`).
pub type Refusal = (u32, &'static str);

const NOT_FOUND: Refusal = (5, "etcdserver: member not found");
const NOT_ENOUGH_STARTED: Refusal = (9, "etcdserver: re-configuration failed due to not enough started members");
const UNHEALTHY: Refusal = (14, "etcdserver: unhealthy cluster");
const PEER_URL_EXISTS: Refusal = (9, "etcdserver: Peer URLs already exists");
const TOO_MANY_LEARNERS: Refusal = (9, "etcdserver: too many learner members in cluster");
const NOT_A_LEARNER: Refusal = (9, "etcdserver: can only promote a learner member");
const NOT_IN_SYNC: Refusal = (9, "etcdserver: can only promote a learner member which is in sync with leader");
/// What a request says that waited for a quorum in vain.
pub(super) const TIMED_OUT: Refusal = (14, "etcdserver: request timed out");

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it does not vote.
    pub learner: bool,
    /// The machine it runs on.
    pub root: Option<PathBuf>,
    /// When its process began last, in microseconds.
    pub since_us: i64,
}

impl Member {
    /// Whether it has ever started.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether its process runs.
    pub fn lives(&self) -> bool {
        self.root.as_deref().is_some_and(apiserver::lives)
    }

    fn seconds(&self) -> f64 {
        let micros = Timestamp::now().as_microsecond().saturating_sub(self.since_us);
        std::time::Duration::from_micros(u64::try_from(micros).unwrap_or_default()).as_secs_f64()
    }
}

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// One more member.
    Add {
        /// Where its peers will reach it.
        peer_urls: Vec<String>,
        /// Whether it does not vote at first.
        learner: bool,
    },
    /// One less.
    Remove(u64),
    /// A learner gets its vote.
    Promote(u64),
}

/// How long things take, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until a member that runs counts as connected.
    pub health: f64,
    /// Until a learner that runs is in sync.
    pub sync: f64,
}

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub cluster_id: u64,
    /// The leader's member id; 0 for none.
    pub leader: u64,
    /// Grows with every election.
    pub term: u64,
    /// The members.
    pub members: Vec<Member>,
    /// Who was removed: an id never comes back.
    pub removed: Vec<u64>,
    /// Changes that were proposed without a quorum: they are carried out when there is one again.
    pub pending: Vec<Change>,
}

impl Cluster {
    /// A member by its id.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.learner)
    }

    /// Whether a majority of those who vote runs.
    pub fn has_quorum(&self) -> bool {
        self.voters().filter(|member| member.lives()).count() > self.voters().count() / 2
    }

    /// A member's process begins: the first founds the cluster. Its id.
    ///
    /// # Errors
    /// When it joins and nobody announced it, or when its data are those of a member that was removed.
    pub fn begin(&mut self, root: &Path, own: &Own, before: Option<u64>) -> io::Result<u64> {
        if self.members.is_empty() && !own.joins {
            self.cluster_id = random()?;
            let peer_urls = vec![own.peer_url.clone()];
            self.members.push(Member { id: random()?, peer_urls, ..Member::default() });
        }
        let gone = "the member has been permanently removed from the cluster";
        let found = self.members.iter_mut().find(|member| member.peer_urls.contains(&own.peer_url));
        let member = found.ok_or_else(|| io::Error::other(format!("etcd: {gone}")))?;
        if before.is_some_and(|before| before != member.id) {
            return Err(io::Error::other(format!("etcd: {gone}; its data are of another member")));
        }
        member.name.clone_from(&own.name);
        member.client_urls = vec![own.client_url.clone()];
        member.root = Some(root.canonicalize()?);
        member.since_us = Timestamp::now().as_microsecond();
        Ok(member.id)
    }

    /// Elects a leader where there is none, and carries out what waited for a quorum; whether something changed.
    pub fn settle(&mut self) -> bool {
        let before = self.clone();
        if self.has_quorum() {
            let is_fit = |id: u64| self.member(id).is_some_and(|member| !member.learner && member.lives());
            if !is_fit(self.leader) {
                let next = self.voters().find(|member| member.lives()).map_or(0, |member| member.id);
                self.leader = next;
                self.term += 1;
            }
            for change in std::mem::take(&mut self.pending) {
                // One that has become impossible changes nothing.
                let _ = self.apply(&change);
            }
        } else {
            self.leader = 0;
        }
        *self != before
    }

    /// What etcd does with a change that a client asks this member for.
    ///
    /// # Errors
    /// Its refusal; `TIMED_OUT` when there is no quorum, and then the change may still come.
    pub fn ask(&mut self, own: u64, change: &Change, patience: Patience) -> Result<u64, Refusal> {
        self.settle();
        self.check(own, change, patience)?;
        if !self.has_quorum() {
            self.pending.push(change.clone());
            return Err(TIMED_OUT);
        }
        let done = self.apply(change)?;
        self.settle();
        Ok(done)
    }

    /// `mayAddMember`, `mayRemoveMember`, `mayPromoteMember`: before anything is proposed.
    fn check(&self, own: u64, change: &Change, patience: Patience) -> Result<(), Refusal> {
        let (members, started) = (self.voters().count(), self.voters().filter(|m| m.is_started()).count());
        let is_up = |member: &Member| member.id == own || (member.lives() && member.seconds() >= patience.health);
        match change {
            Change::Add { learner, .. } => {
                let restores = started == 1 && members == 1;
                if !learner && !restores && started < members.div_ceil(2) + 1 {
                    return Err(NOT_ENOUGH_STARTED);
                }
                // `isConnectedFullySince`: one member that is down is enough.
                if self.voters().all(is_up) { Ok(()) } else { Err(UNHEALTHY) }
            }
            Change::Remove(id) => {
                let member = self.member(*id);
                if member.is_some_and(|member| member.learner) {
                    return Ok(());
                }
                let others = |m: &&Member| m.id != *id;
                let (left, running) =
                    (self.voters().filter(others).count(), self.voters().filter(others).filter(|m| m.is_started()));
                if running.count() < left / 2 + 1 {
                    return Err(NOT_ENOUGH_STARTED);
                }
                if *id != own && !member.is_some_and(Member::lives) {
                    return Ok(());
                }
                let active = self.voters().filter(|m| is_up(m)).count();
                if active < 2 + members.saturating_sub(1) / 2 { Err(UNHEALTHY) } else { Ok(()) }
            }
            Change::Promote(id) => {
                // A leader knows the progress of those it knows.
                let member = self.member(*id).ok_or(NOT_FOUND)?;
                if !member.learner {
                    return Err(NOT_A_LEARNER);
                }
                if !member.lives() || member.seconds() < patience.sync {
                    return Err(NOT_IN_SYNC);
                }
                if started + 1 < members.div_ceil(2) + 1 { Err(NOT_ENOUGH_STARTED) } else { Ok(()) }
            }
        }
    }

    /// `ValidateConfigurationChange`, and the change. The id of the member it is about.
    fn apply(&mut self, change: &Change) -> Result<u64, Refusal> {
        match change {
            Change::Add { peer_urls, learner } => {
                if self.members.iter().any(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url))) {
                    return Err(PEER_URL_EXISTS);
                }
                if *learner && self.members.iter().any(|member| member.learner) {
                    return Err(TOO_MANY_LEARNERS);
                }
                let id = random().map_err(|_| (13, "etcdserver: no randomness"))?;
                let peer_urls = peer_urls.clone();
                self.members.push(Member { id, peer_urls, learner: *learner, ..Member::default() });
                Ok(id)
            }
            Change::Remove(id) => {
                self.member(*id).ok_or(NOT_FOUND)?;
                self.members.retain(|member| member.id != *id);
                self.removed.push(*id);
                Ok(*id)
            }
            Change::Promote(id) => {
                let member = self.members.iter_mut().find(|member| member.id == *id).ok_or(NOT_FOUND)?;
                if !std::mem::take(&mut member.learner) {
                    return Err(NOT_A_LEARNER);
                }
                Ok(*id)
            }
        }
    }

    /// Hands the leadership to a member.
    ///
    /// # Errors
    /// When this member is not the leader, or the other is none that votes and runs.
    pub fn hand_over(&mut self, own: u64, to: u64) -> Result<(), Refusal> {
        self.settle();
        if self.leader != own {
            return Err((9, "etcdserver: not leader"));
        }
        let target = self.member(to).filter(|member| !member.learner);
        let target = target.ok_or((9, "etcdserver: bad leader transferee"))?;
        if !target.lives() {
            return Err((14, "etcdserver: request timed out, leader transfer took too long"));
        }
        self.term += u64::from(self.leader != to);
        self.leader = to;
        Ok(())
    }
}

fn random() -> io::Result<u64> {
    // Never 0, which is nobody.
    files::random_bytes::<8>().map(|bytes| u64::from_be_bytes(bytes) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { health: 0.0, sync: 0.0 };

    struct Machines(Vec<tempfile::TempDir>);

    impl Machines {
        fn new(count: usize) -> (Machines, Cluster) {
            let roots: Vec<_> = (0..count).map(|_| tempfile::tempdir().expect("folder")).collect();
            let mut cluster = Cluster::default();
            for (n, root) in roots.iter().enumerate() {
                let own = own(n, n > 0);
                if n > 0 {
                    let add = Change::Add { peer_urls: vec![own.peer_url.clone()], learner: true };
                    let leader = cluster.leader;
                    let id = cluster.ask(leader, &add, PATIENCE).expect("added");
                    apiserver::pretend(root.path());
                    cluster.begin(root.path(), &own, None).expect("began");
                    cluster.ask(leader, &Change::Promote(id), PATIENCE).expect("promoted");
                } else {
                    apiserver::pretend(root.path());
                    cluster.begin(root.path(), &own, None).expect("founded");
                    cluster.settle();
                }
            }
            (Machines(roots), cluster)
        }

        fn cut(&self, n: usize) {
            std::fs::remove_dir_all(self.0[n].path().join("run")).expect("cut");
        }
    }

    fn own(n: usize, joins: bool) -> Own {
        Own {
            name: format!("m{n}"),
            client_url: format!("https://10.0.0.{n}:2379"),
            peer_url: format!("https://10.0.0.{n}:2380"),
            joins,
        }
    }

    fn add(n: usize) -> Change {
        Change::Add { peer_urls: vec![own(n, true).peer_url], learner: true }
    }

    #[test]
    fn learners_come_one_at_a_time_and_are_promoted_when_they_run() {
        let (_machines, mut cluster) = Machines::new(2);
        assert_eq!((cluster.members.len(), cluster.voters().count(), cluster.has_quorum()), (2, 2, true));
        let leader = cluster.leader;
        let id = cluster.ask(leader, &add(5), PATIENCE).expect("added");
        assert_eq!(cluster.ask(leader, &add(6), PATIENCE), Err(TOO_MANY_LEARNERS));
        assert_eq!(cluster.ask(leader, &add(5), PATIENCE), Err(PEER_URL_EXISTS));
        assert_eq!(cluster.ask(leader, &Change::Promote(id), PATIENCE), Err(NOT_IN_SYNC));
        assert_eq!(cluster.ask(leader, &Change::Promote(leader), PATIENCE), Err(NOT_A_LEARNER));
        assert_eq!(cluster.ask(leader, &Change::Remove(id), PATIENCE), Ok(id));
        assert_eq!(cluster.ask(leader, &Change::Remove(id), PATIENCE), Err(NOT_FOUND));
    }

    #[test]
    fn a_dead_member_stops_additions_and_can_be_removed() {
        let (machines, mut cluster) = Machines::new(3);
        machines.cut(0);
        let dead = cluster.members[0].id;
        let own = cluster.members[1].id;
        assert_eq!(cluster.ask(own, &add(5), PATIENCE), Err(UNHEALTHY));
        assert_eq!(cluster.ask(own, &Change::Remove(cluster.members[2].id), PATIENCE), Err(UNHEALTHY));
        assert_ne!(cluster.leader, dead, "another one leads");
        assert_eq!(cluster.ask(own, &Change::Remove(dead), PATIENCE), Ok(dead));
        assert!(cluster.ask(own, &add(5), PATIENCE).is_ok());
    }

    #[test]
    fn without_a_quorum_a_removal_is_not_answered_and_comes_later() {
        let (machines, mut cluster) = Machines::new(2);
        machines.cut(0);
        let (dead, own) = (cluster.members[0].id, cluster.members[1].id);
        assert_eq!(cluster.ask(own, &Change::Remove(dead), PATIENCE), Err(TIMED_OUT));
        assert_eq!((cluster.members.len(), cluster.leader), (2, 0));
        apiserver::pretend(machines.0[0].path());
        assert!(cluster.settle());
        assert_eq!(cluster.members.len(), 1);
    }

    #[test]
    fn the_last_member_stays_and_leadership_goes_to_those_who_vote() {
        let (_machines, mut one) = Machines::new(1);
        let own = one.leader;
        assert_eq!(one.ask(own, &Change::Remove(own), PATIENCE), Err(NOT_ENOUGH_STARTED));
        let (_machines, mut cluster) = Machines::new(3);
        let (leader, other) = (cluster.leader, cluster.members[2].id);
        assert_eq!(cluster.hand_over(other, leader), Err((9, "etcdserver: not leader")));
        assert_eq!(cluster.hand_over(leader, 7), Err((9, "etcdserver: bad leader transferee")));
        assert_eq!(cluster.hand_over(leader, other), Ok(()));
        assert_eq!(cluster.leader, other);
        assert_eq!(cluster.ask(leader, &Change::Remove(leader), PATIENCE), Ok(leader), "all three run");
    }
}
