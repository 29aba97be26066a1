//! Where the files of a cluster are: below `/var/lib/etcd` of its machine while it has one member, and in a folder of
//! the first machine's memory, which a reset leaves alone, once there is another. Every member's `/var/lib/etcd` then
//! has a link to the objects.

use super::Cluster;
use crate::files;
use crate::script::MEMORY;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// The objects of the API, below a machine's root.
pub const OBJECTS: &str = "/var/lib/etcd/standin.json";
const MEMBERS: &str = "standin-members.json";

/// The folder of a cluster's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// The folder of the cluster that a root belongs to.
    pub fn of(root: &Path) -> Place {
        let own = files::under(root, OBJECTS);
        let objects = own.canonicalize().unwrap_or(own);
        Place { folder: objects.parent().unwrap_or(Path::new("/")).to_owned() }
    }

    /// The cluster whose files are in this folder.
    pub fn at(folder: &str) -> Place {
        Place { folder: PathBuf::from(folder) }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of the API's objects.
    pub fn objects(&self) -> PathBuf {
        self.folder.join("standin.json")
    }

    /// Takes a lock of the cluster, which is given back when it is dropped; several machines may share the files.
    ///
    /// # Errors
    /// When the lock's file can not be made.
    pub fn lock(&self, name: &str) -> io::Result<Flock<File>> {
        files::make_folder(&self.folder, 0o700)?;
        let path = self.folder.join(format!("standin-{name}.lock"));
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    /// What is so now; an empty cluster when nobody founded one.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn cluster(&self) -> io::Result<Cluster> {
        match files::read_text(&self.folder.join(MEMBERS)) {
            Ok(text) => serde_json::from_str(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Cluster::default()),
            Err(error) => Err(error),
        }
    }

    /// Changes the members while nobody else does.
    ///
    /// # Errors
    /// When the file can not be read or written.
    pub fn change<T>(&self, work: impl FnOnce(&mut Cluster) -> T) -> io::Result<T> {
        let _lock = self.lock("members")?;
        let mut cluster = self.cluster()?;
        let done = work(&mut cluster);
        files::write(&self.folder.join(MEMBERS), serde_json::to_string(&cluster)?.as_bytes(), 0o600)?;
        Ok(done)
    }

    /// Makes the files of a cluster with one member those of several; where they are then. Nothing happens when they
    /// are already.
    ///
    /// # Errors
    /// When they can not be moved.
    pub fn share(root: &Path) -> io::Result<Place> {
        let own = files::under(root, OBJECTS);
        if own.is_symlink() {
            return Ok(Place::of(root));
        }
        let here = Place::of(root);
        let name = here.cluster()?.cluster_id;
        let root = root.canonicalize()?;
        let there = Place { folder: files::under(&root, &format!("{MEMORY}/etcd-{name:x}")) };
        files::make_folder(&there.folder, 0o700)?;
        std::fs::rename(here.folder.join(MEMBERS), there.folder.join(MEMBERS))?;
        std::fs::rename(&own, there.objects())?;
        symlink(there.objects(), &own)?;
        Ok(there)
    }

    /// Makes a root a part of this cluster.
    ///
    /// # Errors
    /// When the root has objects of its own, or the link can not be made.
    pub fn adopt(&self, root: &Path) -> io::Result<()> {
        let own = files::under(root, OBJECTS);
        files::make_folder(own.parent().unwrap_or(Path::new("/")), 0o700)?;
        match symlink(self.objects(), &own) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && own.is_symlink() => {
                std::fs::remove_file(&own)?;
                symlink(self.objects(), &own)
            }
            other => other,
        }
    }
}
