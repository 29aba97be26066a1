//! Where the kubelet of this machine looks for credential providers, and what there is ours: read from the machine.

use super::provider_config::{self, Provider, Rest};
use crate::config::settings::Settings;
use crate::kubeadm::tools;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Role;
use crate::node::Node;
use crate::ports::{FileKind, Files};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Our own CredentialProviderConfig, where nobody named another one.
pub const OUR_FILE: &str = "/etc/kubernetes/kubestrap/credential-providers.yaml";
/// The flags kubeadm gives to the kubelet (kubeadm constants.go, `KubeletEnvFileName`).
pub const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Where kubeadm's drop-in lets people put flags, which come last and so win (Debian, Red Hat).
const EXTRA_FLAGS: [&str; 2] = ["/etc/default/kubelet", "/etc/sysconfig/kubelet"];
/// The kubelet's flag with the file, or the folder of files.
pub const CONFIG_FLAG: &str = "image-credential-provider-config";
/// The kubelet's flag with the folder of the plugins.
pub const BIN_FLAG: &str = "image-credential-provider-bin-dir";
/// Our file in a folder of files, which newer kubelets read in the order of their names.
const IN_FOLDER: &str = "kubestrap.yaml";
const MAX_FLAGS: u64 = 64 * 1024;
/// The mode of a file of ours: it holds no secret, and administrators look at it.
const MODE: u32 = 0o644;

/// The two flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletFlags {
    /// The value of [`CONFIG_FLAG`].
    pub config: PathBuf,
    /// The value of [`BIN_FLAG`].
    pub bin_dir: PathBuf,
}

/// Our program, as the kubelet will call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name, which is also that of the provider.
    pub name: String,
}

/// Where everything goes on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What the kubelet is told.
    pub flags: KubeletFlags,
    /// The file our entry is in.
    pub file: PathBuf,
    /// The other files of the folder, when the flag names a folder.
    pub siblings: Vec<PathBuf>,
    /// Our program.
    pub program: Program,
}

/// The name the kubelet would call us by.
///
/// # Errors
/// When our program has a name that the kubelet refuses.
pub fn program(node: &Node) -> Outcome<Program> {
    let path = node.world.host.program()?;
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.contains(' '));
    match (path.parent(), name) {
        (Some(folder), Some(name)) => Ok(Program { folder: folder.to_owned(), name: name.to_owned() }),
        _ => {
            let why = "the kubelet takes no names with spaces";
            Err(Failure::new(Cause::Configuration, format!("give {} to the kubelet", path.display()), why)
                .advise("install kubestrap as /usr/bin/kubestrap"))
        }
    }
}

/// Where it goes: to the file that the kubelet's flags on this machine name, or the patches in our configuration; to a
/// file of our own where nobody named one.
///
/// # Errors
/// Of reading the machine.
pub fn place(node: &Node) -> Outcome<Place> {
    let files = &*node.world.files;
    let program = program(node)?;
    let mut named = (None, None);
    for path in EXTRA_FLAGS.iter().chain([&KUBELET_FLAGS]) {
        let text = text_of(files, Path::new(path), MAX_FLAGS)?.unwrap_or_default();
        named = (named.0.or_else(|| flag_in(&text, CONFIG_FLAG)), named.1.or_else(|| flag_in(&text, BIN_FLAG)));
    }
    named = (
        named.0.or_else(|| patched(&node.settings, CONFIG_FLAG)),
        named.1.or_else(|| patched(&node.settings, BIN_FLAG)),
    );
    let config = named.0.map_or_else(|| PathBuf::from(OUR_FILE), PathBuf::from);
    let bin_dir = named.1.map_or_else(|| program.folder.clone(), PathBuf::from);
    let is_folder = files.stat(&config)?.is_some_and(|info| info.kind == FileKind::Folder);
    let file = if is_folder { config.join(IN_FOLDER) } else { config.clone() };
    let is_read = |name: &String| [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end));
    let siblings = match is_folder {
        true => files.list(&config)?.into_iter().filter(is_read).map(|name| config.join(name)).collect(),
        false => Vec::new(),
    };
    let siblings = siblings.into_iter().filter(|sibling| *sibling != file).collect();
    Ok(Place { flags: KubeletFlags { config, bin_dir }, file, siblings, program })
}

/// The value of a flag in a file of variables, as the kubelet's unit reads it.
fn flag_in(text: &str, flag: &str) -> Option<String> {
    let is_break = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    let uncommented = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words: Vec<&str> = uncommented.flat_map(|line| line.split(is_break)).filter(|word| !word.is_empty()).collect();
    // The last one counts.
    words.iter().enumerate().rev().find_map(|(at, word)| {
        // The first word of a line follows `NAME=`.
        let (_, behind) = word.split_once("--").filter(|(before, _)| before.is_empty() || before.ends_with('='))?;
        let rest = behind.strip_prefix(flag)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None => rest.is_empty().then(|| words.get(at + 1).map(|next| (*next).to_owned()))?,
        }
    })
}

/// The value of a flag in the patches for kubeadm's document of this role.
fn patched(settings: &Settings, flag: &str) -> Option<String> {
    let patch = if settings.role == Role::Master { &settings.kubeadm.init } else { &settings.kubeadm.join };
    let list = patch.get("nodeRegistration")?.get("kubeletExtraArgs")?.as_array()?;
    let named = list.iter().rev().find(|argument| argument.get("name").and_then(Value::as_str) == Some(flag))?;
    named.get("value").and_then(Value::as_str).map(str::to_owned)
}

fn text_of(files: &dyn Files, path: &Path, limit: u64) -> Outcome<Option<String>> {
    let Some(bytes) = files.read(path, limit)? else { return Ok(None) };
    let not_text = |_| Failure::new(Cause::Configuration, format!("read {}", path.display()), "it is not UTF-8");
    String::from_utf8(bytes).map(Some).map_err(not_text)
}

/// What is to be written, or why nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The file says what it should.
    Done(Place, Vec<String>),
    /// It does not: its new text and mode.
    Write {
        /// Where.
        place: Place,
        /// The whole file.
        text: String,
        /// Its mode.
        mode: u32,
        /// Other providers for the same hosts, which the kubelet asks first.
        rivals: Vec<String>,
    },
    /// Somebody else's wiring is left alone, and why.
    LeftAlone(String),
}

/// Compares the machine with the settings.
///
/// # Errors
/// `Configuration` for what somebody has to correct: an unreadable file, a folder of plugins without our program.
pub async fn compare(node: &Node) -> Outcome<Wish> {
    let place = place(node)?;
    if let Some(why) = unreachable(node, &place)? {
        return Ok(Wish::LeftAlone(why));
    }
    let provider = Provider::new(&place.program.name, &node.settings);
    if node.settings.ecr.audience.is_some() {
        provider.refuse_old(&tools::versions(node).await?.kubelet)?;
    }
    let files = &*node.world.files;
    let mode = mode_of(files, &place.file)?;
    let shown = place.file.display().to_string();
    let existing = text_of(files, &place.file, provider_config::MAX)?;
    let mut rivals = Vec::new();
    for sibling in &place.siblings {
        let (path, text) = (sibling.display().to_string(), text_of(files, sibling, provider_config::MAX)?);
        let text = text.unwrap_or_default();
        if provider_config::has(&path, &text, &place.program.name)? {
            let why =
                format!("it has a provider named {} too, and the kubelet refuses two of one name", place.program.name);
            return Err(Failure::new(Cause::Configuration, format!("write {shown} beside {path}"), why)
                .advise(format!("remove that provider from {path}")));
        }
        rivals.extend(provider_config::earlier_rivals(&path, &text, &provider)?);
    }
    let merged = provider_config::merge(&shown, existing.as_deref(), &provider)?;
    rivals.extend(merged.rivals);
    if existing.as_deref() == Some(merged.text.as_str()) {
        return Ok(Wish::Done(place, rivals));
    }
    Ok(Wish::Write { place, text: merged.text, mode, rivals })
}

/// Why the kubelet could not call us in the folder of plugins that somebody else named.
///
/// No wrapper is put there: it is a folder of programs that run as root, it may be read-only, and the service's sandbox
/// has no right to it. A link is one command, best when the image is made. Where nobody asked for our credentials, his
/// wiring is left alone.
fn unreachable(node: &Node, place: &Place) -> Outcome<Option<String>> {
    let Place { flags, program, .. } = place;
    if flags.bin_dir == program.folder {
        return Ok(None);
    }
    let path = flags.bin_dir.join(&program.name);
    let runs = |kind: FileKind, mode: u32| kind == FileKind::Link || (kind == FileKind::File && mode & 0o111 != 0);
    if node.world.files.stat(&path)?.is_some_and(|info| runs(info.kind, info.mode)) {
        return Ok(None);
    }
    let why =
        format!("the kubelet looks for plugins in {}, and {} is not there", flags.bin_dir.display(), program.name);
    if !node.settings.ecr.is_asked_for() {
        return Ok(Some(why));
    }
    let fix = format!("`ln -s {} {}`", program.folder.join(&program.name).display(), path.display());
    Err(Failure::new(Cause::Configuration, "give the kubelet credentials of ECR", why)
        .advise(format!("{fix}, or remove `{BIN_FLAG}` from the kubelet's flags")))
}

/// The mode the file keeps.
fn mode_of(files: &dyn Files, file: &Path) -> Outcome<u32> {
    match files.stat(file)? {
        None => Ok(MODE),
        Some(info) if info.kind == FileKind::File => Ok(info.mode & 0o777),
        Some(_) => {
            let why = "it is not a regular file, and writing would replace it by one";
            Err(Failure::new(Cause::Configuration, format!("change {}", file.display()), why)
                .advise(format!("name the file itself in the kubelet's `{CONFIG_FLAG}`")))
        }
    }
}

/// The flags for kubeadm's documents, when the file that they name has our entry: without it the kubelet would not
/// start.
///
/// # Errors
/// Of reading the machine.
pub fn flags(node: &Node) -> Outcome<Option<KubeletFlags>> {
    if !node.settings.ecr.is_on(&node.identity) {
        return Ok(None);
    }
    let place = place(node)?;
    let text = text_of(&*node.world.files, &place.file, provider_config::MAX)?;
    let shown = place.file.display().to_string();
    let has = text.map_or(Ok(false), |text| provider_config::has(&shown, &text, &place.program.name));
    Ok(has?.then_some(place.flags))
}

/// The flags as [`flags`] will find them after the step, for `plan`.
///
/// # Errors
/// Those of [`compare`].
pub async fn intended_flags(node: &Node) -> Outcome<Option<KubeletFlags>> {
    if !node.settings.ecr.is_on(&node.identity) {
        return Ok(None);
    }
    Ok(match compare(node).await? {
        Wish::Done(place, _) | Wish::Write { place, .. } => Some(place.flags),
        Wish::LeftAlone(_) => None,
    })
}

/// Which flags the kubelet of a joined machine lacks; none where kubeadm has not made its file yet.
///
/// # Errors
/// Of reading the machine.
pub fn missing_flags(node: &Node, flags: &KubeletFlags) -> Outcome<Vec<String>> {
    let files = &*node.world.files;
    let Some(mut text) = text_of(files, Path::new(KUBELET_FLAGS), MAX_FLAGS)? else { return Ok(Vec::new()) };
    for path in EXTRA_FLAGS {
        text.push('\n');
        text.push_str(&text_of(files, Path::new(path), MAX_FLAGS)?.unwrap_or_default());
    }
    let wanted = [(CONFIG_FLAG, &flags.config), (BIN_FLAG, &flags.bin_dir)];
    let lacks = wanted.iter().filter(|(flag, _)| flag_in(&text, flag).is_none());
    Ok(lacks.map(|(flag, value)| format!("--{flag}={}", value.display())).collect())
}

/// A file with an entry of ours that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The file.
    pub file: PathBuf,
    /// What is left of it.
    pub rest: Rest,
    mode: u32,
}

/// Files with an entry of ours. What cannot be read is not ours to judge and is left out.
///
/// # Errors
/// Of reading the machine.
pub fn leftovers(node: &Node) -> Outcome<Vec<Leftover>> {
    let files = &*node.world.files;
    let place = place(node)?;
    let mut found = Vec::new();
    let mut candidates = vec![PathBuf::from(OUR_FILE)];
    if !candidates.contains(&place.file) {
        candidates.push(place.file);
    }
    for file in candidates {
        let Some(info) = files.stat(&file)?.filter(|info| info.kind == FileKind::File) else { continue };
        let text = text_of(files, &file, provider_config::MAX)?.unwrap_or_default();
        match provider_config::remove(&file.display().to_string(), &text, &place.program.name) {
            Ok(Rest::Untouched) | Err(_) => {}
            Ok(rest) => found.push(Leftover { file, rest, mode: info.mode & 0o777 }),
        }
    }
    Ok(found)
}

/// Takes our entry out of it.
///
/// # Errors
/// Of writing.
pub fn take_out(node: &Node, leftover: &Leftover) -> Outcome<()> {
    match &leftover.rest {
        Rest::Untouched => Ok(()),
        Rest::Text(text) => node.world.files.write(&leftover.file, text.as_bytes(), leftover.mode),
        Rest::Nothing => node.world.files.remove(&leftover.file),
    }
}

/// Whether the kubelet of this machine is told to read this file, and would not start without it.
///
/// # Errors
/// Of reading the machine.
pub fn is_named(node: &Node, file: &Path) -> Outcome<bool> {
    for path in EXTRA_FLAGS.iter().chain([&KUBELET_FLAGS]) {
        let text = text_of(&*node.world.files, Path::new(path), MAX_FLAGS)?.unwrap_or_default();
        if flag_in(&text, CONFIG_FLAG).is_some_and(|named| Path::new(&named) == file) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_where_kubelets_units_read_them() {
        let find = |text: &str| flag_in(text, CONFIG_FLAG);
        let found = |text: &str| Some(text.to_owned());
        let kubeadm = "KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.0.1 --image-credential-provider-config=/a.yaml\"\n";
        assert_eq!(find(kubeadm), found("/a.yaml"));
        assert_eq!(find("KUBELET_EXTRA_ARGS=--image-credential-provider-config=/a.yaml --v=2\n"), found("/a.yaml"));
        assert_eq!(find("KUBELET_EXTRA_ARGS='--v 2 --image-credential-provider-config /a.yaml'\n"), found("/a.yaml"));
        assert_eq!(
            find("X=\"--image-credential-provider-config=/a --image-credential-provider-config=/b\""),
            found("/b")
        );
        assert_eq!(find("X=--image-credential-provider-bin-dir=/a"), None);
        assert_eq!(find("# X=--image-credential-provider-config=/a"), None);
        assert_eq!(find("X=--image-credential-provider-config"), None);
        assert_eq!(find("X=--image-credential-provider-config-more=/a"), None);
    }

    #[test]
    fn patches_name_a_file_for_the_role_they_are_for() {
        let mut settings = crate::testing::settings("role: worker");
        let list = serde_json::json!({ "kubeletExtraArgs": [{ "name": CONFIG_FLAG, "value": "/a.yaml" }] });
        settings.kubeadm.init.insert("nodeRegistration".into(), list.clone());
        assert_eq!(patched(&settings, CONFIG_FLAG), None);
        settings.kubeadm.join.insert("nodeRegistration".into(), list);
        assert_eq!(patched(&settings, CONFIG_FLAG).as_deref(), Some("/a.yaml"));
        assert_eq!(patched(&settings, BIN_FLAG), None);
    }
}
