//! Stand-ins for tests and the demo. Nothing here is for production, and nothing here depends on `kubestrap-core`: it
//! judges kubestrap from outside, by the documents and files the real programs would see.
//!
//! - [`kubeadm`]: a `kubeadm` that is as strict as the real one, and [`apiserver`], the API server it starts;
//! - [`autoscaling`]: lifecycle actions that wait for their completion;
//! - [`balancer`]: a load balancer before API servers;
//! - [`ctr`]: containerd's client, with images that are rows in a file;
//! - [`ecr`]: ECR's API with tokens that die soon, before a real registry;
//! - [`etcd`]: the members of a cluster, and what etcd lets be done with them;
//! - [`imds`]: an instance metadata service, version 2;
//! - [`s3stub`]: an S3 that answers as badly as it is told to;
//! - [`moto`]: moto's server, installed into a virtual environment and started on a free port.

pub mod apiserver;
pub mod autoscaling;
pub mod balancer;
pub mod client;
pub mod ctr;
pub mod ecr;
pub mod etcd;
pub mod files;
pub mod golang;
pub mod http;
pub mod imds;
pub mod jws;
pub mod kubeadm;
pub mod moto;
pub mod pki;
pub mod ports;
pub mod s3stub;
pub mod script;
pub mod tls;
