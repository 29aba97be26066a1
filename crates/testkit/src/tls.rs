//! TLS configurations of the stand-ins; aws-lc-rs, like the program under test.

use crate::pki::{self, Leaf, Pair, Usage};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(io::Error::other)
}

fn roots(ca: &str) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(ca)? {
        store.add(certificate).map_err(io::Error::other)?;
    }
    Ok(store)
}

/// A server that asks for client certificates of this CA and accepts that there is none.
///
/// # Errors
/// When the PEM texts are not what they should be.
pub fn server(pair: &Pair, client_ca: &str) -> io::Result<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(io::Error::other)?;
    with_verifier(pair, verifier)
}

/// A server that talks to nobody without a client certificate of this CA.
///
/// # Errors
/// When the PEM texts are not what they should be.
pub fn mutual(pair: &Pair, client_ca: &str) -> io::Result<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca)?), provider());
    with_verifier(pair, verifier.build().map_err(io::Error::other)?)
}

fn with_verifier(pair: &Pair, verifier: Arc<dyn ClientCertVerifier>) -> io::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&pair.certificate)?, key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// Whether an authority has signed a certificate and it is valid now, whatever it is for; both PEM.
///
/// # Errors
/// When the PEM texts are not what they should be.
pub fn is_signed_by(certificate: &str, ca: &str) -> io::Result<bool> {
    let chain = certificates(certificate)?;
    let leaf = chain.first().ok_or_else(|| io::Error::other("no certificate in the file"))?;
    let (trusted, now) = (Arc::new(roots(ca)?), UnixTime::now());
    let client = WebPkiClientVerifier::builder_with_provider(trusted.clone(), provider()).build();
    if client.map_err(io::Error::other)?.verify_client_cert(leaf, &[], now).is_ok() {
        return Ok(true);
    }
    let server = WebPkiServerVerifier::builder_with_provider(trusted, provider()).build().map_err(io::Error::other)?;
    let name = ServerName::try_from("nobody.invalid").map_err(io::Error::other)?;
    // Names are looked at last: being of another host is being signed.
    Ok(match server.verify_server_cert(leaf, &[], &name, &[], now) {
        Ok(_) => true,
        Err(rustls::Error::InvalidCertificate(why)) => {
            matches!(why, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
        }
        Err(_) => false,
    })
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Certificate {
    /// Nothing.
    Good,
    /// A CA that nobody trusts has signed it.
    OtherCa,
    /// It is for another host.
    OtherHost,
    /// It has expired.
    Expired,
}

/// A server at `address` with such a certificate; writes the CA that clients are to trust to `roots`.
///
/// # Errors
/// When the file cannot be written.
pub fn standing(certificate: Certificate, address: IpAddr, roots: &Path) -> io::Result<Arc<ServerConfig>> {
    let ca = pki::make_ca("s3-stub", pki::CA_LIFE)?;
    let other = pki::make_ca("s3-stub", pki::CA_LIFE)?;
    let sans = match certificate {
        Certificate::OtherHost => ["s3.example.com".to_owned()],
        _ => [address.to_string()],
    };
    // Certificates are backdated by minutes, so that one without a life has been good.
    let life = if certificate == Certificate::Expired { Duration::ZERO } else { pki::LEAF_LIFE };
    let leaf = Leaf { name: "s3", groups: &[], sans: &sans, usage: Usage::Server, life };
    let signer = if certificate == Certificate::OtherCa { &other } else { &ca };
    std::fs::write(roots, &ca.certificate)?;
    let pair = pki::make_leaf(signer, &leaf)?;
    if life.is_zero() {
        // Certificates count whole seconds: in the one in which it ends it is still good.
        std::thread::sleep(Duration::from_millis(1100));
    }
    server(&pair, &ca.certificate)
}

/// A client: with `ca` the server is verified, without it is not; with `identity` it shows a certificate.
///
/// # Errors
/// When the PEM texts are not what they should be.
pub fn client(ca: Option<&str>, identity: Option<&Pair>) -> io::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match ca {
        Some(ca) => builder.with_root_certificates(roots(ca)?),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider()))),
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(io::Error::other)?;
            builder.with_client_auth_cert(certificates(&pair.certificate)?, key).map_err(io::Error::other)?
        }
    };
    Ok(Arc::new(config))
}

/// Discovery does not know the CA yet: kubeadm's first request accepts any certificate, and what it gets is verified
/// by its signature afterwards.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
