//! kubeadm: the documents it is given, its runs as jobs, what they leave on a machine, and how that is undone.

pub mod certificates;
pub mod documents;
pub mod machine;
pub mod manifests;
pub mod output;
pub mod reset;
pub mod run;
pub mod tools;
