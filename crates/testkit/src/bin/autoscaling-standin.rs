//! Lifecycle actions of Auto Scaling for tests; see `kubestrap_testkit::autoscaling`.

use clap::Parser;
use kubestrap_testkit::{autoscaling, http};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Answers as the Auto Scaling API does, from a file.
#[derive(Parser)]
struct Options {
    /// Address and port; the address it got is printed.
    #[arg(long)]
    listen: SocketAddr,
    /// YAML file with the instances and the actions that wait.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    http::run_plain(options.listen, autoscaling::AutoScaling::new(autoscaling::load(&options.config)?))
}
