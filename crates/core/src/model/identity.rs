//! Who this machine is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the node's `role` in the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the control plane and publishes the join bundle.
    Master,
    /// Joins with the bundle.
    Worker,
}

impl Role {
    /// The word used in configuration and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Worker => "worker",
        }
    }
}

/// An EC2 instance, from its instance identity document and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ec2 {
    /// `i-…`
    pub instance_id: String,
    /// Twelve digits.
    pub account: String,
    /// For example `eu-west-1`.
    pub region: String,
    /// For example `aws`, `aws-cn`, `aws-us-gov`; part of the ARN.
    pub partition: String,
    /// For example `eu-west-1a`.
    pub zone: String,
    /// For example `m7g.large`.
    pub instance_type: String,
    /// The image it was started from, `ami-…`.
    pub image_id: String,
}

impl Ec2 {
    /// `arn:<partition>:ec2:<region>:<account>:instance/<id>`, as `${ec2:SourceInstanceARN}` has it in policies.
    pub fn arn(&self) -> String {
        format!("arn:{}:ec2:{}:{}:instance/{}", self.partition, self.region, self.account, self.instance_id)
    }
}

/// Where the identity came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    /// From IMDSv2.
    Ec2(Ec2),
    /// From the host itself.
    Host {
        /// `/etc/machine-id`.
        machine_id: String,
    },
}

/// Who this machine is, and what follows from it for the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// EC2 or host.
    pub origin: Origin,
    /// The Kubernetes node name.
    pub node_name: String,
    /// The address the kubelet and the API server use.
    pub address: IpAddr,
    /// `aws:///<zone>/<instance id>` on EC2, nothing elsewhere.
    pub provider_id: Option<String>,
    /// Labels that follow from the identity: zone, region, instance type.
    pub labels: BTreeMap<String, String>,
}

impl Identity {
    /// The key of this machine in the store (`nodes/<identity>/`) and the owner of its state: the whole instance ARN
    /// on EC2, so that a policy can confine a node to its own report; `machine-<machine-id>` elsewhere.
    pub fn key(&self) -> String {
        match &self.origin {
            Origin::Ec2(ec2) => ec2.arn(),
            Origin::Host { machine_id } => format!("machine-{machine_id}"),
        }
    }

    /// The EC2 part, when there is one.
    pub fn ec2(&self) -> Option<&Ec2> {
        match &self.origin {
            Origin::Ec2(ec2) => Some(ec2),
            Origin::Host { .. } => None,
        }
    }
}
