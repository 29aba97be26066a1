//! Ports of 127.0.0.1 for servers that another process starts later.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to outgoing connections (32768 and up: `ip_local_port_range` of ip(7)). One of those
/// may be the near end of anybody's connection by the time the server starts, and then it cannot listen.
const FIRST: u16 = 12_000;
/// How many there are.
const COUNT: u16 = 20_000;

/// A TCP port of 127.0.0.1 where nobody listens now, another one at each call; other processes begin elsewhere.
///
/// # Errors
/// What the operating system says when none of them can be listened on.
pub fn free_port() -> io::Result<u16> {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    // Processes that were started one after the other are far from each other here.
    let begin = std::process::id().wrapping_mul(7_919) % u32::from(COUNT);
    let mut refused = io::Error::other("no port was tried");
    for _ in 0..COUNT {
        let offset = (begin + u32::from(CALLS.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).map_err(io::Error::other)?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}
