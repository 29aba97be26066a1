//! The static pods of a control plane: their manifests, and the annotation that has the kubelet start one anew.

use crate::kubeadm::machine::MANIFESTS;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{FileKind, Files};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The annotation that tells which certificates a static pod was started with. The kubelet starts a pod anew when its
/// manifest changed.
pub const ANNOTATION: &str = "kubestrap.io/certificates";
/// A manifest is some KiB.
const MAX_MANIFEST: u64 = 1024 * 1024;
/// What comes first, in this order: each needs the one before.
const ORDER: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// A static pod that uses files below /etc/kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its file.
    pub path: PathBuf,
    /// The pod's name, without the node's.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The certificates it was started with, when we started it.
    pub certificates: Option<String>,
    mode: u32,
    text: String,
}

impl Manifest {
    /// Those on this machine: etcd and the API server first. A pod that has nothing to do with certificates is left out, and so
    /// is a file that is no pod: the kubelet complains of that.
    pub fn read_all(files: &dyn Files) -> Outcome<Vec<Manifest>> {
        let mut found = Vec::new();
        for file in files.list(Path::new(MANIFESTS))? {
            let path = Path::new(MANIFESTS).join(&file);
            // The kubelet reads every file without a dot in front.
            let Some(info) = files.stat(&path)?.filter(|info| info.kind == FileKind::File && !file.starts_with('.'))
            else {
                continue;
            };
            let Some(body) = files.read(&path, MAX_MANIFEST)? else { continue };
            let Ok(text) = String::from_utf8(body) else { continue };
            found.extend(Manifest::parse(path, info.mode, text));
        }
        let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
        found.sort_by_key(|manifest| (place(&manifest.name), manifest.path.clone()));
        Ok(found)
    }

    fn parse(path: PathBuf, mode: u32, text: String) -> Option<Manifest> {
        let pod: Value = serde_saphyr::from_str(&text).ok()?;
        let word = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array)?;
        let host = |volume: &Value| volume.pointer("/hostPath/path").and_then(Value::as_str).map(str::to_owned);
        let ours = volumes.iter().filter_map(host).any(|path| Path::new(&path).starts_with("/etc/kubernetes"));
        ours.then_some(())?;
        Some(Manifest {
            name: word("/metadata/name")?,
            namespace: word("/metadata/namespace").unwrap_or_else(|| "default".to_owned()),
            certificates: pod
                .get("metadata")?
                .get("annotations")
                .and_then(|all| all.get(ANNOTATION))
                .and_then(Value::as_str)
                .map(str::to_owned),
            path,
            mode,
            text,
        })
    }

    /// Has the kubelet start the pod anew, with these certificates. The file is replaced in one step and keeps its mode.
    pub fn restart(&self, files: &dyn Files, certificates: &str) -> Outcome<()> {
        let text = annotated(&self.text, certificates).map_err(|why| {
            Failure::new(Cause::ForeignState, format!("annotate {}", self.path.display()), why)
                .advise("write the manifest as kubeadm does, or restart the pod yourself: move the file away and back")
        })?;
        files.write(&self.path, text.as_bytes(), self.mode)
    }
}

/// The manifest with the annotation, every other byte as it was; as JSON, which is YAML too, when its form is another than
/// kubeadm's. What it says but for the annotation is the same, or it is an error.
fn annotated(text: &str, value: &str) -> Result<String, String> {
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).map_err(|error| format!("it is no YAML: {error}"));
    let mut wanted = parse(text)?;
    let metadata = wanted.get_mut("metadata").and_then(Value::as_object_mut).ok_or("it has no metadata")?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut().ok_or("its annotations are no map")?.insert(ANNOTATION.to_owned(), value.into());
    match insert(text, value).filter(|edited| parse(edited).as_ref() == Ok(&wanted)) {
        Some(edited) => Ok(edited),
        None => serde_json::to_string_pretty(&wanted).map_err(|error| error.to_string()),
    }
}

/// The line put where kubeadm's form has it.
fn insert(text: &str, value: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let metadata = lines.iter().position(|line| line.trim_end() == "metadata:")?;
    let length = lines[metadata + 1..].iter().take_while(|line| !says(line) || indent(line) > 0).count();
    let block = &lines[metadata + 1..metadata + 1 + length];
    let inner = block.iter().find(|line| says(line)).map(|line| indent(line))?;
    let heading = block.iter().position(|line| indent(line) == inner && line.trim() == "annotations:");
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    match heading {
        None => {
            out.insert(metadata + 1, format!("{:inner$}annotations:", ""));
            out.insert(metadata + 2, format!("{:inner$}  {ANNOTATION}: \"{value}\"", ""));
        }
        Some(at) => {
            let entries: Vec<usize> =
                (at + 1..block.len()).take_while(|i| !says(&block[*i]) || indent(block[*i]) > inner).collect();
            let depth = entries.iter().find(|i| says(&block[**i])).map_or(inner + 2, |i| indent(block[*i]));
            let line = format!("{:depth$}{ANNOTATION}: \"{value}\"", "");
            let known = |i: &&usize| block[**i].trim_start().starts_with(&format!("{ANNOTATION}:"));
            match entries.iter().find(known) {
                Some(i) => out[metadata + 1 + i] = line,
                None => out.insert(metadata + 2 + at, line),
            }
        }
    }
    Some(out.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kubeadm writes it.
    const ETCD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.1:2379\n  labels:\n    component: etcd\n  name: etcd\n  namespace: kube-system\nspec:\n  containers:\n  - command:\n    - etcd\n    env:\n    - name: SWITCH\n      value: \"on\"\n  volumes:\n  - hostPath:\n      path: /etc/kubernetes/pki/etcd\n    name: etcd-certs\n";
    const SCHEDULER: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    component: kube-scheduler\n  name: kube-scheduler\n  namespace: kube-system\nspec:\n  volumes:\n  - hostPath:\n      path: /etc/kubernetes/scheduler.conf\n    name: kubeconfig\nstatus: {}\n";

    #[test]
    fn one_line_changes_and_nothing_else() {
        let once = annotated(ETCD, "0123").expect("edited");
        let added: Vec<&str> = once.lines().filter(|line| !ETCD.lines().any(|known| known == *line)).collect();
        assert_eq!(added, ["    kubestrap.io/certificates: \"0123\""]);
        assert_eq!(once.lines().count(), ETCD.lines().count() + 1);
        let twice = annotated(&once, "4567").expect("edited");
        assert_eq!(twice, once.replace("0123", "4567"));
        let scheduler = annotated(SCHEDULER, "0123").expect("edited");
        assert!(
            scheduler.contains("metadata:\n  annotations:\n    kubestrap.io/certificates: \"0123\"\n  labels:\n"),
            "{scheduler}"
        );
    }

    #[test]
    fn another_form_says_the_same_afterwards() {
        let value = |text: &str| serde_saphyr::from_str::<Value>(text).expect("YAML");
        for odd in [
            "{\"apiVersion\": \"v1\", \"metadata\": {\"name\": \"x\"}, \"spec\": {\"on\": \"yes\"}}",
            "metadata: {name: x, annotations: {a: \"on\"}}\nspec: {}\n",
            "metadata:\n  annotations: {a: b}\n  name: x\n",
            "metadata:\n  name: x\n  annotations:\n",
            "# first\nmetadata: # why\n  name: x\n",
        ] {
            let edited = annotated(odd, "07").expect(odd);
            let mut expected = value(odd);
            let annotations = &mut expected["metadata"]["annotations"];
            if annotations.is_null() {
                *annotations = json!({});
            }
            annotations[ANNOTATION] = "07".into();
            assert_eq!(value(&edited), expected, "{odd}");
        }
        assert!(annotated("kind: Pod\n", "1").is_err());
        assert!(annotated(": :\n  - {", "1").is_err());
    }

    #[test]
    fn pods_without_certificates_are_not_among_them() {
        let parse = |text: &str| Manifest::parse("/x.yaml".into(), 0o600, text.to_owned());
        let etcd = parse(&annotated(ETCD, "ab").expect("edited")).expect("a pod");
        assert_eq!((etcd.name.as_str(), etcd.certificates.as_deref()), ("etcd", Some("ab")));
        assert_eq!(parse(SCHEDULER).and_then(|pod| pod.certificates), None);
        assert_eq!(parse(&SCHEDULER.replace("/etc/kubernetes/", "/etc/other/")), None);
        assert_eq!(parse("kind: Pod\n"), None);
        assert_eq!(parse("no: [yaml"), None);
    }
}
