//! A registry that demands credentials: ECR's API with tokens that die soon, the check at the door, and Debian's
//! docker-registry behind it, unpacked below the lab's folder and not installed.

use crate::command::{finish, program, run};
use crate::fabric::Fabric;
use crate::network::{BLOBS, REGISTRY};
use crate::{Result, attempted, fail};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The registry of the lab's account in the region of its machines: its real name.
pub const HOST: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
/// Where blobs lie: no subdomain of the registry, as S3 is none.
pub const BLOBS_HOST: &str = "layers.s3.lab";
/// What is in every machine's hosts file.
pub const NAMES: &[(&str, Ipv4Addr)] = &[(HOST, REGISTRY), (BLOBS_HOST, BLOBS)];
/// ECR's API.
const API_PORT: u16 = 8090;
/// docker-registry itself.
const PORT: u16 = 5000;
/// A Go program and a small Rust one.
const START: Duration = Duration::from_secs(20);

/// `aws.ecr_endpoint` of the machines.
pub fn endpoint() -> String {
    format!("http://{REGISTRY}:{API_PORT}")
}

/// Where machines push while the registry is open.
pub fn open_address() -> String {
    format!("{REGISTRY}:{PORT}")
}

impl Fabric {
    /// An empty registry that everybody may push to, at [`open_address`].
    ///
    /// # Errors
    /// When docker-registry cannot be fetched or does not start.
    pub fn open_registry(&self) -> Result<()> {
        let store = self.store();
        attempted(crate::folder::remove(&store), "empty the registry")?;
        self.docker_registry(REGISTRY)
    }

    /// Closes it: from now on it is reached through ECR's stand-in alone. Tokens live for so long; the CA that clients are
    /// to trust, PEM.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn close_registry(&self, life: Duration) -> Result<String> {
        self.docker_registry(Ipv4Addr::LOCALHOST)?;
        let (roots, log) = (self.shared.folder.run().join("ecr-ca.pem"), self.log());
        let _ = std::fs::remove_file(&roots);
        let mut server = Command::new(&self.ecr);
        server.args(["--api", &format!("{REGISTRY}:{API_PORT}"), "--registry", &format!("{REGISTRY}:443")]);
        server.args(["--blobs", &format!("{BLOBS}:443"), "--host", HOST, "--blobs-host", BLOBS_HOST]);
        server.args(["--backend", &format!("127.0.0.1:{PORT}"), "--life", &life.as_secs().to_string()]);
        self.serve("ecr", server.arg("--roots").arg(&roots).arg("--log").arg(&log))?;
        self.await_registry("ecr", (REGISTRY, API_PORT))?;
        attempted(std::fs::read_to_string(&roots), "read the CA of the registry")
    }

    /// Every request to ECR, the registry and its blobs.
    pub fn registry_requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn log(&self) -> PathBuf {
        self.shared.folder.run().join("ecr.jsonl")
    }

    fn store(&self) -> PathBuf {
        self.shared.folder.run().join("registry")
    }

    fn docker_registry(&self, address: Ipv4Addr) -> Result<()> {
        let program = docker_registry(&self.shared.folder.programs("docker-registry"))?;
        let config = self.shared.folder.run().join("registry.yaml");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: '{address}:{PORT}' }}\n",
            self.store().display()
        );
        crate::tree::write(&config, text, 0o644)?;
        self.serve("registry", Command::new(program).arg("serve").arg(&config))?;
        self.await_registry("registry", (address, PORT))
    }

    fn await_registry(&self, name: &str, server: (Ipv4Addr, u16)) -> Result<()> {
        let began = Instant::now();
        while crate::http::request("GET", server, "/v2/", b"").is_err() {
            crate::interrupt::check()?;
            if began.elapsed() > START {
                let log = std::fs::read_to_string(self.shared.folder.run().join(format!("{name}.log")));
                let words = crate::command::tail(&log.unwrap_or_default(), 5);
                return fail(format!("{name} does not answer at {}:{}: {words}", server.0, server.1));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Debian's docker-registry, fetched when it is not there. Its package would start a service; so it is only unpacked.
fn docker_registry(place: &Path) -> Result<PathBuf> {
    let there = place.join("usr/bin/docker-registry");
    if there.is_file() {
        return Ok(there);
    }
    attempted(std::fs::create_dir_all(place), format!("make {}", place.display()))?;
    let download = || finish(program("apt-get", &["download", "-q", "docker-registry"]).current_dir(place));
    if download()?.code != Some(0) {
        // Package lists that are absent or old.
        run(&mut program("apt-get", &["update", "-q"]))?;
        download()?.success("download the Debian package docker-registry")?;
    }
    let entries = attempted(std::fs::read_dir(place), format!("read {}", place.display()))?;
    let package = entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    let Some(package) = package else { return fail("apt-get download brought no package docker-registry") };
    run(program("dpkg-deb", &["-x"]).arg(package).arg(place))?;
    if there.is_file() { Ok(there) } else { fail("the package docker-registry has no /usr/bin/docker-registry") }
}
