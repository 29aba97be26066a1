//! Lifecycle actions of Auto Scaling for tests; see `kubestrap_testkit::autoscaling`.

use clap::Parser;
use kubestrap_testkit::{autoscaling, http};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
    let service = Arc::new(autoscaling::AutoScaling::new(autoscaling::load(&options.config)?));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.listen).await?;
        println!("{}", listener.local_addr()?);
        http::serve_plain(listener, service).await
    })
}
