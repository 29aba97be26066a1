//! Requests to servers of the fabric, made from inside their network namespace.

use crate::network::NAMESPACE;
use crate::{Result, attempted, fail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(5);
/// moto reads a service's own data with the first request to it.
const ANSWER: Duration = Duration::from_secs(60);

/// moto verifies no signature, but keeps what signed requests wrote from those that have none, and knows the service by it.
fn signed(service: &str) -> String {
    format!(
        "authorization: AWS4-HMAC-SHA256 Credential=LAB/20260101/us-east-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    )
}

/// Sends a request and reads the whole answer: status and body.
///
/// # Errors
/// When there is no answer.
pub fn request(method: &str, server: (Ipv4Addr, u16), path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    send(method, server, path, &signed("s3"), body)
}

/// Posts a form to a service of AWS, as its query protocol wants it: status and body.
///
/// # Errors
/// When there is no answer.
pub fn form(service: &str, server: (Ipv4Addr, u16), form: &str) -> Result<(u16, Vec<u8>)> {
    let headers = format!("content-type: application/x-www-form-urlencoded\r\n{}", signed(service));
    send("POST", server, "/", &headers, form.as_bytes())
}

/// Calls a service of AWS in its JSON protocol: status and body.
///
/// # Errors
/// When there is no answer.
pub fn json(service: &str, server: (Ipv4Addr, u16), target: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let headers = format!("content-type: application/x-amz-json-1.1\r\nx-amz-target: {target}\r\n{}", signed(service));
    send("POST", server, "/", &headers, body)
}

fn send(method: &str, server: (Ipv4Addr, u16), path: &str, headers: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}:{}\r\nconnection: close\r\n{headers}\r\ncontent-length: {}\r\n\r\n",
        server.0,
        server.1,
        body.len()
    );
    let message = [head.as_bytes(), body].concat();
    // A network namespace belongs to a thread: this one ends with the request.
    let talk = std::thread::spawn(move || exchange(server.into(), &message));
    let answer = talk.join().unwrap_or_else(|_| fail("the request panicked"));
    let answer = attempted(answer, format!("{method} http://{}:{}{path}", server.0, server.1))?;
    parse(&answer)
}

fn exchange(server: SocketAddr, message: &[u8]) -> Result<Vec<u8>> {
    enter()?;
    let mut stream = TcpStream::connect_timeout(&server, CONNECT)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(message)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Moves this thread into the lab's network namespace.
///
/// # Errors
/// When there is no such namespace, or it may not be entered.
pub fn enter() -> Result<()> {
    let path = format!("/run/netns/{NAMESPACE}");
    let file = attempted(std::fs::File::open(&path), format!("open {path}"))?;
    attempted(nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET), format!("enter {path}"))
}

fn parse(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else { return fail("the answer is no HTTP") };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status else { return fail("the answer is no HTTP") };
    let body = &answer[end + 4..];
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok((status, unchunk(body)));
    }
    Ok((status, body.to_vec()))
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(line) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..line]).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && line + 2 + size <= body.len()) else { break };
        whole.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = body.get(line + 4 + size..).unwrap_or_default();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_in_chunks() {
        let plain = parse(b"HTTP/1.1 404 Not Found\r\nx: y\r\n\r\nno").expect("plain");
        assert_eq!(plain, (404, b"no".to_vec()));
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(text).expect("chunked"), (200, b"abcde".to_vec()));
        assert!(parse(b"nonsense").is_err());
    }
}
