//! Certificates as kubeadm makes them: ECDSA P-256 keys, CAs of ten years, leaves of one, backdated five minutes
//! (kubeadm `constants.go`, `certlist.go`).

use crate::files;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::{Decode, DecodePem, Encode};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Life of a CA (kubeadm `CACertificateValidityPeriod`).
pub const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// Life of a leaf (kubeadm `CertificateValidityPeriod`).
pub const LEAF_LIFE: Duration = DAY.saturating_mul(365);
/// Certificates begin this long ago (kubeadm `CertificateBackdate`), for clocks are never equal.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// Certificate.
    pub certificate: String,
    /// Private key, PKCS #8.
    pub key: String,
}

/// What a leaf is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Client authentication.
    Client,
    /// Server authentication.
    Server,
    /// Both (etcd).
    Both,
}

/// What a leaf says.
pub struct Leaf<'a> {
    /// Common name: the user.
    pub name: &'a str,
    /// Organizations: the groups.
    pub groups: &'a [String],
    /// DNS names and addresses.
    pub sans: &'a [String],
    /// Usage.
    pub usage: Usage,
    /// Life.
    pub life: Duration,
}

/// A new CA.
///
/// # Errors
/// When the library refuses, which it does not for names like ours.
pub fn make_ca(name: &str, life: Duration) -> io::Result<Pair> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(io::Error::other)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    set_life(&mut params, life);
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A leaf signed by a CA.
///
/// # Errors
/// When the CA's files are not a CA, or a name can not be in a certificate.
pub fn make_leaf(ca: &Pair, leaf: &Leaf<'_>) -> io::Result<Pair> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = leaf_params(leaf)?.signed_by(&key, &issuer(ca)?).map_err(io::Error::other)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A key pair and a PKCS #10 request, PEM, for a client certificate of this user and these groups.
///
/// # Errors
/// As [`make_leaf`].
pub fn make_request(name: &str, groups: &[String]) -> io::Result<(String, String)> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let leaf = Leaf { name, groups, sans: &[], usage: Usage::Client, life: LEAF_LIFE };
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.distinguished_name = subject(&leaf);
    let request = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(io::Error::other)?;
    Ok((key.serialize_pem(), request))
}

/// Signs a PKCS #10 request as a client certificate; the subject is the request's.
///
/// # Errors
/// When the request does not parse, its signature is wrong, or the CA's files are not a CA.
pub fn sign_request(ca: &Pair, request: &str, life: Duration) -> io::Result<String> {
    let mut csr = rcgen::CertificateSigningRequestParams::from_pem(request).map_err(io::Error::other)?;
    csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    csr.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    set_life(&mut csr.params, life);
    Ok(csr.signed_by(&issuer(ca)?).map_err(io::Error::other)?.pem())
}

/// The subject of a request: user and groups.
///
/// # Errors
/// When it does not parse or has no common name.
pub fn request_subject(request: &str) -> io::Result<(String, Vec<String>)> {
    let csr = rcgen::CertificateSigningRequestParams::from_pem(request).map_err(io::Error::other)?;
    let text = |value: &rcgen::DnValue| match value {
        rcgen::DnValue::Utf8String(text) => text.clone(),
        rcgen::DnValue::PrintableString(text) => text.as_str().to_owned(),
        other => format!("{other:?}"),
    };
    let name = csr.params.distinguished_name.get(&DnType::CommonName).map(text);
    let groups = csr.params.distinguished_name.iter().filter(|(ty, _)| **ty == DnType::OrganizationName);
    Ok((
        name.ok_or_else(|| io::Error::other("the request has no common name"))?,
        groups.map(|(_, v)| text(v)).collect(),
    ))
}

/// Common name and organizations of the first certificate of a PEM text.
///
/// # Errors
/// When it does not parse.
pub fn pem_subject(pem: &str) -> io::Result<(String, Vec<String>)> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    certificate_subject(&CertificateDer::from_pem_slice(pem.as_bytes()).map_err(io::Error::other)?)
}

/// Common name and organizations of a DER certificate.
///
/// # Errors
/// When it does not parse.
pub fn certificate_subject(der: &[u8]) -> io::Result<(String, Vec<String>)> {
    let certificate = Certificate::from_der(der).map_err(io::Error::other)?;
    let (mut name, mut groups) = (String::new(), Vec::new());
    for attribute in certificate.tbs_certificate().subject().iter() {
        let value = String::from_utf8_lossy(attribute.value.value()).into_owned();
        match attribute.oid.to_string().as_str() {
            "2.5.4.3" => name = value,
            "2.5.4.10" => groups.push(value),
            _ => {}
        }
    }
    Ok((name, groups))
}

/// The pin of a PEM certificate: `sha256:` and the lower-case hex SHA-256 of its SubjectPublicKeyInfo (`pubkeypin`).
///
/// # Errors
/// When it does not parse.
pub fn pin(certificate: &str) -> io::Result<String> {
    let certificate = Certificate::from_pem(certificate).map_err(io::Error::other)?;
    let key = certificate.tbs_certificate().subject_public_key_info().to_der().map_err(io::Error::other)?;
    Ok(format!("sha256:{}", files::hex(&Sha256::digest(key))))
}

/// Whether a PEM certificate is of an authority.
///
/// # Errors
/// When it does not parse.
pub fn is_authority(certificate: &str) -> io::Result<bool> {
    let certificate = Certificate::from_pem(certificate).map_err(io::Error::other)?;
    let found = certificate.tbs_certificate().get_extension::<x509_cert::ext::pkix::BasicConstraints>();
    Ok(found.map_err(io::Error::other)?.is_some_and(|(_, constraints)| constraints.ca))
}

/// Whether an authority's private key is the one of its certificate.
///
/// # Errors
/// When one of them does not parse.
pub fn belong_together(ca: &Pair) -> io::Result<bool> {
    let certificate = Certificate::from_pem(&ca.certificate).map_err(io::Error::other)?;
    let public = certificate.tbs_certificate().subject_public_key_info().to_der().map_err(io::Error::other)?;
    let key = KeyPair::from_pem(&ca.key).map_err(io::Error::other)?;
    Ok(rcgen::PublicKeyData::subject_public_key_info(&key) == public)
}

/// When a PEM certificate ends.
///
/// # Errors
/// When it does not parse.
pub fn expiry(certificate: &str) -> io::Result<Timestamp> {
    let certificate = Certificate::from_pem(certificate).map_err(io::Error::other)?;
    let seconds = certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
    Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).map_err(io::Error::other)
}

/// Reads `<base>.crt` and `<base>.key`.
///
/// # Errors
/// When one of them can not be read.
pub fn read_pair(base: &Path) -> io::Result<Pair> {
    let with =
        |ending: &str| base.with_file_name(format!("{}.{ending}", base.file_name().unwrap_or_default().display()));
    Ok(Pair { certificate: files::read_text(&with("crt"))?, key: files::read_text(&with("key"))? })
}

/// Writes `<base>.crt` (0644) and `<base>.key` (0600), the modes of kubeadm's `pkiutil`.
///
/// # Errors
/// What the operating system says.
pub fn write_pair(base: &Path, pair: &Pair) -> io::Result<()> {
    let with =
        |ending: &str| base.with_file_name(format!("{}.{ending}", base.file_name().unwrap_or_default().display()));
    files::write(&with("key"), pair.key.as_bytes(), 0o600)?;
    files::write(&with("crt"), pair.certificate.as_bytes(), 0o644)
}

/// A key pair for service account tokens: private and public key, PEM.
///
/// # Errors
/// When there is no randomness.
pub fn make_service_account_key() -> io::Result<(String, String)> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn issuer(ca: &Pair) -> io::Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&ca.key).map_err(io::Error::other)?;
    Issuer::from_ca_cert_pem(&ca.certificate, key).map_err(io::Error::other)
}

fn subject(leaf: &Leaf<'_>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    for group in leaf.groups {
        subject.push(DnType::OrganizationName, group.as_str());
    }
    subject.push(DnType::CommonName, leaf.name);
    subject
}

fn leaf_params(leaf: &Leaf<'_>) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(leaf.sans.to_vec()).map_err(io::Error::other)?;
    params.distinguished_name = subject(leaf);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match leaf.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    set_life(&mut params, leaf.life);
    Ok(params)
}

fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = Duration::from_secs(u64::try_from(Timestamp::now().as_second()).unwrap_or_default());
    params.not_before = date_time_ymd(1970, 1, 1) + now - BACKDATE;
    params.not_after = date_time_ymd(1970, 1, 1) + now + life;
}
