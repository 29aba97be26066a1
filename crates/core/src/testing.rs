//! What unit tests of several modules need: settings, identities, a world that refuses everything.

pub mod api;

use crate::config::settings::{JoinSettings, Settings, StoreLocation};
use crate::model::cause::{Cause, Failure};
use crate::model::identity::{Identity, Origin, Role};
use crate::model::names::{ClusterName, Endpoint};
use crate::node::{Node, Silent};
use crate::ports::{Files, Jobs};
use crate::store::fake::Lab;
use crate::store::gone::tests::Ec2Says;
use crate::world::{Ports, World};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

/// Minimal settings; `lines` holds `role: …` and optionally `control_plane_endpoint: …`.
pub fn settings(lines: &str) -> Settings {
    let value = |key: &str| lines.lines().find_map(|line| line.strip_prefix(key).map(|rest| rest.trim().to_owned()));
    Settings {
        cluster: ClusterName::parse("test").expect("name"),
        role: if value("role:").as_deref() == Some("master") { Role::Master } else { Role::Worker },
        store: StoreLocation::Folder("/store".into()),
        s3: Default::default(),
        control_plane_endpoint: value("control_plane_endpoint:").map(|text| Endpoint::parse(&text).expect("endpoint")),
        ca_pin: None,
        pki: None,
        identity: Default::default(),
        metadata_endpoint: None,
        ec2_endpoint: None,
        ecr_endpoint: None,
        sts_endpoint: None,
        ssm_endpoint: None,
        autoscaling_endpoint: None,
        kms_endpoint: None,
        ecr: Default::default(),
        kubernetes: Default::default(),
        node: Default::default(),
        kubeadm: Default::default(),
        join: JoinSettings {
            wait: Duration::from_secs(3600),
            token_ttl: Duration::from_secs(3600),
            api_wait: Duration::from_secs(1800),
        },
        addons: Vec::new(),
        images: None,
        drift: Default::default(),
        end: Default::default(),
        metrics: Default::default(),
        report_every: Duration::from_secs(300),
    }
}

/// A bare-metal machine of this name.
pub fn identity(name: &str) -> Identity {
    Identity {
        origin: Origin::Host { machine_id: format!("{name}-0123456789") },
        node_name: name.to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        provider_id: None,
        labels: BTreeMap::new(),
    }
}

/// A node that has an API server, jobs and a disk; its other ports refuse. A new one over the same is a new life.
pub fn node(settings: Settings, server: &Rc<api::Server>, jobs: &Rc<dyn Jobs>, files: &Rc<dyn Files>) -> Node {
    let none = Rc::new(Ec2Says(Err(Failure::new(Cause::Internal, "call a port", "this test has none"))));
    let ports = Ports {
        objects: Lab::new().objects,
        files: files.clone(),
        jobs: jobs.clone(),
        metadata: none.clone(),
        cloud: none.clone(),
        cluster: server.clone(),
        vault: Rc::new(crate::ports::Nobody),
        etcd: Rc::new(crate::ports::Nobody),
        host: none,
        time: server.time.clone(),
    };
    let world = World::new(ports, server.clone(), Rc::new(Silent));
    Node::new(Rc::new(settings), Rc::new(identity(api::NODE)), world)
}

/// Jobs that refuse.
pub fn no_jobs() -> Rc<dyn Jobs> {
    Rc::new(Ec2Says(Err(Failure::new(Cause::Internal, "call a port", "this test has none"))))
}
