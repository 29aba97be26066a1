//! The logins that containerd reads on this machine: which hosts need one, and whose file is there.

use super::hosts_toml::{self, Owner, Times};
use crate::config::settings::Settings;
use crate::ecr::host::{Api, Registry};
use crate::model::cause::Outcome;
use crate::model::identity::Identity;
use crate::model::secret::Secret;
use crate::ports::{FileKind, Files};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Hosts whose pulls need a login, by the API that gives it: the registry of the own account and region on EC2, those
/// that are listed, and mirrors under the name that the user wrote. None where credentials are switched off, or where the
/// configuration names another runtime.
pub fn targets(settings: &Settings, identity: &Identity) -> BTreeMap<Api, Vec<String>> {
    let mut targets = BTreeMap::<Api, BTreeSet<String>>::new();
    let is_other = |socket: &String| !socket.contains("containerd");
    if settings.ecr.is_on(identity) && !settings.node.cri_socket.as_ref().is_some_and(is_other) {
        let own = identity.ec2().and_then(|ec2| Registry::private(&ec2.account, &ec2.region));
        let listed = own.iter().chain(&settings.ecr.registries).map(|registry| (registry.host().to_owned(), registry));
        let mirrors = settings.ecr.mirrors.iter().map(|(host, registry)| (host.clone(), registry));
        for (host, registry) in listed.chain(mirrors) {
            targets.entry(registry.api().clone()).or_default().insert(host);
        }
    }
    targets.into_iter().map(|(api, hosts)| (api, hosts.into_iter().collect())).collect()
}

/// What is at a host's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing, or a folder with CA certificates that a file of ours must name.
    Free {
        /// Their paths.
        authorities: Vec<String>,
    },
    /// A file of ours, with the CA certificates beside it.
    Ours {
        /// Its times, when they can be read.
        times: Option<Times>,
        /// Paths of certificates.
        authorities: Vec<String>,
    },
    /// Somebody else's, and what it is: left alone.
    Foreign(String),
}

impl State {
    /// When a new login is due and the old one ends, of a login that lives.
    pub fn living(&self, now: Timestamp) -> Option<Times> {
        match self {
            State::Ours { times, .. } => times.filter(|times| times.expires_at > now),
            _ => None,
        }
    }
}

/// A host's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// The host, with its port when it has one.
    pub host: String,
    /// Where containerd reads it.
    pub path: PathBuf,
    /// What is there.
    pub state: State,
}

/// Looks at a host's place. containerd reads the first folder that exists of those a host can have.
///
/// # Errors
/// Of reading the machine.
pub fn find(files: &dyn Files, certs_dir: &Path, host: &str) -> Outcome<HostFile> {
    let folders: Vec<PathBuf> = hosts_toml::folders(host).iter().map(|name| certs_dir.join(name)).collect();
    let mut folder = folders[0].clone();
    for candidate in folders {
        if files.stat(&candidate)?.is_some() {
            folder = candidate;
            break;
        }
    }
    let path = folder.join(hosts_toml::NAME);
    let state = state(files, &folder, &path)?;
    Ok(HostFile { host: host.to_owned(), path, state })
}

fn state(files: &dyn Files, folder: &Path, path: &Path) -> Outcome<State> {
    let shown = path.display();
    let names = files.list(folder)?;
    let with = |end: &str| names.iter().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
    let authorities: Vec<String> =
        with(".crt").iter().map(|name| folder.join(name).to_string_lossy().into_owned()).collect();
    match files.stat(path)? {
        Some(info) if info.kind != FileKind::File => Ok(State::Foreign(format!("{shown} is not a regular file"))),
        Some(_) => match files.read(path, hosts_toml::MAX)?.as_deref().map(hosts_toml::owner) {
            Some(Owner::Ours(times)) => Ok(State::Ours { times, authorities }),
            Some(Owner::Foreign) => Ok(State::Foreign(format!("{shown} is not kubestrap's"))),
            None => Ok(State::Free { authorities }),
        },
        // containerd takes these only while there is no hosts.toml.
        None if !with(".cert").is_empty() || !with(".key").is_empty() => {
            Ok(State::Foreign(format!("{} holds client certificates", folder.display())))
        }
        None => Ok(State::Free { authorities }),
    }
}

/// Writes a login, unless the place is somebody else's.
///
/// # Errors
/// Of writing.
pub fn write(files: &dyn Files, file: &HostFile, basic: &Secret, times: Times) -> Outcome<()> {
    let authorities = match &file.state {
        State::Foreign(_) => return Ok(()),
        State::Free { authorities } | State::Ours { authorities, .. } => authorities,
    };
    let text = hosts_toml::render(&file.host, basic, times, authorities);
    files.write(&file.path, text.expose().as_bytes(), hosts_toml::MODE)
}

/// Every file of ours in the folder, in the order of their names.
///
/// # Errors
/// Of reading the machine.
pub fn all_ours(files: &dyn Files, certs_dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut ours = Vec::new();
    for name in files.list(certs_dir)? {
        let path = certs_dir.join(name).join(hosts_toml::NAME);
        if files.stat(&path)?.is_none_or(|info| info.kind != FileKind::File || info.len > hosts_toml::MAX) {
            continue;
        }
        let owner = files.read(&path, hosts_toml::MAX)?.as_deref().map(hosts_toml::owner);
        if matches!(owner, Some(Owner::Ours(_))) {
            ours.push(path);
        }
    }
    Ok(ours)
}
