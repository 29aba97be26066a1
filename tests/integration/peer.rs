//! A peer that sends whatever it likes over plain HTTP: answers that no server of ours would give.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What it sends for a request.
pub struct Reply {
    /// Status line, headers, and the beginning of the body.
    start: Vec<u8>,
    /// Repeated until the other side hangs up; the connection is closed at once when it is empty.
    again: Vec<u8>,
}

impl Reply {
    /// A body of this text again and again.
    pub fn endless(status: &str, headers: &str, again: &str) -> Reply {
        let start = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").into_bytes();
        Reply { start, again: again.repeat(65536 / again.len()).into_bytes() }
    }

    /// Headers again and again; there is no body.
    pub fn endless_head(again: &str) -> Reply {
        Reply { start: b"HTTP/1.1 200 OK\r\n".to_vec(), again: again.repeat(65536 / again.len()).into_bytes() }
    }

    /// An answer with an end.
    pub fn whole(status: &str, headers: &str, body: &str) -> Reply {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        Reply { start: [head.as_bytes(), body.as_bytes()].concat(), again: Vec::new() }
    }
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    sent: AtomicU64,
}

/// The peer. Its threads end with the process of the test, its connections with their other side.
pub struct Peer {
    address: SocketAddr,
    counters: Arc<Counters>,
}

impl Peer {
    /// Listens, and answers each request (its head and its body, in full) on a connection of its own.
    pub fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let counters = Arc::<Counters>::default();
        let (count, answer) = (counters.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, answer) = (count.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &count, &*answer));
            }
        });
        Peer { address, counters }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests it was sent.
    pub fn requests(&self) -> u64 {
        self.counters.requests.load(Ordering::Relaxed)
    }

    /// How many bytes it could send, those in the sockets' buffers included.
    pub fn sent(&self) -> u64 {
        self.counters.sent.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, count: &Counters, answer: &dyn Fn(&str) -> Reply) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_whole(&request) {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let reply = answer(&String::from_utf8_lossy(&request));
    count.requests.fetch_add(1, Ordering::Relaxed);
    let mut next = &reply.start;
    while !next.is_empty() && stream.write_all(next).is_ok() {
        count.sent.fetch_add(next.len() as u64, Ordering::Relaxed);
        next = &reply.again;
    }
}

/// Whether the head is there, and as much of a body as it announces.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let announced = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    request.len() >= end + 4 + announced.unwrap_or(0)
}
