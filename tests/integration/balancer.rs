//! Addresses for several masters on one machine, and the balancer before their API servers: what a network load balancer
//! is to a real cluster. Every address of 127.0.0.0/8 is this machine's, so that each master has one of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The balancer's place in its network.
const OWN: u8 = 254;
/// As many masters as it looks for.
const MASTERS: u8 = 6;

/// A network of 127.0.0.0/8 that nobody else uses, and its balancer. It ends with it.
pub struct Network {
    third: [u8; 3],
    /// The port of the balancer and of the API servers behind it.
    pub port: u16,
    ended: Arc<AtomicBool>,
}

impl Network {
    /// Takes a network and listens at `.254`.
    pub fn new() -> Network {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() as usize * 37;
            let third =
                [127, 64 + u8::try_from(n / 250 % 120).expect("small"), 1 + u8::try_from(n % 250).expect("small")];
            let free = |last, port| {
                TcpListener::bind(SocketAddrV4::new(Ipv4Addr::new(third[0], third[1], third[2], last), port))
            };
            // Another process of tests may have it.
            let Ok(listener) = free(OWN, 0) else { continue };
            let port = listener.local_addr().expect("an address").port();
            if free(1, 2379).is_err() || free(1, port).is_err() {
                continue;
            }
            let ended = Arc::new(AtomicBool::new(false));
            let (stop, network) = (ended.clone(), Network { third, port, ended });
            let masters: Vec<SocketAddr> = (1..=MASTERS).map(|n| network.socket(n)).collect();
            std::thread::spawn(move || serve(&listener, &masters, &stop));
            return network;
        }
    }

    /// The address of a master; the first one is 1.
    pub fn address(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.third[0], self.third[1], self.third[2], n)
    }

    fn socket(&self, n: u8) -> SocketAddr {
        SocketAddr::from((self.address(n), self.port))
    }

    /// `address:port` of the balancer.
    pub fn endpoint(&self) -> String {
        self.socket(OWN).to_string()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect(self.socket(OWN));
    }
}

fn serve(listener: &TcpListener, masters: &[SocketAddr], ended: &AtomicBool) {
    let mut turn = 0;
    for stream in listener.incoming() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = stream else { continue };
        turn += 1;
        // An API server that is not ready does not listen here: being refused is its health check.
        let order = masters.iter().cycle().skip(turn % masters.len()).take(masters.len());
        let found = order.into_iter().find_map(|at| TcpStream::connect_timeout(at, Duration::from_millis(500)).ok());
        if let Some(server) = found {
            pipe(client, server);
        }
    }
}

fn pipe(client: TcpStream, server: TcpStream) {
    let (Ok(back), Ok(forth)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || copy(client, forth));
    std::thread::spawn(move || copy(server, back));
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
