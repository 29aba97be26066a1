//! An S3 that answers as badly as it is told to; see `kubestrap_testkit::s3stub`.

use clap::Parser;
use kubestrap_testkit::tls::{self, Certificate};
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
    /// Speaks TLS, with a certificate as it should not be, or as it should.
    #[arg(long, requires = "roots")]
    tls: Option<Certificate>,
    /// Where the CA that clients are to trust is written, PEM.
    #[arg(long)]
    roots: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let script = options.script.map_or_else(|| Ok(s3stub::Script::default()), |path| s3stub::load(&path))?;
    let tls = match (options.tls, options.roots) {
        (Some(certificate), Some(roots)) => Some(tls::standing(certificate, options.listen.ip(), &roots)?),
        _ => None,
    };
    let stub = Arc::new(s3stub::S3Stub::new(script));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = http::announced(options.listen).await?;
        match tls {
            Some(tls) => http::serve_tls(listener, tls, stub).await,
            None => http::serve_plain(listener, stub).await,
        }
    })
}
