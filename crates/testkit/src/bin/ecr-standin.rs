//! A stand-in for ECR before a real registry; see `kubestrap_testkit::ecr`.

use clap::Parser;
use kubestrap_testkit::ecr::{Ecr, Part, Server};
use kubestrap_testkit::pki::{self, Leaf, Usage};
use kubestrap_testkit::{http, tls};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// An API whose tokens die soon, and a registry that asks for them.
#[derive(Parser)]
struct Options {
    /// Where the API listens, plain HTTP.
    #[arg(long)]
    api: SocketAddr,
    /// Where the registry listens, TLS.
    #[arg(long)]
    registry: SocketAddr,
    /// Where the host with the blobs listens, TLS.
    #[arg(long)]
    blobs: SocketAddr,
    /// The registry's name.
    #[arg(long)]
    host: String,
    /// The name of the host with the blobs.
    #[arg(long)]
    blobs_host: String,
    /// A registry without authentication.
    #[arg(long)]
    backend: SocketAddr,
    /// How long a token lives, in seconds.
    #[arg(long)]
    life: u64,
    /// Where the CA that clients are to trust is written, PEM.
    #[arg(long)]
    roots: PathBuf,
    /// Where requests are noted.
    #[arg(long)]
    log: PathBuf,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let ca = pki::make_ca("ecr-standin", pki::CA_LIFE)?;
    let sans = [options.host.clone(), options.blobs_host.clone()];
    let leaf = Leaf { name: "ecr", groups: &[], sans: &sans, usage: Usage::Server, life: pki::LEAF_LIFE };
    let config = tls::server(&pki::make_leaf(&ca, &leaf)?, &ca.certificate)?;
    std::fs::write(&options.roots, &ca.certificate)?;
    let life = Duration::from_secs(options.life);
    let ecr = Arc::new(Ecr::new(life, options.host, options.blobs_host, options.backend, options.log));
    let server = |part| Arc::new(Server { ecr: ecr.clone(), part });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (api, registry, blobs) = tokio::try_join!(
            TcpListener::bind(options.api),
            TcpListener::bind(options.registry),
            TcpListener::bind(options.blobs)
        )?;
        tokio::try_join!(
            http::serve_plain(api, server(Part::Api)),
            http::serve_tls(registry, config.clone(), server(Part::Registry)),
            http::serve_tls(blobs, config, server(Part::Blobs)),
        )?;
        Ok(())
    })
}
