//! The operator's tools: what a person may do that the agent never does by itself. The caller asks for confirmation;
//! here the state is read, shown and changed.

use crate::ecr::wiring::Leftover;
use crate::ecr::{logins, wiring};
use crate::journal::{AttemptKind, Journal};
use crate::kubeadm::machine::Machine;
use crate::kubeadm::reset::{self, ResetProof};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::register::{Register, RegisterState};
use crate::node::Node;
use crate::ports::ETag;
use crate::store::Store;
use crate::store::register::Seen;
use std::path::PathBuf;

/// Who holds the register, for a person who is about to unlock it. Fails when there is nothing to unlock.
pub async fn register_to_unlock(store: &Store) -> Outcome<Seen> {
    let attempted = "unlock the cluster register";
    let Some(seen) = store.register().await? else {
        let why = "there is no cluster.json: nobody holds it";
        return Err(Failure::new(Cause::Usage, attempted, why).advise("nothing is to be done; start a master"));
    };
    match &seen.register.state {
        RegisterState::Initialising { .. } => Ok(seen),
        RegisterState::Established { .. } => {
            let why = "the cluster is established: nobody holds the register";
            Err(Failure::new(Cause::Usage, attempted, why).advise("nothing is to be done"))
        }
    }
}

/// What unlocking breaks, in words for a person.
pub fn unlock_warning(register: &Register) -> String {
    let holder = match &register.state {
        RegisterState::Initialising { holder: Some(holder), since, .. } => {
            format!("{} ({}) since {since}", holder.node_name, holder.identity)
        }
        RegisterState::Initialising { holder: None, .. } => "nobody (it was unlocked before)".to_owned(),
        RegisterState::Established { .. } => "nobody".to_owned(),
    };
    format!(
        "The register of cluster {} ({}) is held by {holder}.\n\
         If that machine is still running, it loses the right to make the cluster: its kubelet is stopped and what it \
         made is useless. The next master takes over and keeps the cluster's uid.",
        register.cluster, register.uid
    )
}

/// Who holds the join lock, for a person who is about to remove it: its version, and what is to be said. Fails when there
/// is nothing to unlock.
pub async fn lock_to_unlock(store: &Store) -> Outcome<(ETag, String)> {
    let Some((etag, lock)) = store.lock_to_show().await? else {
        let why = "there is no join lock: no master is joining";
        return Err(Failure::new(Cause::Usage, "unlock the join lock", why).advise("nothing is to be done"));
    };
    let holder = match lock {
        Ok(lock) => {
            format!("held by {} ({}) since {}", lock.holder.node_name, lock.holder.identity, lock.since)
        }
        Err(failure) => format!("not readable ({})", failure.detail),
    };
    let warning = format!(
        "The join lock is {holder}.\n\
         If that machine is still running, it goes on with its join, beside the next one: etcd takes one new member at a \
         time, and one of the two fails and begins anew. Its unstarted member of etcd is removed by the leader."
    );
    Ok((etag, warning))
}

/// What `kubestrap reset` would destroy, with the proof that it may; the refusal otherwise.
pub struct ResetPlan {
    /// Every trace that goes; none when only the end of an earlier reset is missing.
    pub traces: Vec<String>,
    /// Whether an attempt is recorded, and what became of it.
    pub story: String,
    /// Files with logins and wiring of ours, which go too, in whole or in part.
    pub credentials: Vec<PathBuf>,
    providers: Vec<Leftover>,
    logins: Vec<PathBuf>,
    proof: Option<ResetProof>,
}

impl ResetPlan {
    /// Whether there is anything to do.
    pub fn is_needed(&self) -> bool {
        self.proof.is_some() || !self.credentials.is_empty()
    }

    /// Whether it runs `kubeadm reset`, and is not about credentials alone.
    pub fn runs_kubeadm(&self) -> bool {
        self.proof.is_some()
    }
}

/// Reads what a reset would destroy. `force` lets an operator reset a node that was completed or committed; state that
/// was on the machine before kubestrap is refused in any case.
pub fn plan_reset(node: &Node, force: bool) -> Outcome<ResetPlan> {
    let machine = Machine::look(&*node.world.files)?;
    let attempt = Journal::new(node.world.files.clone(), node.world.time.clone()).attempt()?;
    let story = match &attempt {
        None => "no attempt is recorded on this machine".to_owned(),
        Some(a) if a.committed.is_some() => format!("this machine made cluster {}", a.uid),
        Some(a) if a.kind == AttemptKind::ControlPlane && a.joined.is_some() => {
            format!("this machine is a master of cluster {}: `kubestrap leave` goes before its reset", a.uid)
        }
        Some(a) if a.joined.is_some() => format!("this machine joined cluster {}", a.uid),
        Some(a) => format!("attempt {} for cluster {} did not end", a.id, a.uid),
    };
    let traces = machine.traces.clone();
    // A reset that was killed may have cleaned the machine: it is not done before the journal says so. Until then the
    // journal tells of a node that is not there, and `run` refuses.
    let interrupted = attempt.as_ref().is_some_and(|attempt| attempt.resetting);
    // Read before the kubelet's flags go, which may name another file than ours.
    let providers = wiring::leftovers(node)?;
    let logins = logins::all_ours(&*node.world.files, node.settings.ecr.certs_dir())?;
    let credentials = providers.iter().map(|leftover| leftover.file.clone()).chain(logins.clone()).collect();
    let plan = ResetPlan { traces, story, credentials, providers, logins, proof: None };
    if machine.is_clean() && !interrupted {
        return Ok(plan);
    }
    let proof = if force {
        ResetProof::by_operator(attempt.as_ref(), &machine)
    } else {
        ResetProof::from_journal(attempt.as_ref(), &machine)
    };
    let proof = proof.map_err(|failure| {
        if force { failure } else { failure.advise("`kubestrap reset --force` resets a node that kubestrap made") }
    })?;
    Ok(ResetPlan { proof: Some(proof), ..plan })
}

/// Carries the reset out; nothing happens when it is not needed. The next `run` begins a new attempt.
pub async fn carry_out_reset(node: &Node, plan: ResetPlan) -> Outcome<()> {
    if let Some(proof) = plan.proof {
        reset::reset(node, proof).await?;
    }
    // Behind it: the kubelet that needed them has stopped for good.
    for leftover in &plan.providers {
        wiring::take_out(node, leftover)?;
    }
    plan.logins.iter().try_for_each(|path| node.world.files.remove(path))
}
