//! An S3 that answers as badly as it is told to; see `kubestrap_testkit::s3stub`.

use clap::Parser;
use kubestrap_testkit::{http, s3stub};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Serves one bucket from memory, with faults.
#[derive(Parser)]
struct Options {
    /// Address and port; the address it got is printed.
    #[arg(long)]
    listen: SocketAddr,
    /// YAML file with the bucket and the faults; a bucket `bucket` without faults when absent.
    #[arg(long)]
    script: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let script = options.script.map_or_else(|| Ok(s3stub::Script::default()), |path| s3stub::load(&path))?;
    let stub = Arc::new(s3stub::S3Stub::new(script));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.listen).await?;
        println!("{}", listener.local_addr()?);
        http::serve_plain(listener, stub).await
    })
}
