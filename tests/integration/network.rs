//! Addresses for several masters on one machine: every address of 127.0.0.0/8 is this machine's, so that each master has
//! one of its own, with ports for its API server and its etcd.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A network of 127.0.0.0/8 that nobody else uses.
pub struct Network {
    third: [u8; 3],
    /// The port of the API servers.
    pub port: u16,
    endpoint: SocketAddr,
}

impl Network {
    /// Takes one in which nobody listens.
    pub fn new() -> Network {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let own = u16::try_from(std::process::id() % 0xffff).expect("16 bits").wrapping_mul(37).wrapping_add(next);
            let [second, third] = own.to_be_bytes();
            let third = [127, 64 | (second & 0x3f), third];
            let bind = |last, port| TcpListener::bind((Ipv4Addr::new(third[0], third[1], third[2], last), port));
            // Another process of tests may have it. The two ports differ: a machine's own port is no balancer's.
            let (Ok(endpoint), Ok(api), Ok(_)) = (bind(254, 0), bind(1, 0), bind(1, 2379)) else { continue };
            let at = |socket: &TcpListener| socket.local_addr().expect("an address");
            if at(&endpoint).port() != at(&api).port() {
                return Network { third, port: at(&api).port(), endpoint: at(&endpoint) };
            }
        }
    }

    /// The address of a master; the first one is 1.
    pub fn address(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.third[0], self.third[1], self.third[2], n)
    }

    /// Where the balancer is to listen.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// The API servers of the first masters, one a line: what a balancer's file of targets says.
    pub fn targets(&self) -> String {
        (1..=6).map(|n| format!("{}\n", SocketAddr::from((self.address(n), self.port)))).collect()
    }
}
