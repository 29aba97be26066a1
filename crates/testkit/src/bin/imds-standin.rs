//! An instance metadata service for tests; see `kubestrap_testkit::imds`.

use clap::Parser;
use kubestrap_testkit::{http, imds};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Answers as IMDSv2 does, from a file.
#[derive(Parser)]
struct Options {
    /// Address and port; the address it got is printed.
    #[arg(long)]
    listen: SocketAddr,
    /// YAML file with the instances and the faults.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    http::run_plain(options.listen, imds::Imds::new(imds::load(&options.config)?))
}
