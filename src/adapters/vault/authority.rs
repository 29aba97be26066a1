//! Certificates: authorities as kubeadm's `certs` phases make them (cmd/kubeadm/app/phases/certs/certlist.go,
//! util/pkiutil), and short-lived clients of one.

use kubestrap_core::kubeadm::machine::ca_hash;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::names::CaHash;
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::{Authorities, ClientRequest, KeyAlgorithm, KeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SanType, date_time_ymd,
};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// kubeadm's `CertificateBackdate`: clocks of other machines may be behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// The four of a cluster, with kubeadm's names.
pub(super) fn all(algorithm: KeyAlgorithm, life: Duration) -> Outcome<Authorities> {
    let authority = |name: &str| {
        authority(name, algorithm, life)
            .map_err(|error| Failure::new(Cause::Internal, format!("make the authority {name}"), error.to_string()))
    };
    let key = key(algorithm)
        .map_err(|error| Failure::new(Cause::Internal, "make the key of service accounts", error.to_string()))?;
    let service_accounts = KeyPair { public: key.public_key_pem(), private: Secret::new(key.serialize_pem()) };
    Ok(Authorities {
        cluster: authority("kubernetes")?,
        front_proxy: authority("front-proxy-ca")?,
        etcd: authority("etcd-ca")?,
        service_accounts,
    })
}

fn key(algorithm: KeyAlgorithm) -> Result<rcgen::KeyPair, rcgen::Error> {
    let rsa = |size| rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
    match algorithm {
        KeyAlgorithm::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyAlgorithm::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyAlgorithm::Rsa4096 => rsa(RsaKeySize::_4096),
        KeyAlgorithm::EcdsaP256 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::EcdsaP384 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
    }
}

fn authority(name: &str, algorithm: KeyAlgorithm, life: Duration) -> Result<KeyPair, rcgen::Error> {
    let key = key(algorithm)?;
    let mut params = lasting(life);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?;
    Ok(KeyPair { public: certificate.pem(), private: Secret::new(key.serialize_pem()) })
}

/// Nothing but the times.
fn lasting(life: Duration) -> CertificateParams {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATE);
    params.not_after = epoch + since_epoch.saturating_add(life);
    params
}

/// With a key of its own, of P-256: it lives for minutes.
pub(super) fn client(authority: &KeyPair, request: &ClientRequest) -> Outcome<KeyPair> {
    let failed =
        |why: String| Failure::new(Cause::PkiRejected, format!("make a certificate for {}", request.user), why);
    let own = |what: &str, error: rcgen::Error| failed(format!("the authority's {what} cannot be used: {error}"));
    let signer = rcgen::KeyPair::from_pem(authority.private.expose()).map_err(|error| own("private key", error))?;
    let named =
        ca_hash(authority.public.as_bytes()).map_err(|why| failed(format!("the authority's certificate: {why}")))?;
    if CaHash::from_digest(&Sha256::digest(signer.subject_public_key_info()).into()) != named {
        return Err(failed("the authority's certificate and private key do not belong together".to_owned()));
    }
    let issuer = Issuer::from_ca_cert_pem(&authority.public, signer).map_err(|error| own("certificate", error))?;
    let sign = || -> Result<KeyPair, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = lasting(request.life);
        if !request.group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, request.group.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, request.user.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(KeyPair { public: certificate.pem(), private: Secret::new(key.serialize_pem()) })
    };
    sign().map_err(|error| failed(error.to_string()))
}
