//! The build of the profile `dist`: fat LTO and static, in a target folder of its own, so that everyday builds keep theirs.

use super::Arch;
use crate::process::{cargo, check, workspace};
use kubestrap_lab::command::{finish, program, run};
use kubestrap_lab::{Result, attempted};
use std::path::{Path, PathBuf};
use std::time::Instant;

const FOLDER: &str = "target/dist-build";

fn triple(arch: Arch) -> String {
    format!("{}-unknown-linux-gnu", arch.machine())
}

/// The C compiler, which is the linker too: aws-lc is in C.
fn compiler(arch: Arch) -> String {
    if arch.is_own() { "cc".to_owned() } else { format!("{}-linux-gnu-gcc", arch.machine()) }
}

/// What this machine lacks for that architecture; none when it has everything.
pub(super) fn missing(arch: Arch) -> Result<Option<String>> {
    let mut missing = Vec::new();
    let sysroot = run(&mut program("rustc", &["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(triple(arch)).join("lib");
    if !library.exists() {
        missing.push(format!("Rust's standard library (`rustup target add {}`)", triple(arch)));
    }
    let compiler = compiler(arch);
    if !finish(&mut program(&compiler, &["--version"])).is_ok_and(|done| done.code == Some(0)) {
        missing.push(format!("{compiler} (Debian: gcc-{}-linux-gnu)", arch.machine().replace('_', "-")));
    }
    Ok((!missing.is_empty()).then(|| format!("missing: {}", missing.join(", "))))
}

/// Builds the program; where it is.
pub(super) fn build(arch: Arch, jobs: u32) -> Result<PathBuf> {
    let (target, compiler) = (triple(arch), compiler(arch));
    let shouted = target.to_uppercase().replace('-', "_");
    let root = attempted(workspace().canonicalize(), "find the workspace")?;
    let folder = root.join(FOLDER);
    // Paths of this machine say nothing to others, and would make every machine's program another one.
    let registry = registry()?;
    // getrandom looks its function up with dlsym, which finds nothing in a static program, and opens /dev/urandom then: in a
    // root without /dev no name could be resolved. The cfg links the function.
    let rust_flags = format!(
        "-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\" --remap-path-prefix={registry}=/registry --remap-path-prefix={}=/kubestrap",
        root.display()
    );
    let c_flags = format!("-ffile-prefix-map={registry}=/registry -ffile-prefix-map={}=/kubestrap", root.display());
    println!("{}: building for {target} with fat LTO; this takes minutes", arch.name());
    let began = Instant::now();
    let jobs = jobs.to_string();
    let mut command = cargo(&["rustc", "--quiet", "--profile", "dist", "--locked", "--package", "kubestrap"]);
    command.args(["--bin", "kubestrap", "--target", &target, "--jobs", &jobs, "--"]);
    command.args(link_arguments(arch, &root));
    command.env("CARGO_TARGET_DIR", &folder).env("CARGO_INCREMENTAL", "0");
    command.env("RUSTFLAGS", rust_flags).env("CFLAGS", c_flags);
    if !arch.is_own() {
        command.env(format!("CARGO_TARGET_{shouted}_LINKER"), &compiler);
        command.env(format!("CC_{}", target.replace('-', "_")), &compiler);
    }
    check(&mut command)?;
    println!("{}: built in {} s", arch.name(), began.elapsed().as_secs());
    Ok(folder.join(target).join("dist/kubestrap"))
}

/// What makes the program smaller at its last step: instructions that repeat and equal functions are one, relocations take
/// a bit instead of 24 bytes (and its start fewer page faults), tables for unwinding are left out, little is inlined.
///
/// Only for the machines whose linker is the toolchain's own rust-lld (x86_64, since Rust 1.90): GNU ld knows no ICF.
fn link_arguments(arch: Arch, root: &Path) -> Vec<String> {
    if arch != Arch::Amd64 {
        return Vec::new();
    }
    let script = format!("-T,{}", root.join("xtask/src/dist/discard.ld").display());
    let told = ["--icf=all", "-z,pack-relative-relocs", &script];
    let linker = told.iter().map(|told| format!("link-arg=-Wl,{told}"));
    // The second one counts for the standard library, which comes optimised for speed.
    let compiler = ["-enable-machine-outliner=always", "-inline-threshold=8"].map(|told| format!("llvm-args={told}"));
    linker.chain(compiler).flat_map(|told| ["-C".to_owned(), told]).collect()
}

/// Where cargo unpacks the sources of other crates.
fn registry() -> Result<String> {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    Ok(format!("{}/registry/src", attempted(home, "find cargo's home in CARGO_HOME or HOME")?))
}
