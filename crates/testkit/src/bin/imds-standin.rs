//! An instance metadata service for tests; see `kubestrap_testkit::imds`.

use clap::Parser;
use kubestrap_testkit::{http, imds};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
    let service = Arc::new(imds::Imds::new(imds::load(&options.config)?));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.listen).await?;
        println!("{}", listener.local_addr()?);
        http::serve_plain(listener, service).await
    })
}
