//! The cluster register, `cluster.json`: the one object that says whether the cluster is absent, being initialised
//! (by whom), or established.

use crate::model::identity::Ec2;
use crate::model::names::CaHash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The major version of every object's `schema` that this program writes, and the highest it reads.
pub const SCHEMA: u32 = 1;

/// Whoever holds the register or a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// [`crate::model::identity::Identity::key`].
    pub identity: String,
    /// For people.
    pub node_name: String,
    /// Set on EC2; without it nobody can know that the holder is gone but an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2: Option<Ec2>,
}

/// The two states of a register that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RegisterState {
    /// Somebody runs, or ran, `kubeadm init`.
    Initialising {
        /// The attempt that holds it; nobody else's write can be mistaken for this one's.
        attempt: Uuid,
        /// Empty after `unlock init`: the next master may take it.
        holder: Option<Holder>,
        /// When, by the holder's clock; for people, never compared.
        since: Timestamp,
    },
    /// The cluster exists.
    Established {
        /// The attempt that made it.
        attempt: Uuid,
        /// The one CA of this cluster.
        ca_sha256: CaHash,
        /// Who made it.
        created_by: Holder,
        /// When, by the creator's clock; for people.
        created_at: Timestamp,
    },
}

/// `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Major version of the form.
    pub schema: u32,
    /// The cluster's name, so that a copied object is noticed.
    pub cluster: String,
    /// The cluster's uid: given once, kept by every successor.
    pub uid: Uuid,
    /// Where it stands.
    #[serde(flatten)]
    pub state: RegisterState,
}

impl Register {
    /// The attempt named in it.
    pub fn attempt(&self) -> Uuid {
        match &self.state {
            RegisterState::Initialising { attempt, .. } | RegisterState::Established { attempt, .. } => *attempt,
        }
    }

    /// The CA, once established.
    pub fn ca(&self) -> Option<&CaHash> {
        match &self.state {
            RegisterState::Established { ca_sha256, .. } => Some(ca_sha256),
            RegisterState::Initialising { .. } => None,
        }
    }
}
