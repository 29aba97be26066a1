//! `cargo xtask dist`: what is released. A static program per architecture, proved to need nothing of the machine it
//! runs on, in an archive and a Debian package, with checksums.

mod build;
mod deb;
mod files;
mod names;
mod proof;
mod userland;

use crate::process::workspace;
use clap::{Args, ValueEnum};
use kubestrap_lab::command::{program, run};
use kubestrap_lab::{Result, attempted, fail};
use std::path::{Path, PathBuf};

/// The workspace's version, which is this package's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the stripped program may have: 12 MiB. It was 12,000,000 bytes before several masters came, with KMS, COSE and
/// X.509.
const MOST_BYTES: u64 = 12 * 1024 * 1024;

/// Options of `dist`.
#[derive(Args)]
pub struct DistArgs {
    /// Only these architectures; without it, all for which there is a toolchain.
    #[arg(long, value_enum)]
    arch: Vec<Arch>,
    /// Build nothing: prove and pack this static program of this machine's architecture. Its size is not judged.
    #[arg(long, value_name = "FILE", conflicts_with = "arch")]
    program: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// Prove it in this tree too: another distribution, unpacked (debootstrap). It is left as it was.
    #[arg(long, value_name = "FOLDER")]
    userland: Vec<PathBuf>,
    /// Jobs of cargo. With fat LTO each of the last ones takes gigabytes.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
}

/// An architecture, as Debian and Go write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    const ALL: [Arch; 2] = [Arch::Amd64, Arch::Arm64];

    fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// As Rust and the kernel write it.
    fn machine(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64",
            Arch::Arm64 => "aarch64",
        }
    }

    /// As `readelf --file-header` writes it.
    fn elf(self) -> &'static str {
        match self {
            Arch::Amd64 => "Advanced Micro Devices X86-64",
            Arch::Arm64 => "AArch64",
        }
    }

    /// Whether this machine runs its programs.
    fn is_own(self) -> bool {
        std::env::consts::ARCH == self.machine()
    }
}

impl DistArgs {
    /// Makes the release, or says what is missing.
    pub fn run(self) -> Result<()> {
        let out = workspace().join(&self.out);
        if out.exists() {
            attempted(std::fs::remove_dir_all(&out), format!("remove {}", out.display()))?;
        }
        attempted(std::fs::create_dir_all(&out), format!("make {}", out.display()))?;
        let epoch = epoch()?;
        let mut made = Vec::new();
        for (arch, path) in self.programs()? {
            let judge_size = self.program.is_none();
            proof::judge(&path, arch, judge_size.then_some(MOST_BYTES), &self.userland)?;
            made.extend(pack(&path, arch, &epoch, &out)?);
        }
        if made.is_empty() {
            return fail("nothing was made: there is no toolchain for any of the architectures");
        }
        let sums = run(program("sha256sum", &[]).args(&made).current_dir(&out))?;
        attempted(std::fs::write(out.join("SHA256SUMS"), &sums), "write SHA256SUMS")?;
        files::pinned_user_data(&sums, &out.join("cloud-init"))?;
        print!("{}:\n{sums}", out.display());
        Ok(())
    }

    fn programs(&self) -> Result<Vec<(Arch, PathBuf)>> {
        if let Some(path) = &self.program {
            let own = Arch::ALL.into_iter().find(|arch| arch.is_own());
            let Some(arch) = own else { return fail("this machine's architecture is not one that is released") };
            return Ok(vec![(arch, std::path::absolute(path)?)]);
        }
        let wanted = if self.arch.is_empty() { Arch::ALL.to_vec() } else { self.arch.clone() };
        let mut programs = Vec::new();
        for arch in wanted {
            match build::missing(arch)? {
                None => programs.push((arch, build::build(arch, self.jobs)?)),
                Some(what) if self.arch.is_empty() => println!("{}: left out: {what}", arch.name()),
                Some(what) => return fail(format!("{}: {what}", arch.name())),
            }
        }
        Ok(programs)
    }
}

/// The time that all files get, in seconds since 1970: that of the commit, so that anybody can make the same files.
fn epoch() -> Result<String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let git = |arguments: &[&str]| run(program("git", arguments).current_dir(workspace()));
    if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        println!("note: this checkout has changes that are in no commit");
    }
    Ok(git(&["log", "-1", "--format=%ct"])?.trim().to_owned())
}

/// The archive and the package; made twice, for they must not depend on when and where.
fn pack(program: &Path, arch: Arch, epoch: &str, out: &Path) -> Result<Vec<String>> {
    let again = attempted(tempfile::tempdir(), "make a folder")?;
    let mut made = Vec::new();
    for place in [out, again.path()] {
        made = vec![files::archive(program, arch, epoch, place)?, deb::package(program, arch, epoch, place)?];
    }
    for name in &made {
        if std::fs::read(out.join(name))? != std::fs::read(again.path().join(name))? {
            return fail(format!("{name} is another one each time it is made"));
        }
    }
    for name in made.iter().filter(|name| name.ends_with(".deb")) {
        deb::judge(&out.join(name))?;
    }
    Ok(made)
}
