//! Small file helpers: modes are set before the first byte is written, and replacing is atomic.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The path of `absolute` (a path on the machine) below `root`: what chroot would make of it, without chroot.
pub fn under(root: &Path, absolute: &str) -> PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

/// Makes a folder and its parents with this mode; nothing happens when it is there.
///
/// # Errors
/// What the operating system says, with the path.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|e| with_path(e, path))
}

/// Replaces a file atomically; its folder is made with mode 0755 when it is missing, as kubeadm does.
///
/// # Errors
/// What the operating system says, with the path.
pub fn write(path: &Path, body: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder, 0o755)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(|e| with_path(e, path))?;
    file.write_all(body).and_then(|()| fs::rename(&temporary, path)).map_err(|e| with_path(e, path))
}

/// Reads a text file.
///
/// # Errors
/// What the operating system says, with the path.
pub fn read_text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|e| with_path(e, path))
}

/// Removes what is in a folder but not the folder itself; nothing happens when there is none (kubeadm `CleanDir`).
///
/// # Errors
/// What the operating system says, with the path.
pub fn clean_folder(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| with_path(e, path))?,
    };
    for entry in entries {
        let path = entry?.path();
        let removed =
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| with_path(e, &path))?;
    }
    Ok(())
}

/// Random bytes from the TLS library's generator.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the operating system gave no randomness"))?;
    Ok(bytes)
}

/// YAML as Go writes it: long strings stay on one line, so that tools that look line by line find them.
///
/// # Errors
/// When the value can not be written as YAML.
pub fn yaml(value: &impl serde::Serialize) -> io::Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, value, options).map_err(io::Error::other)?;
    Ok(text)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
