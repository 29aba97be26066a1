//! A TCP load balancer before API servers; see `kubestrap_testkit::balancer`.

use clap::Parser;
use kubestrap_testkit::balancer::Balancer;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

/// Carries connections to API servers that are ready.
#[derive(Parser)]
struct Options {
    /// Address and port.
    #[arg(long)]
    listen: SocketAddr,
    /// File with the targets, one `address:port` a line; it may change.
    #[arg(long)]
    targets: PathBuf,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let balancer = Balancer::new(options.targets)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { balancer.serve(TcpListener::bind(options.listen).await?).await })
}
