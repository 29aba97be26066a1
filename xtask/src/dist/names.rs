//! A name server for the proof: it knows one address for the names it was given, and remembers who was asked for.

use kubestrap_lab::{Result, attempted};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

const TYPE_A: [u8; 2] = [0, 1];
const HEADER: usize = 12;
const NO_SUCH_NAME: u8 = 3;

/// A server on port 53 of an address of its own.
pub(super) struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// Answers for these names, without a dot at the end, with that address. It ends with this program.
    pub(super) fn start(address: Ipv4Addr, known: &'static [&'static str]) -> Result<NameServer> {
        let socket = attempted(UdpSocket::bind((address, 53)), format!("listen on {address}, port 53 (UDP)"))?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let names = asked.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet) {
                if let Some((name, kind, answer)) = answer(&packet[..length], known, address) {
                    if kind == TYPE_A {
                        names.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                    }
                    // Who asked has gone when this fails.
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Ok(NameServer { asked })
    }

    /// The names that addresses were asked for since the last time, in their order.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The name, its type, and the answer to a query; none when it is no query.
fn answer(query: &[u8], known: &[&str], address: Ipv4Addr) -> Option<(String, [u8; 2], Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at..at + length)?).ok()?.to_lowercase());
        at += length;
    }
    let (name, kind) = (labels.join("."), [*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(HEADER..at + 4)?;
    let knows = known.contains(&name.as_str());
    let found = knows && kind == TYPE_A;
    let mut answer = query[..2].to_vec();
    // An answer, authoritative, recursion desired and available.
    answer.extend([0x85, 0x80 | if knows { 0 } else { NO_SUCH_NAME }, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(question);
    if found {
        // The name is where the question's is; type A, class IN, 60 s, 4 bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some((name, kind, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).expect("short"));
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, kind, 0, 1]);
        bytes
    }

    #[test]
    fn known_names_have_one_address_and_others_do_not_exist() {
        let address = Ipv4Addr::new(127, 1, 2, 3);
        let (name, _, found) = answer(&query("S3.test", 1), &["s3.test"], address).expect("a query");
        assert_eq!(name, "s3.test");
        assert_eq!((found[3] & 15, found[7], &found[found.len() - 4..]), (0, 1, &[127, 1, 2, 3][..]));
        let (_, _, empty) = answer(&query("s3.test", 28), &["s3.test"], address).expect("a query");
        assert_eq!((empty[3] & 15, empty[7]), (0, 0), "it exists and has no IPv6 address");
        let (_, _, absent) = answer(&query("x.test", 1), &["s3.test"], address).expect("a query");
        assert_eq!((absent[3] & 15, absent[7]), (3, 0));
        assert!(answer(&[0; 12], &[], address).is_none() && answer(b"", &[], address).is_none());
    }
}
