//! Whose file is it? What a package brought and nobody changed may be configured; what a person wrote may not.

use super::containerd::QUICK;
use crate::host::Host;
use kubestrap_core::model::cause::{Cause, Outcome};

/// Whether a package of the distribution owns the file and its content is the package's. `false` where neither dpkg nor
/// rpm knows it.
pub async fn is_a_packages_own(host: &Host, path: &str) -> Outcome<bool> {
    if !host.exists(path)? {
        return Ok(false);
    }
    let root = host.root().display().to_string();
    if host.exists("/usr/bin/dpkg-query")? {
        let owner = ask(host, &["dpkg-query", &format!("--root={root}"), "-S", path]).await?;
        let Some(package) = owner.as_deref().and_then(package_in) else { return Ok(false) };
        let verified = ask_whatever(host, &["dpkg", &format!("--root={root}"), "--verify", package]).await?;
        return Ok(verified.is_some_and(|said| is_unchanged(&said, path)));
    }
    if host.exists("/var/lib/rpm")? || host.exists("/usr/lib/sysimage/rpm")? {
        let owner = ask(host, &["rpm", "--root", &root, "-q", "--file", path]).await?;
        if owner.is_none() {
            return Ok(false);
        }
        let verified = ask_whatever(host, &["rpm", "--root", &root, "-V", "--file", path]).await?;
        return Ok(verified.is_some_and(|said| is_unchanged(&said, path)));
    }
    Ok(false)
}

/// Standard output of a tool that ended well; `None` when it did not, or is not there.
async fn ask(host: &Host, argv: &[&str]) -> Outcome<Option<String>> {
    match host.run(argv, QUICK).await {
        Ok(ended) => Ok(ended.is_well().then_some(ended.stdout)),
        Err(failure) if failure.cause == Cause::ToolMissing => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The same however it ended: verifying ends with 1 when a file differs.
async fn ask_whatever(host: &Host, argv: &[&str]) -> Outcome<Option<String>> {
    match host.run(argv, QUICK).await {
        Ok(ended) => Ok(ended.code.map(|_| ended.stdout)),
        Err(failure) if failure.cause == Cause::ToolMissing => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The package in a line of `dpkg-query -S`: `containerd: /etc/containerd/config.toml`.
fn package_in(said: &str) -> Option<&str> {
    let (package, _) = said.lines().next()?.rsplit_once(": ")?;
    (!package.contains([' ', ','])).then_some(package)
}

/// Whether no line of `dpkg --verify` or `rpm -V` names the file.
fn is_unchanged(said: &str, path: &str) -> bool {
    !said.lines().any(|line| line.split_whitespace().next_back() == Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_changes_are_read() {
        assert_eq!(package_in("containerd: /etc/containerd/config.toml\n"), Some("containerd"));
        assert_eq!(package_in("containerd.io:amd64: /etc/x\n"), Some("containerd.io:amd64"));
        assert_eq!(package_in("a, b: /etc/x\n"), None);
        assert!(is_unchanged("??5?????? c /etc/other\n", "/etc/containerd/config.toml"));
        assert!(!is_unchanged("??5?????? c /etc/containerd/config.toml\n", "/etc/containerd/config.toml"));
        assert!(is_unchanged("", "/etc/x"));
    }
}
