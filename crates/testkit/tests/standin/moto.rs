use kubestrap_testkit::moto::Moto;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// Needs a package index: run by `cargo xtask test`, which has an environment under `target`.
#[test]
#[ignore = "installs moto from a package index; `cargo xtask test` does the same and uses it"]
fn moto_starts_answers_and_ends() {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto-venv");
    let moto = Moto::start(&environment).unwrap_or_else(|error| panic!("{error}"));
    let address = moto.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).expect("connect");
    write!(stream, "PUT /a-bucket HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    moto.reset().expect("reset");
    drop(moto);
    assert!(TcpStream::connect(&address).is_err(), "it is gone");
}
