//! Where layers come from, and in which order.

use super::fragment::Layer;
use super::schema::schema;
use super::settings::IdentitySource;
use super::tree::Node;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{FileInfo, FileKind, Files};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Configuration of the image, written when it is baked.
pub const BAKED: &str = "/usr/lib/kubestrap/config.d";
/// Configuration of the machine.
pub const MAIN: &str = "/etc/kubestrap/config.yaml";
/// More of it.
pub const MORE: &str = "/etc/kubestrap/config.d";

/// The largest configuration file, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// All layers, by where they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// From files, in order; see [`from_files`].
    pub files: Vec<Layer>,
    /// From user-data; see [`super::user_data::read`].
    pub user_data: Vec<Layer>,
    /// From the environment; see [`super::environment::layers`].
    pub environment: Vec<Layer>,
}

/// What must be known before user-data can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Early {
    /// `identity`.
    pub identity: IdentitySource,
    /// `aws.metadata_endpoint`.
    pub metadata_endpoint: Option<String>,
}

impl Sources {
    /// The layers, later ones winning: files, user-data, environment.
    pub fn into_layers(self) -> Vec<Layer> {
        [self.files, self.user_data, self.environment].concat()
    }

    /// `identity` and `aws.metadata_endpoint` as far as they are known. Never fails: what is wrong is reported by
    /// [`super::load`], and counts here as not said.
    pub fn early(&self) -> Early {
        let root = schema();
        let (tree, ..) = super::merged(&self.clone().into_layers(), &root);
        let text = |path: &[&str]| match tree.at(path).map(Node::to_json) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let identity = match text(&["identity"]).as_deref() {
            Some("ec2") => IdentitySource::Ec2,
            Some("host") => IdentitySource::Host,
            _ => IdentitySource::Auto,
        };
        let endpoint = text(&["aws", "metadata_endpoint"]);
        Early { identity, metadata_endpoint: endpoint.filter(|url| super::validate::base_url(url).is_ok()) }
    }
}

/// The layers in files: the baked folder, the main file, the folder beside it; absent ones are left out. With `only`
/// (`--config FILE`) that file alone, which must then exist.
///
/// Files and folders must belong to root or to `own_uid` and not be writable by group or others, and a file must not
/// be a symbolic link (`UnsafeFile`): who can write them is root on this machine. `FileAccess` when one cannot be read,
/// `Configuration` when it is larger than [`MAX_FILE`] or not UTF-8.
pub fn from_files(files: &dyn Files, own_uid: u32, only: Option<&Path>) -> Outcome<Vec<Layer>> {
    let reader = Reader { files, own_uid };
    if let Some(path) = only {
        let layer = reader.file(path)?;
        let missing = || Failure::new(Cause::Configuration, attempted(path), "there is no such file");
        return Ok(vec![layer.ok_or_else(missing)?]);
    }
    let mut layers = reader.folder(Path::new(BAKED))?;
    if let Some(folder) = Path::new(MAIN).parent() {
        reader.trusted_folder(folder)?;
    }
    layers.extend(reader.file(Path::new(MAIN))?);
    layers.extend(reader.folder(Path::new(MORE))?);
    Ok(layers)
}

fn attempted(path: &Path) -> String {
    format!("read the configuration {}", path.display())
}

struct Reader<'f> {
    files: &'f dyn Files,
    own_uid: u32,
}

impl Reader<'_> {
    /// Every `*.yaml` and `*.yml` of a folder, in the order of their names. Hidden files are left out.
    fn folder(&self, folder: &Path) -> Outcome<Vec<Layer>> {
        if !self.trusted_folder(folder)? {
            return Ok(Vec::new());
        }
        let names = self.files.list(folder)?;
        let ours = |name: &&String| (name.ends_with(".yaml") || name.ends_with(".yml")) && !name.starts_with('.');
        let mut layers = Vec::new();
        for path in names.iter().filter(ours).map(|name| folder.join(name)).collect::<Vec<PathBuf>>() {
            layers.extend(self.file(&path)?);
        }
        Ok(layers)
    }

    /// Whether there is a folder; refuses one that others can put files into.
    fn trusted_folder(&self, folder: &Path) -> Outcome<bool> {
        match self.files.stat(folder)? {
            None => Ok(false),
            // A link to a folder is followed by the system; what it shows is checked file by file.
            Some(info) if info.kind == FileKind::Link => Ok(true),
            Some(info) => self.trusted(folder, &info).map(|()| true),
        }
    }

    fn file(&self, path: &Path) -> Outcome<Option<Layer>> {
        let Some(info) = self.files.stat(path)? else { return Ok(None) };
        let unsafe_file = |why: &str| Failure::new(Cause::UnsafeFile, attempted(path), why);
        match info.kind {
            FileKind::File => {}
            FileKind::Link => return Err(unsafe_file("it is a symbolic link").advise("put the file itself there")),
            _ => return Err(unsafe_file("it is not a regular file").advise("put a regular file there")),
        }
        self.trusted(path, &info)?;
        let wrong = |why: String| Failure::new(Cause::Configuration, attempted(path), why);
        if info.len > MAX_FILE {
            return Err(wrong(format!("it has {} bytes; at most {MAX_FILE} are read", info.len)));
        }
        // It may have gone since.
        let Some(bytes) = self.files.read(path, MAX_FILE)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 text".to_owned()))?;
        Ok(Some(Layer::document(path.to_string_lossy(), text)))
    }

    fn trusted(&self, path: &Path, info: &FileInfo) -> Outcome<()> {
        let refused = |why: String| Err(Failure::new(Cause::UnsafeFile, attempted(path), why));
        if info.uid != 0 && info.uid != self.own_uid {
            return refused(format!("{} belongs to user {}, who could change it", path.display(), info.uid));
        }
        if info.mode & 0o022 != 0 {
            return refused(format!("{} is writable by others (mode {:04o})", path.display(), info.mode & 0o7777));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
