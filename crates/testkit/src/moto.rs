//! moto's server: a virtual environment made once, a process per use on a free port, killed when it is dropped.

use crate::{files, ports};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is installed: pinned to a minor version, for the answers of moto are part of the tests.
const REQUIREMENT: &str = "moto[server,s3,ec2,sts,iam,ssm]==5.2.*";
/// moto imports every service it mocks: some seconds on a small machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A running server.
pub struct Moto {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Moto {
    /// Starts a server; `environment` is a folder for the virtual environment, made when it is not there and reused
    /// otherwise.
    ///
    /// # Errors
    /// When Python or its `venv` module is missing, the installation fails, or the server does not answer.
    pub fn start(environment: &Path) -> io::Result<Self> {
        let program = install(environment)?;
        let port = ports::free_port()?;
        let log = environment.join(format!("moto-{port}.log"));
        let output = std::fs::File::create(&log)?;
        let child = Command::new(&program)
            .args(["-p", &port.to_string(), "-H", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", program.display())))?;
        let mut moto = Moto { child, address: SocketAddr::from(([127, 0, 0, 1], port)), log };
        moto.wait()?;
        Ok(moto)
    }

    /// `http://127.0.0.1:port`, for all services.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets everything the server was told.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn reset(&self) -> io::Result<()> {
        self.request("POST /moto-api/reset").map(|_| ())
    }

    fn wait(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            if self.request("GET /moto-api/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START_DEADLINE {
                let log = files::read_text(&self.log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(io::Error::other(format!(
                    "moto's server does not answer ({ended:?}): {}",
                    tail.join(" | ")
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn request(&self, line: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "{line} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Installs moto into the environment unless it is there; the server program.
///
/// # Errors
/// When Python or its `venv` module is missing, or the installation fails.
pub fn install(environment: &Path) -> io::Result<PathBuf> {
    let (program, stamp) = (environment.join("bin/moto_server"), environment.join("installed"));
    // The stamp is written last: a half-finished installation is done again.
    if program.exists() && files::read_text(&stamp).is_ok_and(|text| text == REQUIREMENT) {
        return Ok(program);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment)).map_err(|error| {
        let missing = error.to_string().contains("ensurepip") || error.to_string().contains("No module named venv");
        let advice = if missing { "; install it: apt-get install python3-venv" } else { "" };
        io::Error::new(error.kind(), format!("failed to make a virtual environment for moto: {error}{advice}"))
    })?;
    let pip = environment.join("bin/pip");
    run(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", REQUIREMENT]))
        .map_err(|error| io::Error::new(error.kind(), format!("failed to install {REQUIREMENT}: {error}")))?;
    files::write(&stamp, REQUIREMENT.as_bytes(), 0o644)?;
    Ok(program)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(io::Error::other(format!("{}: {}", output.status, text.trim())))
}
