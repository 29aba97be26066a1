//! A web server that answers as it is told, one connection after the other: whole, cut off, or with an error.

use kubestrap_lab::{Result, attempted};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// One answer.
#[derive(Clone)]
pub(super) enum Answer {
    /// 200 with these bytes.
    Whole(Vec<u8>),
    /// 200 with the length of these bytes and only the first half of them.
    Half(Vec<u8>),
    /// A status without a body.
    Status(u16),
    /// 302 to the same place.
    Again,
}

/// Answers in their order; the last one again and again.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn start(answers: Vec<Answer>) -> Result<Server> {
        let listener = attempted(TcpListener::bind("127.0.0.1:0"), "listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let names = asked.clone();
        // It ends with this program.
        std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            let mut last = Answer::Status(500);
            for stream in listener.incoming().flatten() {
                last = answers.next().unwrap_or(last);
                // A client that hung up has its reasons.
                if let Ok(name) = serve(&stream, &last) {
                    names.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                }
            }
        });
        Ok(Server { address, asked })
    }

    /// The paths that were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: &TcpStream, answer: &Answer) -> std::io::Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next().transpose()?.unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\nLocation: {path}\r\n\r\n")
    };
    let (head, body) = match answer {
        Answer::Whole(body) => (head("200 OK", body.len()), &body[..]),
        Answer::Half(body) => (head("200 OK", body.len()), &body[..body.len() / 2]),
        Answer::Status(code) => (head(&format!("{code} Told"), 0), &[][..]),
        Answer::Again => (head("302 Found", 0), &[][..]),
    };
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Ok(path)
}
