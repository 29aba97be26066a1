use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

const BODY: &str = r#"{"members":[]}"#;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, "etcd-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("key");
    let pem = params.self_signed(&key).expect("certificate").pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

/// Certificate and key, PEM.
fn leaf(by: &Authority, address: &str) -> (String, String) {
    let mut params = CertificateParams::new(vec![address.to_owned()]).expect("parameters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("key");
    (params.signed_by(&key, &by.issuer).expect("certificate").pem(), key.serialize_pem())
}

/// Answers some connections, each with one request, from clients that this authority signed.
fn serve(clients: &Authority, pair: &(String, String), connections: usize) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).expect("PEM")).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.0.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).expect("PEM"),
        );
    let config = Arc::new(config.expect("a server"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut tcp, _) = listener.accept().expect("accept");
            let mut connection = ServerConnection::new(config.clone()).expect("a connection");
            let mut tls = Stream::new(&mut connection, &mut tcp);
            let mut request = [0; 4096];
            // A client that does not like us hangs up.
            let Ok(read) = tls.read(&mut request) else { continue };
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            assert!(request.starts_with("POST /v3/cluster/member/list HTTP/1.1"), "{request}");
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{BODY}", BODY.len());
            let _ = tls.write_all(answer.as_bytes());
            connection.send_close_notify();
            let _ = connection.complete_io(&mut tcp);
        }
    });
    address
}

fn access(address: &str) -> EtcdAccess {
    let file = |name: &str| PathBuf::from(format!("/{name}"));
    let endpoint = format!("https://{address}");
    EtcdAccess { endpoint, ca: file("ca.crt"), certificate: file("client.crt"), key: file("client.key") }
}

fn write(folder: &Path, ca: &Authority, client: &(String, String)) {
    for (name, text) in [("ca.crt", &ca.pem), ("client.crt", &client.0), ("client.key", &client.1)] {
        std::fs::write(folder.join(name), text).expect("write");
    }
}

fn call(gateway: &Gateway, access: &EtcdAccess) -> Outcome<ApiAnswer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(gateway.call(access, "/v3/cluster/member/list", b"{}".to_vec()))
}

#[test]
fn credentials_and_members_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().expect("tempdir");
    let gateway = Gateway::new(Names::default(), folder.path());
    let failure = call(&gateway, &access("127.0.0.1:1")).expect_err("no files");
    assert_eq!(failure.cause, Cause::EtcdUnavailable);
    assert!(failure.to_string().contains("/ca.crt") && failure.to_string().contains("no such file"), "{failure}");
    let ca = authority();
    write(folder.path(), &ca, &(leaf(&ca, "127.0.0.1").0, "no key".to_owned()));
    let failure = call(&gateway, &access("127.0.0.1:1")).expect_err("no key");
    assert!(failure.detail.contains("key is not PEM") && !failure.to_string().contains("no key"), "{failure}");
    write(folder.path(), &ca, &leaf(&ca, "127.0.0.1"));
    let failure = call(&gateway, &access("127.0.0.1:1")).expect_err("nobody listens");
    assert_eq!(failure.cause, Cause::EtcdUnavailable);
    assert!(failure.attempted.contains("https://127.0.0.1:1/v3/cluster/member/list"), "{failure}");
}

#[test]
fn only_the_given_authority_and_a_certificate_for_the_address_are_trusted() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (ca, other) = (authority(), authority());
    let client = leaf(&ca, "127.0.0.1");
    write(folder.path(), &ca, &client);
    let gateway = Gateway::new(Names::default(), folder.path());
    let good = serve(&ca, &leaf(&ca, "127.0.0.1"), 1);
    assert_eq!(call(&gateway, &access(&good)).map(|answer| answer.body), Ok(BODY.as_bytes().to_vec()));
    for (why, pair) in [("another CA", leaf(&other, "127.0.0.1")), ("another address", leaf(&ca, "127.0.0.2"))] {
        let failure = call(&gateway, &access(&serve(&ca, &pair, 1))).expect_err(why);
        assert_eq!(failure.cause, Cause::Tls, "{why}: {failure}");
    }
    // The files are read again when they changed: a certificate of another CA does not open etcd.
    write(folder.path(), &ca, &leaf(&other, "127.0.0.1"));
    assert!(call(&gateway, &access(&serve(&ca, &leaf(&ca, "127.0.0.1"), 1))).is_err());
}
