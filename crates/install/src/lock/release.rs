//! Checksums that projects publish beside their files: only used when the configuration says so.

use super::{ChecksumFrom, Checksums, check_sha256};
use crate::catalog::{Arch, Versions};
use crate::download::{Http, Trouble, get, shown};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use url::Url;

/// The largest file of checksums, in bytes: runc's has a signature and a dozen lines.
const MAX: usize = 64 * 1024;
/// The longest time for such a file.
const PATIENCE: Duration = Duration::from_secs(30);
/// Attempts, and the pause before the second; it doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// Fetches what neither the configuration nor the lock knows from the projects themselves, over https.
///
/// It is never asked of a mirror: who can change the file there can change its checksum. Without a way to the projects,
/// write the checksums into the configuration.
pub async fn trust_releases(
    versions: &Versions,
    arch: Arch,
    checksums: &mut Checksums,
    http: &dyn Http,
) -> Outcome<()> {
    for component in checksums.unknown(versions, arch)? {
        let version = versions.of(component);
        let place = component.checksum_url(version, arch);
        let attempted = format!("learn the SHA-256 of {component} {version} ({arch}) from {place}");
        let url = Url::parse(&place).map_err(|error| Failure::new(Cause::Internal, &attempted, error.to_string()))?;
        let text = read(http, &url).await?;
        let sha256 = find(&text, &component.file(version, arch)).map_err(|why| {
            Failure::new(Cause::DownloadRejected, &attempted, why).advise("write the checksum into `install.checksums`")
        })?;
        let added = checksums.add(component, version, arch, &sha256, ChecksumFrom::Release);
        added.map_err(|why| Failure::new(Cause::DownloadRejected, &attempted, why))?;
    }
    Ok(())
}

async fn read(http: &dyn Http, url: &Url) -> Outcome<String> {
    let mut attempt = 0;
    loop {
        let late = || {
            let why = format!("it is not there after {} s", PATIENCE.as_secs());
            Trouble::Passing(Failure::new(Cause::DownloadUnavailable, format!("download {}", shown(url)), why))
        };
        match timeout(PATIENCE, read_once(http, url)).await.unwrap_or_else(|_| Err(late())) {
            Ok(text) => return Ok(text),
            Err(Trouble::Final(failure)) => return Err(failure),
            Err(Trouble::Passing(failure)) if attempt + 1 >= ATTEMPTS => return Err(failure),
            Err(Trouble::Passing(_)) => sleep(PAUSE * 2_u32.pow(attempt)).await,
        }
        attempt += 1;
    }
}

async fn read_once(http: &dyn Http, url: &Url) -> Result<String, Trouble> {
    let refuse =
        |why: String| Trouble::Final(Failure::new(Cause::DownloadRejected, format!("download {}", shown(url)), why));
    let mut answer = get(http, url).await?;
    let mut text = Vec::new();
    while let Some(piece) = answer.body.next().await? {
        text.extend_from_slice(&piece);
        if text.len() > MAX {
            return Err(refuse(format!("a file of checksums has at most {MAX} bytes")));
        }
    }
    String::from_utf8(text).map_err(|_| refuse("it is not text".to_owned()))
}

/// The digest of `file`: the only word of the text, or the first of the one line that ends with the name.
fn find(text: &str, file: &str) -> Result<String, String> {
    if let [only] = text.split_whitespace().collect::<Vec<_>>().as_slice() {
        return check_sha256(only);
    }
    let named = |line: &&str| {
        let name = line.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('*');
        name.strip_prefix("./").unwrap_or(name) == file
    };
    let mut lines = text.lines().filter(named);
    match (lines.next(), lines.next()) {
        (Some(line), None) => check_sha256(line.split_whitespace().next().unwrap_or_default()),
        (None, _) => Err(format!("it does not name {file}")),
        (Some(_), Some(_)) => Err(format!("it names {file} twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_alone_or_beside_its_name() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(find(&a, "kubeadm"), Ok(a.clone()));
        assert_eq!(find(&format!("{a}\n"), "kubeadm"), Ok(a.clone()));
        assert_eq!(find(&format!("{a}  x.tgz\n"), "x.tgz"), Ok(a.clone()));
        assert_eq!(find(&format!("{a} *./x.tgz\n"), "x.tgz"), Ok(a.clone()));
        let signed =
            format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{a}  runc.amd64\n{b}  runc.arm64\n-----BEGIN");
        assert_eq!(find(&signed, "runc.arm64"), Ok(b.clone()));
        assert!(find(&signed, "runc.riscv64").expect_err("absent").contains("does not name"));
        assert!(find(&format!("{a}  x\n{b}  x\n"), "x").expect_err("twice").contains("twice"));
        assert!(find("<html>404</html>", "x").is_err() && find("", "x").is_err());
        assert!(find(&format!("{a}  y-x.tgz\n"), "x.tgz").is_err());
    }
}
