//! Stage three: a document that fits the schema becomes [`Settings`], or a list of everything that is wrong with it.

mod drift;
mod ecr;
mod images;
mod install;
mod labels;
mod patches;
mod values;

pub use values::base_url;

use super::document::{
    CloudProviderKind, Document, IdentityKind, ImagesPart, JoinPart, KubeadmPart, KubernetesPart, MetricsPart,
    NodePart, PkiPart, S3Part, TaintEntry,
};
use super::problem::Problem;
use super::settings::{
    CloudProvider, IdentitySource, ImageSettings, InstallSettings, JoinSettings, KubeadmPatches, KubernetesSettings,
    MetricsSettings, NodeSettings, PkiSettings, S3Settings, Settings, StoreLocation, Taint,
};
use super::tree::Node;
use crate::model::identity::Role;
use crate::model::names::{CaHash, ClusterName, Endpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Checks the merged document. Settings are given only when everything they need is there and right.
///
/// `doubtful` names top-level keys whose mistakes are already reported, so that they are not called missing too; when a
/// layer is `unread`, nothing is called missing, for that layer may say it.
pub fn validate(
    mut document: Document,
    tree: &Node,
    doubtful: &BTreeSet<String>,
    unread: bool,
) -> (Option<Settings>, Vec<Problem>) {
    let mut check = Check { tree, problems: Vec::new() };
    if !unread {
        check.missing(&document, doubtful);
    }
    check.for_install(&mut document);
    let settings = check.settings(document);
    (settings, check.problems)
}

/// The same for a machine that is only installed: nothing is missing, but what is there must be right. The node's
/// settings are given when they are all there.
pub fn validate_install(mut document: Document, tree: &Node) -> (InstallSettings, Option<Settings>, Vec<Problem>) {
    let mut check = Check { tree, problems: Vec::new() };
    let install = check.for_install(&mut document);
    let settings = check.settings(document);
    (install, settings, check.problems)
}

struct Check<'t> {
    tree: &'t Node,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, path: &[&str], message: impl AsRef<str>) {
        // A path inside of a value (a label's key, a taint's part) has the place of what is known above it.
        let known = (0..=path.len()).rev().find_map(|length| self.tree.at(&path[..length])).unwrap_or(self.tree);
        self.problems.push(Problem::at(&known.place, format!("`{}`: {}", path.join("."), message.as_ref())));
    }

    fn parse<T>(
        &mut self,
        path: &[&str],
        text: Option<impl AsRef<str>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(text?.as_ref()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(path, why);
                None
            }
        }
    }

    fn list<T>(
        &mut self,
        path: &[&str],
        texts: Option<Vec<String>>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (index, text) in texts.unwrap_or_default().into_iter().enumerate() {
            let index = index.to_string();
            values.extend(self.parse(&[path, &[index.as_str()]].concat(), Some(text), &parse));
        }
        values
    }

    fn missing(&mut self, document: &Document, doubtful: &BTreeSet<String>) {
        let needed = [
            ("cluster", document.cluster.is_none(), "the cluster's name, for example prod"),
            ("role", document.role.is_none(), "master or worker"),
            ("store", document.store.is_none(), "s3://bucket/prefix or file:///folder"),
        ];
        let absent: Vec<_> = needed.iter().filter(|(key, absent, _)| *absent && !doubtful.contains(*key)).collect();
        if absent.len() == needed.len() && doubtful.is_empty() {
            let keys: Vec<String> = needed.iter().map(|(key, _, what)| format!("`{key}` ({what})")).collect();
            let message =
                format!("no configuration says what this node is; three keys are needed: {}", keys.join(", "));
            let where_to = format!("write them to {}, or give a file with --config", super::sources::MAIN);
            self.problems.push(Problem::missing(message).suggest(where_to));
            return;
        }
        for (key, _, what) in absent {
            self.problems.push(Problem::missing(format!("`{key}` is not set: {what}")));
        }
        let master = document.role == Some(Role::Master);
        if master && document.control_plane_endpoint.is_none() && !doubtful.contains("control_plane_endpoint") {
            let message = "a master needs `control_plane_endpoint`: where nodes will reach the API server";
            let advice = "use a DNS name, for example api.prod.example.com:6443, so that the master can be replaced";
            self.problem(&["role"], message);
            if let Some(last) = self.problems.last_mut() {
                last.suggestion = Some(advice.to_owned());
            }
        }
    }

    /// The section `install`, and what other sections say that the machine must fit; those report their own mistakes.
    fn for_install(&mut self, document: &mut Document) -> InstallSettings {
        let cluster = document.kubernetes.as_ref().and_then(|part| part.version.clone());
        let part = document.install.take().unwrap_or_default();
        let mut install = self.install(part, cluster.as_deref());
        let kubelet = document.kubeadm.as_ref().and_then(|part| part.kubelet.as_ref());
        install.kubelet = kubelet.map(install::kubelet_needs).unwrap_or_default();
        install.sandbox = document.images.as_ref().and_then(|part| part.sandbox.clone());
        let certs_dir = document.ecr.as_ref().and_then(|part| part.certs_dir.as_deref());
        install.certs_dir = certs_dir.and_then(|text| values::absolute(text).ok());
        install
    }

    fn settings(&mut self, document: Document) -> Option<Settings> {
        let cluster = self.parse(&["cluster"], document.cluster, ClusterName::parse);
        let store = self.parse(&["store"], document.store, values::store);
        let s3 = self.s3(document.s3, store.as_ref());
        let endpoint = self.parse(&["control_plane_endpoint"], document.control_plane_endpoint, Endpoint::parse);
        let ca_pin = self.parse(&["ca_pin"], document.ca_pin, CaHash::parse);
        let pki = document.pki.and_then(|part| self.pki(part));
        let aws = document.aws.unwrap_or_default();
        let metadata_endpoint = self.parse(&["aws", "metadata_endpoint"], aws.metadata_endpoint, metadata_url);
        let ec2_endpoint = self.parse(&["aws", "ec2_endpoint"], aws.ec2_endpoint, base_url);
        let ecr_endpoint = self.parse(&["aws", "ecr_endpoint"], aws.ecr_endpoint, base_url);
        let sts_endpoint = self.parse(&["aws", "sts_endpoint"], aws.sts_endpoint, base_url);
        let ssm_endpoint = self.parse(&["aws", "ssm_endpoint"], aws.ssm_endpoint, base_url);
        let kms_endpoint = self.parse(&["aws", "kms_endpoint"], aws.kms_endpoint, base_url);
        let autoscaling_endpoint = self.parse(&["aws", "autoscaling_endpoint"], aws.autoscaling_endpoint, base_url);
        let ecr = self.ecr(document.ecr.unwrap_or_default());
        let kubernetes = self.kubernetes(document.kubernetes.unwrap_or_default());
        let node = self.node(document.node.unwrap_or_default());
        let kubeadm = self.kubeadm(document.kubeadm.unwrap_or_default());
        let join = self.join(document.join.unwrap_or_default());
        let addons = self.list(&["addons"], document.addons, values::addon);
        let images = document.images.map(|part| self.images(part));
        let drift = self.drift(document.drift.unwrap_or_default());
        let end = self.end(document.end.unwrap_or_default());
        let metrics = self.metrics(document.metrics.unwrap_or_default());
        let report_every = self.duration(&["report_every"], document.report_every, "30s", "1d");
        Some(Settings {
            cluster: cluster?,
            role: document.role?,
            store: store?,
            s3,
            control_plane_endpoint: endpoint,
            pki,
            ca_pin,
            identity: match document.identity {
                None | Some(IdentityKind::Auto) => IdentitySource::Auto,
                Some(IdentityKind::Ec2) => IdentitySource::Ec2,
                Some(IdentityKind::Host) => IdentitySource::Host,
            },
            metadata_endpoint,
            ec2_endpoint,
            ecr_endpoint,
            sts_endpoint,
            ssm_endpoint,
            kms_endpoint,
            autoscaling_endpoint,
            ecr,
            kubernetes,
            node,
            kubeadm,
            join: join?,
            addons,
            images,
            drift: drift?,
            end,
            metrics,
            report_every: report_every?,
        })
    }

    fn duration(&mut self, path: &[&str], text: Option<String>, least: &str, most: &str) -> Option<Duration> {
        self.parse(path, text, |text| values::bounded(text, least, most))
    }

    fn s3(&mut self, part: Option<S3Part>, store: Option<&StoreLocation>) -> S3Settings {
        let Some(part) = part else { return S3Settings::default() };
        if matches!(store, Some(StoreLocation::Folder(_))) {
            self.problem(&["s3"], "these options need a store s3://bucket/prefix; remove them or change `store`");
        }
        let endpoint = self.parse(&["s3", "endpoint"], part.endpoint, base_url);
        S3Settings {
            path_style: part.path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            region: self.parse(&["s3", "region"], part.region, values::region),
            kms_key_id: self.parse(&["s3", "kms_key_id"], part.kms_key_id, values::kms_key),
            expected_bucket_owner: self.parse(
                &["s3", "expected_bucket_owner"],
                part.expected_bucket_owner,
                values::account,
            ),
        }
    }

    fn pki(&mut self, part: PkiPart) -> Option<PkiSettings> {
        let said = [part.kms_key_id.is_some(), part.key_file.is_some(), part.passphrase_file.is_some()];
        if said.into_iter().filter(|said| *said).count() != 1 {
            self.problem(&["pki"], "name exactly one of `kms_key_id`, `key_file` and `passphrase_file`");
            return None;
        }
        let kms = self.parse(&["pki", "kms_key_id"], part.kms_key_id, values::kms_key).map(PkiSettings::Kms);
        let file = self.parse(&["pki", "key_file"], part.key_file, values::absolute).map(PkiSettings::KeyFile);
        let words = self.parse(&["pki", "passphrase_file"], part.passphrase_file, values::absolute);
        kms.or(file).or(words.map(PkiSettings::PassphraseFile))
    }

    fn kubernetes(&mut self, part: KubernetesPart) -> KubernetesSettings {
        let networks = |text: &str| values::networks(text).map(|networks| (text.to_owned(), networks));
        let pods = self.parse(&["kubernetes", "pod_subnet"], part.pod_subnet, networks);
        let services = self.parse(&["kubernetes", "service_subnet"], part.service_subnet, networks);
        if let (Some((pod_text, pods)), Some((service_text, services))) = (&pods, &services) {
            let shared = pods.iter().any(|pod| services.iter().any(|service| values::overlap(*pod, *service)));
            if shared {
                let message = format!("{service_text} overlaps the pod network {pod_text}");
                self.problem(&["kubernetes", "service_subnet"], message);
            }
        }
        KubernetesSettings {
            version: self.parse(&["kubernetes", "version"], part.version, values::version),
            pod_subnet: pods.map(|(text, _)| text),
            service_subnet: services.map(|(text, _)| text),
            dns_domain: self.parse(&["kubernetes", "dns_domain"], part.dns_domain, values::dns_name),
            image_repository: self.parse(
                &["kubernetes", "image_repository"],
                part.image_repository,
                values::image_repository,
            ),
            cert_sans: self.list(&["kubernetes", "cert_sans"], part.cert_sans, values::cert_san),
        }
    }

    fn node(&mut self, part: NodePart) -> NodeSettings {
        NodeSettings {
            name: self.parse(&["node", "name"], part.name, values::dns_name),
            address: self.parse(&["node", "address"], part.address, values::node_address),
            labels: self.labels(part.labels.unwrap_or_default()),
            taints: part.taints.map(|taints| self.taints(taints)),
            cri_socket: self.parse(&["node", "cri_socket"], part.cri_socket, values::cri_socket),
            cloud_provider: match part.cloud_provider {
                None | Some(CloudProviderKind::None) => CloudProvider::None,
                Some(CloudProviderKind::External) => CloudProvider::External,
            },
        }
    }

    fn labels(&mut self, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for (key, value) in &labels {
            let path = ["node", "labels", key.as_str()];
            self.parse(&path, Some(key), labels::label_key);
            self.parse(&path, Some(value), labels::label_value);
        }
        labels
    }

    fn taints(&mut self, entries: Vec<TaintEntry>) -> Vec<Taint> {
        let mut taints: Vec<Taint> = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let index = index.to_string();
            let path = ["node", "taints", index.as_str()];
            let parsed = match entry {
                TaintEntry::Text(text) => labels::taint(&text),
                TaintEntry::Parts(parts) => {
                    let part = |part: Option<String>| part.unwrap_or_default();
                    labels::taint_of(&part(parts.key), &part(parts.value), &part(parts.effect))
                }
            };
            match parsed {
                // The API server refuses a node with two taints of one key and effect.
                Ok(taint) if taints.iter().any(|old| old.key == taint.key && old.effect == taint.effect) => {
                    self.problem(&path, format!("a second taint {}:{}", taint.key, taint.effect));
                }
                Ok(taint) => taints.push(taint),
                Err(why) => self.problem(&path, why),
            }
        }
        taints
    }

    fn kubeadm(&mut self, part: KubeadmPart) -> KubeadmPatches {
        if let Some(kubeadm) = self.tree.at(&["kubeadm"]) {
            self.problems.extend(patches::check(kubeadm));
        }
        KubeadmPatches {
            init: part.init.unwrap_or_default(),
            cluster: part.cluster.unwrap_or_default(),
            join: part.join.unwrap_or_default(),
            kubelet: part.kubelet.unwrap_or_default(),
            kube_proxy: part.kube_proxy.unwrap_or_default(),
        }
    }

    fn join(&mut self, part: JoinPart) -> Option<JoinSettings> {
        let wait = self.duration(&["join", "wait"], part.wait, "10s", "30d");
        // Under 10 minutes a token could die between publication and join; over a day it is a standing invitation.
        let token_ttl = self.duration(&["join", "token_ttl"], part.token_ttl, "10m", "1d");
        let api_wait = self.duration(&["join", "api_wait"], part.api_wait, "10s", "30d");
        Some(JoinSettings { wait: wait?, token_ttl: token_ttl?, api_wait: api_wait? })
    }

    fn images(&mut self, part: ImagesPart) -> ImageSettings {
        ImageSettings {
            pull: self.list(&["images", "pull"], part.pull, images::image),
            sandbox: self.parse(&["images", "sandbox"], part.sandbox, images::image),
        }
    }

    fn metrics(&mut self, part: MetricsPart) -> MetricsSettings {
        let remote = part.allow_remote.unwrap_or(false);
        let textfile = self.parse(&["metrics", "textfile"], part.textfile, values::textfile);
        let before = self.problems.len();
        let listen = self.parse(&["metrics", "listen"], part.listen, |text| values::listen(text, remote));
        if let Some(problem) = self.problems.get_mut(before).filter(|problem| problem.message.contains("reached by")) {
            problem.suggestion = Some("use 127.0.0.1, or say `metrics: {allow_remote: true}`".to_owned());
        }
        MetricsSettings { textfile, listen }
    }
}

/// IMDS is link-local and speaks plain HTTP only.
fn metadata_url(text: &str) -> Result<String, String> {
    let url = base_url(text)?;
    if url.starts_with("https://") { Err(format!("{text:?}: the metadata service speaks http only")) } else { Ok(url) }
}

#[cfg(test)]
mod tests;
