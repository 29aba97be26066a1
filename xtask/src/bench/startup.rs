//! From the start of a process to the first byte of its first request.

use super::stats::Series;
use super::world::{CLUSTER, STORE, World};
use std::io::{self, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs of `kubestrap status --cluster`.
pub fn kubestrap(world: &World, rounds: usize) -> io::Result<Series> {
    let make = |endpoint: &str| {
        let mut command = world.command(&world.kubestrap);
        command.arg("--root").arg(world.path("laptop")).args(["status", "--cluster", "--store", STORE]);
        command.args(["--cluster-name", CLUSTER, "--s3-endpoint", endpoint]);
        command
    };
    measure(rounds, make)
}

/// Runs of `aws s3 ls`.
pub fn aws(world: &World, aws: &Path, rounds: usize) -> io::Result<Series> {
    let make = |endpoint: &str| {
        let mut command = world.command(aws);
        command.args(["s3", "ls", "--endpoint-url", endpoint, STORE]);
        command
    };
    measure(rounds, make)
}

fn measure(rounds: usize, make: impl Fn(&str) -> Command) -> io::Result<Series> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    // The first run fills the page cache, for both.
    let samples: Vec<Duration> = (0..=rounds).map(|_| one(&listener, make(&endpoint))).collect::<io::Result<_>>()?;
    Series::of(&samples[1..]).ok_or_else(|| io::Error::other("no rounds"))
}

fn one(listener: &TcpListener, mut command: Command) -> io::Result<Duration> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let heard = first_byte(listener, began);
    // It has no answer and never gets one; errors mean that it is gone already.
    let _ = child.kill();
    child.wait()?;
    heard
}

fn first_byte(listener: &TcpListener, began: Instant) -> io::Result<Duration> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read_exact(&mut [0])?;
                return Ok(began.elapsed());
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if began.elapsed() > PATIENCE => return Err(io::Error::other("the program sent no request")),
            // Looks cost the measured program time on one core; a tenth of a millisecond is precise enough.
            Err(_) => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}
