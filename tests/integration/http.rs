//! The smallest HTTP client that does, and the stand-ins that are servers.

use crate::process::{Agent, programs};
use crate::world::World;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

/// One request on a connection of its own: status and body.
pub fn request(address: &str, line: &str) -> (u16, String) {
    send(address, line, "", "")
}

/// The same with more headers (lines with their ends) and a body.
pub fn send(address: &str, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-length: {length}\r\n"),
    };
    let head = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{length}{headers}\r\n");
    write!(stream, "{head}{body}").expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, body.to_owned())
}

/// A stand-in that serves; it ends with this.
pub struct Server {
    _agent: Agent,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// A balancer before API servers, whose targets stand in a file.
    pub fn balancer(at: SocketAddr, targets: &std::path::Path) -> Server {
        let mut agent = Agent::start(
            Command::new(programs().join("balancer-standin"))
                .arg("--listen")
                .arg(at.to_string())
                .arg("--targets")
                .arg(targets),
        );
        agent.until("the balancer listens", || TcpStream::connect(at).is_ok());
        Server { _agent: agent, address: at }
    }

    fn start(command: &mut Command) -> Server {
        let mut agent = Agent::start(command.args(["--listen", "127.0.0.1:0"]));
        let mut address = None;
        let output = agent.output();
        agent.until("the stand-in says where it listens", || {
            address = output().trim().parse().ok();
            address.is_some()
        });
        Server { _agent: agent, address: address.expect("an address") }
    }

    /// The metadata service, with this configuration.
    pub fn imds(world: &World, configuration: &str) -> Server {
        let path = world.path(&format!("imds-{}.yaml", crate::world::free_port()));
        std::fs::write(&path, configuration).expect("write");
        Server::start(Command::new(programs().join("imds-standin")).arg("--config").arg(path))
    }

    /// Auto Scaling, with this configuration; requests are noted in `autoscaling.jsonl`.
    pub fn autoscaling(world: &World, configuration: &str) -> Server {
        let path = world.path("autoscaling.yaml");
        let log = world.path("autoscaling.jsonl");
        std::fs::write(&path, format!("{configuration}log: {}\n", log.display())).expect("write");
        Server::start(Command::new(programs().join("autoscaling-standin")).arg("--config").arg(path))
    }

    /// An S3 with one bucket named `bucket`, with this script.
    pub fn s3(world: &World, script: &str) -> Server {
        let path = world.path("s3.yaml");
        std::fs::write(&path, script).expect("write");
        Server::start(Command::new(programs().join("s3-stub")).arg("--script").arg(path))
    }

    /// The same over TLS with a certificate of this kind (`s3-stub --help`); `roots` gets the CA that is to be trusted.
    pub fn s3_tls(certificate: &str, roots: &std::path::Path) -> Server {
        Server::start(Command::new(programs().join("s3-stub")).args(["--tls", certificate, "--roots"]).arg(roots))
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One request: status and body.
    pub fn request(&self, line: &str) -> (u16, String) {
        request(&self.address.to_string(), line)
    }
}
