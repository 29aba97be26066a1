//! Developer commands. `cargo xtask --help` lists them; this file only dispatches.

mod bench;
mod demo;
mod dist;
mod evidence;
mod fuzz;
mod lab;
mod mutants;
mod packaging;
mod process;
mod simulate;
mod soak;
mod test;
mod units;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Developer commands of kubestrap")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One master and three workers on this machine: no root, no AWS, no Kubernetes (kubeadm is a stand-in).
    Demo(demo::Demo),
    /// Every test, with everything it needs (moto's server is installed below target/).
    Test(test::Test),
    /// kubestrap beside the shell loop it replaces: latency, start-up, memory, requests.
    Bench(bench::Bench),
    /// A cluster with faults for an hour: is everything as it was?
    Soak(soak::Soak),
    /// Real nodes in namespaces on this machine: systemd, containerd, kubelet and kubeadm.
    Lab(lab::LabArgs),
    /// The units and the user-data that are shipped, judged by systemd, cloud-init and kubestrap.
    Units(units::UnitsArgs),
    /// The Packer templates, the scripts that clean and check images, and the one-line start: judged and run.
    Packaging(packaging::PackagingArgs),
    /// What is released: the static program, proved, in an archive and a Debian package, with checksums.
    Dist(dist::DistArgs),
    /// Rules for dependencies (licences, forbidden crates, duplicates), and for promises: what shows each of them.
    Verify,
    /// Many seeds of a simulated world, with the safety rules as invariants.
    Simulate(simulate::Simulate),
    /// Hostile bytes for everything that is parsed: the corpora, and mutations of them.
    Fuzz(fuzz::Fuzz),
    /// Break each safety rule on purpose, and expect a test to notice.
    Mutants(mutants::MutantsArgs),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Demo(demo) => demo.run(),
        Command::Test(test) => test.run(),
        Command::Bench(bench) => bench.run(),
        Command::Soak(soak) => soak.run(),
        Command::Lab(lab) => lab.run(),
        Command::Units(units) => units.run(),
        Command::Packaging(packaging) => packaging.run(),
        Command::Dist(dist) => dist.run(),
        Command::Simulate(options) => options.run(),
        Command::Verify => verify::run().and_then(|()| evidence::check(&process::workspace())),
        Command::Fuzz(options) => options.run(),
        Command::Mutants(options) => mutants::run(&options).map_err(std::io::Error::other),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
