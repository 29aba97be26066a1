//! What a released program must be: static, small, and at home in a root with nothing in it.

use super::Arch;
use super::userland::Stand;
use kubestrap_lab::command::{finish, program, run};
use kubestrap_lab::{Result, attempted, fail};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Says what is wrong with it, or nothing.
pub(super) fn judge(path: &Path, arch: Arch, most_bytes: Option<u64>, userlands: &[PathBuf]) -> Result<()> {
    let name = arch.name();
    let bytes = attempted(std::fs::metadata(path), format!("find {}", path.display()))?.len();
    is_static(path, arch)?;
    can_refuse(arch)?;
    println!("{name}: {bytes} bytes, no dynamic loader");
    if let Some(most) = most_bytes {
        if bytes > most {
            return fail(format!("{name}: the program has {bytes} bytes, and {most} are allowed"));
        }
        names_no_path(path)?;
    }
    if !arch.is_own() {
        println!("{name}: not run: this machine is another one");
        return Ok(());
    }
    starts_alone(path)?;
    println!("{name}: it starts in an empty root");
    if attempted(std::fs::metadata("/proc/self"), "ask who I am")?.uid() != 0 {
        println!("{name}: names and TLS are not tried: a name server on port 53 needs root");
        return Ok(());
    }
    Stand::start()?.judge(path, userlands)
}

/// What readelf says: its machine, no interpreter, no library.
fn is_static(path: &Path, arch: Arch) -> Result<()> {
    let said = run(program("readelf", &["--wide", "--file-header", "--program-headers", "--dynamic"]).arg(path))?;
    complaint(&said, arch).map_or(Ok(()), |why| fail(format!("{}: {why}", path.display())))
}

fn complaint(said: &str, arch: Arch) -> Option<String> {
    let has = |word: &str| said.lines().find(|line| line.contains(word)).map(|line| line.trim().to_owned());
    let machine = has("Machine:").unwrap_or_default();
    if !machine.ends_with(arch.elf()) {
        return Some(format!("it is for another architecture ({machine})"));
    }
    let loader = has("INTERP").or_else(|| has("Requesting program interpreter"));
    if let Some(line) = loader {
        return Some(format!("it needs a dynamic loader: {line}"));
    }
    has("(NEEDED)").map(|line| format!("it needs a library: {line}"))
}

/// This very program is dynamic: a judge that accepts it judges nothing.
fn can_refuse(arch: Arch) -> Result<()> {
    let own = attempted(std::env::current_exe(), "find this program")?;
    if arch.is_own() && is_static(&own, arch).is_ok() {
        return fail("readelf finds no dynamic loader in this program either: it cannot be relied on");
    }
    Ok(())
}

/// No folder of the machine that built it is in the program.
fn names_no_path(path: &Path) -> Result<()> {
    let home = std::env::var("HOME").unwrap_or_default();
    let workspace = attempted(crate::process::workspace().canonicalize(), "find the workspace")?;
    for word in [format!("{home}/.cargo"), workspace.display().to_string()] {
        let done = finish(program("grep", &["--quiet", "--fixed-strings", "--text", "-e", &word]).arg(path))?;
        if done.code != Some(1) {
            return fail(format!("{} contains {word}, a path of this machine", path.display()));
        }
    }
    Ok(())
}

fn starts_alone(path: &Path) -> Result<()> {
    let root = attempted(tempfile::tempdir(), "make a folder")?;
    super::files::copy(path, &root.path().join("kubestrap"), 0o755)?;
    let own = attempted(std::fs::metadata("/proc/self"), "ask who I am")?.uid() == 0;
    let mut command =
        if own { program("chroot", &[]) } else { program("unshare", &["--user", "--map-root-user", "chroot"]) };
    let said = run(command.arg(root.path()).args(["/kubestrap", "--version"]))?;
    let expected = format!("kubestrap {}", super::VERSION);
    if said.trim().starts_with(&expected) { Ok(()) } else { fail(format!("in an empty root it says {said:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: &str = "  Machine:                           Advanced Micro Devices X86-64\n  LOAD 0x0 R E\n";

    #[test]
    fn a_program_is_static_or_it_is_said_why_not() {
        assert_eq!(complaint(STATIC, Arch::Amd64), None);
        assert!(complaint(STATIC, Arch::Arm64).expect("another").contains("another architecture"));
        let loader = format!("{STATIC}      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n");
        assert!(complaint(&loader, Arch::Amd64).expect("a loader").contains("ld-linux"));
        let library = format!("{STATIC} 0x0001 (NEEDED) Shared library: [libc.so.6]\n");
        assert!(complaint(&library, Arch::Amd64).expect("a library").contains("libc.so.6"));
        assert!(complaint("", Arch::Amd64).is_some());
    }
}
