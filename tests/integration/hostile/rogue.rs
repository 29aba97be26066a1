//! A server that answers whatever it was told to, byte by byte, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An answer.
pub enum Reply {
    /// These bytes, head and all, and the end of the connection.
    Bytes(Vec<u8>),
    /// This head, and then a body without an end.
    Endless(String),
}

impl Reply {
    /// A whole answer; `headers` are lines with their ends.
    pub fn whole(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        Reply::Bytes([head.as_bytes(), body].concat())
    }

    /// A body without an end.
    pub fn endless(status: u16, headers: &str) -> Reply {
        Reply::Endless(format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}\r\n"))
    }
}

/// A server on a thread of its own; it ends with this.
pub struct Rogue {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Rogue {
    /// Listens and answers.
    pub fn start(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Rogue {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (heard, answers) = (asked.clone(), Arc::new(answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, answers) = (heard.clone(), answers.clone());
                std::thread::spawn(move || serve(stream, &heard, &*answers));
            }
        });
        Rogue { address, asked }
    }

    /// Somebody who must not be asked anything.
    pub fn silent() -> Rogue {
        Rogue::start(|_| Reply::whole(200, "", "got you"))
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: TcpStream, heard: &Mutex<Vec<String>>, answers: &dyn Fn(&str) -> Reply) {
    let mut reader = BufReader::new(match stream.try_clone() {
        Ok(stream) => stream,
        Err(_) => return,
    });
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or_default() == 0 {
        // A look whether somebody listens is a question too.
        heard.lock().unwrap_or_else(PoisonError::into_inner).push("(a connection)".to_owned());
        return;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or_default() == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let _ = reader.take(length).read_to_end(&mut Vec::new());
    heard.lock().unwrap_or_else(PoisonError::into_inner).push(first.trim_end().to_owned());
    let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
    let mut stream = stream;
    // Whoever had enough hangs up.
    match answers(first.trim_end()) {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Reply::Endless(head) => {
            let mut sent = stream.write_all(head.as_bytes());
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 65536]);
            }
        }
    }
}
