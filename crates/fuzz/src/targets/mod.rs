//! The targets. A new one: a function here, its line in [`TARGETS`], and two inputs at least in `corpus/<name>/`.

mod config;
mod ecr;
mod machine;
mod node;
mod outside;
mod store;

/// A parser under attack.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Who wrote the bytes.
    pub about: &'static str,
    /// Panics when a property is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub static TARGETS: &[Target] = &[
    Target { name: "config", about: "a configuration file", run: config::file },
    Target { name: "variable", about: "KUBESTRAP_* in the environment: name, newline, value", run: config::variable },
    Target { name: "user_data", about: "EC2 user-data: MIME, gzip, YAML, anything", run: config::user_data },
    Target {
        name: "kubeadm_patch",
        about: "the `kubeadm` key: patches of kubeadm's documents",
        run: config::kubeadm_patch,
    },
    Target { name: "register", about: "cluster.json in the bucket", run: store::register },
    Target { name: "bundle", about: "join/worker.json in the bucket", run: store::bundle },
    Target { name: "report", about: "a node's report in the bucket", run: store::report },
    Target { name: "names", about: "a name, endpoint, hash, token or version from any of them", run: store::names },
    Target { name: "imds", about: "answers of the metadata service", run: outside::imds },
    Target { name: "api", about: "answers of the Kubernetes API", run: outside::api },
    Target { name: "node", about: "every file, object and answer that a node sees, at once", run: node::everything },
    Target { name: "manifest", about: "an addon's manifest", run: outside::manifest },
    Target { name: "certificate", about: "a PEM file on the machine", run: machine::certificate },
    Target { name: "journal", about: "the journal after a crash, or after an editor", run: machine::journal },
    Target { name: "kubeadm_output", about: "what kubeadm prints", run: machine::kubeadm_output },
    Target { name: "ecr_request", about: "what the kubelet asks its plugin for ECR", run: ecr::request },
    Target { name: "ecr_image", about: "an image whose registry gets a login, or none", run: ecr::image },
    Target { name: "ecr_token", about: "authorization data of ECR", run: ecr::token },
    Target { name: "ecr_cache", about: "a file of the cache of logins", run: ecr::cache },
    Target {
        name: "ecr_provider_config",
        about: "the kubelet's configuration of its plugins",
        run: ecr::provider_config,
    },
];

/// The input as text; what is no UTF-8 is replaced, as every reader of ours does with text that it only shows.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a terminal obeys; lines and tabs are for people.
fn is_obeyed(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// An error is for a person: it says something, in some lines, and no control character reaches a terminal.
fn is_readable(error: &kubestrap_core::model::cause::Failure) {
    let said = error.to_string();
    assert!(!said.trim().is_empty(), "an error without words");
    assert!(said.len() < 64 * 1024, "an error of {} bytes", said.len());
    assert!(!said.contains(is_obeyed), "an error with control characters: {said:?}");
}
