//! `programs`: the components' files in their places.

use super::{CACHE, Item, Job, Staged, State, Step, files};
use crate::baked::{BakedProgram, KeptFile, Origin};
use crate::catalog::{Artifact, Component, Member, placements};
use crate::host::Seen;
use async_trait::async_trait;
use kubestrap_core::model::cause::Outcome;

/// Fetches what is missing, all of it at once, and places it.
pub struct Programs;

#[async_trait(?Send)]
impl Step for Programs {
    fn name(&self) -> &'static str {
        "programs"
    }

    fn describe(&self) -> &'static str {
        "fetch, verify and place containerd, runc, the CNI plugins, crictl, kubeadm, kubelet and kubectl"
    }

    async fn check(&self, job: &Job<'_>) -> Outcome<Vec<Item>> {
        let mut items = Vec::new();
        for artifact in &job.artifacts {
            let found = look(job, artifact)?;
            if found.iter().any(|item| item.state == State::Wanted) {
                job.supply.check(std::slice::from_ref(artifact))?;
            }
            items.extend(found);
        }
        items.extend(kept_runtime(job)?);
        Ok(items)
    }

    async fn apply(&self, job: &Job<'_>) -> Outcome<()> {
        let mut missing = Vec::new();
        for artifact in &job.artifacts {
            if look(job, artifact)?.iter().any(|item| item.state == State::Wanted) {
                missing.push(artifact.clone());
            }
        }
        let cache = job.host.make_private_folder(CACHE)?;
        let staged = job.supply.stage(&missing, &cache).await?;
        let mut wanted = Vec::new();
        for file in &staged {
            if judge(job, file)?.state == State::Wanted {
                wanted.push(file);
            }
        }
        let announced: Vec<_> = wanted.iter().map(|file| (file.to.clone(), file.sha256.clone())).collect();
        job.ledger.borrow_mut().announce(&job.host, &announced)?;
        for file in wanted {
            job.host.place(&file.from, &file.to, file.mode)?;
        }
        for artifact in &missing {
            let of_it = staged.iter().filter(|file| file.component == artifact.component);
            let files = of_it.map(|file| (file.to.clone(), file.sha256.clone())).collect();
            job.ledger.borrow_mut().record(artifact, job.supply.origin(artifact), files);
        }
        Ok(())
    }
}

fn judge(job: &Job<'_>, file: &Staged) -> Outcome<Item> {
    let seen = job.host.look(&file.to)?;
    let is_ours = matches!(&seen, Seen::File { sha256, .. } if job.ledger.borrow().is_ours(&file.to, sha256));
    Ok(files::judge(&file.to, &seen, (&file.sha256, file.mode), is_ours, job.replace))
}

/// What is to be done for one released file, without having it: a program that is released as it is has the digest of
/// its file; what was in an archive is known from the manifest.
fn look(job: &Job<'_>, artifact: &Artifact) -> Outcome<Vec<Item>> {
    let title = format!("{} {}", artifact.component, artifact.version);
    if let [placement] = placements(artifact.component)
        && placement.member == Member::Whole
    {
        let file = Staged {
            component: artifact.component,
            from: Default::default(),
            to: placement.to.to_owned(),
            mode: placement.mode,
            sha256: artifact.sha256.clone(),
        };
        return Ok(vec![titled(&title, &judge(job, &file)?)]);
    }
    let files = job.ledger.borrow().files_of(artifact);
    if files.is_empty() {
        return Ok(vec![Item::wanted(&title, format!("it is not installed; to {}", places(artifact.component)))]);
    }
    let again = |(path, sha256): &(String, String)| {
        let seen = job.host.look(path)?;
        let is_ours = matches!(&seen, Seen::File { sha256: is, .. } if job.ledger.borrow().is_ours(path, is));
        Ok(files::judge(path, &seen, (sha256, 0o755), is_ours, job.replace))
    };
    let items: Vec<Item> = files.iter().map(again).collect::<Outcome<_>>()?;
    let (done, others): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.state == State::Done);
    let mut rows: Vec<Item> = others.iter().map(|item| titled(&title, item)).collect();
    if !done.is_empty() && rows.iter().all(|row| row.state != State::Wanted) {
        rows.insert(0, Item::done(title, format!("{} files in {}", done.len(), places(artifact.component))));
    }
    Ok(rows)
}

fn titled(title: &str, item: &Item) -> Item {
    Item::new(title, item.state.clone(), format!("{}: {}", item.what, item.why))
}

fn places(component: Component) -> String {
    let mut folders: Vec<&str> = placements(component)
        .iter()
        .map(|placement| match placement.member {
            Member::TopLevel => placement.to,
            _ => placement.to.rsplit_once('/').map_or("/", |(folder, _)| folder),
        })
        .collect();
    folders.dedup();
    folders.join(", ")
}

/// What somebody else installed and is used.
fn kept_runtime(job: &Job<'_>) -> Outcome<Option<Item>> {
    let super::Runtime::Kept { path, version } = &job.runtime else { return Ok(None) };
    let version = version.as_deref().unwrap_or("of an unknown version");
    Ok(Some(Item::done("containerd", format!("{path} ({version}) is used, for somebody else installed it"))))
}

/// What the manifest says of the programs: those that were placed, those that stayed, and a kept container runtime.
pub(super) fn baked(job: &Job<'_>) -> Outcome<(Vec<BakedProgram>, Vec<KeptFile>)> {
    let ledger = job.ledger.borrow();
    let (mut programs, mut kept) = (Vec::new(), Vec::new());
    for artifact in &job.artifacts {
        let origin = ledger.origin(artifact).unwrap_or_else(|| Origin::of(artifact, job.supply.origin(artifact)));
        let mut files = ledger.files_of(artifact);
        if files.is_empty() {
            let whole = placements(artifact.component).iter().filter(|one| one.member == Member::Whole);
            files.extend(whole.map(|one| (one.to.to_owned(), artifact.sha256.clone())));
        }
        for (path, sha256) in files {
            match job.host.look(&path)? {
                Seen::File { sha256: is, .. } if is == sha256 => programs.push(BakedProgram {
                    name: artifact.component.label().to_owned(),
                    version: artifact.version.clone(),
                    path,
                    sha256,
                    placed: Some(true),
                    from: Some(origin.clone()),
                    more: Default::default(),
                }),
                _ => kept.push(KeptFile { path, instead_of: sha256, component: artifact.component.label().to_owned() }),
            }
        }
    }
    if let super::Runtime::Kept { path, version } = &job.runtime
        && let Seen::File { sha256, .. } = job.host.look_behind(path)?
    {
        programs.push(BakedProgram {
            name: Component::Containerd.label().to_owned(),
            version: version.clone().unwrap_or_else(|| "unknown".to_owned()),
            path: path.clone(),
            sha256,
            placed: Some(false),
            from: None,
            more: Default::default(),
        });
    }
    Ok((programs, kept))
}
