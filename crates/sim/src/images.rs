//! A model of containerd's images as `ctr` shows them: rows on the disk, which a job adds or labels.

use crate::disk::Disk;
use crate::kubeadm::{Next, Phase, Run};
use crate::universe::Universe;
use kubestrap_core::config::settings::ImageSettings;
use kubestrap_core::image::containerd::PINNED;
use kubestrap_core::ports::ToolOutput;
use std::rc::Rc;
use std::time::Duration;

/// containerd's data base: a file an image, with its labels.
const IMAGES: &str = "/var/lib/containerd/images";
const SANDBOX: &str = "registry.k8s.io/pause:3.10";
const AGENT: &str = "registry.example.com/team/agent:1.4";

/// What the machines of a scenario with images are told.
pub fn wanted() -> ImageSettings {
    ImageSettings { pull: vec![AGENT.to_owned()], sandbox: Some(SANDBOX.to_owned()) }
}

/// The answer of a short program that is about images; `None` when this one is about something else.
pub fn answer(universe: &Universe, machine: usize, argv: &[String]) -> Option<ToolOutput> {
    let stdout = match argv.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ctr", "--address", _, "--namespace", "k8s.io", "images", "list", filter] => {
            let reference = filter.strip_prefix("name==")?;
            let labels = universe.machines[machine].state.borrow().disk.text(place(reference));
            let row = labels.map(|labels| format!("{reference} type sha256:0 1 KiB linux/amd64 {labels}\n"));
            format!("REF TYPE DIGEST SIZE PLATFORMS LABELS\n{}", row.unwrap_or_default())
        }
        ["kubeadm", "config", "images", "list", "--kubernetes-version", version] => {
            format!("registry.k8s.io/kube-apiserver:{version}\nregistry.k8s.io/kube-proxy:{version}\n")
        }
        _ => return None,
    };
    Some(ToolOutput { code: Some(0), stdout, stderr: String::new() })
}

fn place(reference: &str) -> String {
    format!("{IMAGES}/{reference}")
}

/// What a job of `ctr` does; nothing for one that containerd would refuse.
pub fn phases(argv: &[String]) -> &'static [Phase] {
    const PULL: &[Phase] = &[("pull", Duration::from_secs(4), pull)];
    const LABEL: &[Phase] = &[("label", Duration::from_millis(50), label)];
    match argv.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ctr", "--address", _, "--namespace", "k8s.io", "images", "pull", "--hosts-dir", _, _] => PULL,
        ["ctr", "--address", _, "--namespace", "k8s.io", "images", "label", _, PINNED] => LABEL,
        _ => &[],
    }
}

fn pull(universe: &Rc<Universe>, run: &Run) -> Next {
    let Some(reference) = run.flags.last() else { return Next::Fail("which image?".to_owned()) };
    universe.count("image-pulls");
    // Whatever labels it had, a pull writes the row anew.
    let mut state = universe.machines[run.machine].state.borrow_mut();
    state.disk.put(place(reference), "io.cri-containerd.image=managed", 0o600);
    Next::Phase
}

fn label(universe: &Rc<Universe>, run: &Run) -> Next {
    let reference = run.flags.get(7).map(String::as_str).unwrap_or_default();
    let mut state = universe.machines[run.machine].state.borrow_mut();
    let Some(labels) = state.disk.text(place(reference)) else {
        return Next::Fail(format!("image {reference:?}: not found"));
    };
    state.disk.put(place(reference), format!("{labels},{PINNED}"), 0o600);
    universe.count("image-pins");
    Next::Phase
}

/// The images of a disk, with what holds them.
pub fn facts(disk: &Disk) -> impl Iterator<Item = String> {
    let images = disk.items().filter_map(|(path, item)| {
        let reference = path.strip_prefix(IMAGES).ok()?;
        Some(format!("image {} {}", reference.display(), String::from_utf8_lossy(&item.body)))
    });
    images.collect::<Vec<_>>().into_iter()
}
