//! containerd's `<config_path>/<host>/hosts.toml`: the login for its own pulls (containerd docs/hosts.md).
//!
//! containerd reads the file anew for every pull, so a changed login needs no restart. What the agent must know of a
//! login after a restart (when it ends, when a new one is due) stands in the file itself: the machine is the truth.

use crate::model::secret::Secret;
use jiff::Timestamp;

/// The name of the file in a host's folder.
pub const NAME: &str = "hosts.toml";
/// The mode of the file: it holds a password.
pub const MODE: u32 = 0o600;
/// More than the largest login, which is some 3 KiB.
pub const MAX: u64 = 64 * 1024;
/// What the first line of our files begins with. A file without it belongs to somebody else.
const MARKER: &str = "# Written by kubestrap";
/// What the line with the times begins with.
const TIMES: &str = "# login ";

/// The times of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When it ends.
    pub expires_at: Timestamp,
    /// When a new one is due.
    pub refresh_at: Timestamp,
}

/// Whose file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Ours; without times when they cannot be read, and then the login is as good as dead.
    Ours(Option<Times>),
    /// Somebody else's.
    Foreign,
}

/// Names of the folders that containerd looks for, in its order; the first that exists is read, and no other
/// (`hostPaths` in containerd's remotes/docker/config): a port is written with underscores for the sake of Windows.
pub fn folders(host: &str) -> Vec<String> {
    match host.rsplit_once(':') {
        Some((name, port)) => vec![format!("{name}_{port}_"), host.to_owned()],
        None => vec![host.to_owned()],
    }
}

/// Whose file this is.
pub fn owner(bytes: &[u8]) -> Owner {
    let Ok(text) = std::str::from_utf8(bytes) else { return Owner::Foreign };
    if text.starts_with(MARKER) { Owner::Ours(times(text)) } else { Owner::Foreign }
}

fn times(text: &str) -> Option<Times> {
    let line = text.lines().find_map(|line| line.strip_prefix(TIMES))?;
    let mut words = line.split_ascii_whitespace();
    let mut after = |word: &str| words.next().filter(|found| *found == word).and(words.next())?.parse().ok();
    Some(Times { expires_at: after("expires")?, refresh_at: after("refresh")? })
}

/// The file for a host. `authorities` are CA certificates that lie in the host's folder: with a hosts.toml beside them
/// containerd no longer finds them by itself.
pub fn render(host: &str, basic: &Secret, times: Times, authorities: &[String]) -> Secret {
    let Times { expires_at, refresh_at } = times;
    let ca = match authorities {
        [] => String::new(),
        list => format!("ca = [{}]\n", list.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(", ")),
    };
    let (url, basic) = (quoted(&format!("https://{host}")), quoted(basic.expose()));
    Secret::new(format!(
        "{MARKER}: the login of ECR for containerd's own pulls, replaced before it ends.\n\
         # A file without that line is yours, and is left alone.\n\
         {TIMES}expires {expires_at} refresh {refresh_at}\n\
         server = {url}\n\n\
         [host.{url}]\n\
         capabilities = [\"pull\", \"resolve\"]\n\
         {ca}\n\
         [host.{url}.header]\n\
         authorization = {basic}\n"
    ))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn some_times() -> Times {
        Times { expires_at: at(1_800_000_000), refresh_at: at(1_799_978_400) }
    }

    #[test]
    fn the_file_is_what_containerd_documents() {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let file = render(host, &Secret::new("Basic QVdTOnA="), some_times(), &[]);
        insta::assert_snapshot!(file.expose());
        let with_ca = render("m.corp.example:5000", &Secret::new("Basic x"), some_times(), &["/c/a\"b.crt".to_owned()]);
        assert!(with_ca.expose().contains("\nca = [\"/c/a\\\"b.crt\"]\n"), "{}", with_ca.expose());
        assert!(with_ca.expose().contains("[host.\"https://m.corp.example:5000\".header]"));
    }

    #[test]
    fn our_files_tell_their_times_and_all_others_are_foreign() {
        let ours = render("a.example", &Secret::new("Basic x"), some_times(), &[]);
        assert_eq!(owner(ours.expose().as_bytes()), Owner::Ours(Some(some_times())));
        let damaged = ours.expose().replace("expires 2027", "expires x2027");
        assert_eq!(owner(damaged.as_bytes()), Owner::Ours(None));
        assert_eq!(owner(ours.expose().replace(TIMES, "# ").as_bytes()), Owner::Ours(None));
        for foreign in ["", "server = \"https://a.example\"\n", "\n# Written by kubestrap", "# Written by hand"] {
            assert_eq!(owner(foreign.as_bytes()), Owner::Foreign, "{foreign:?}");
        }
        assert_eq!(owner(&[0xff, 0xfe]), Owner::Foreign);
    }

    #[test]
    fn a_port_has_two_folders_and_the_first_one_wins() {
        assert_eq!(folders("a.example"), ["a.example"]);
        assert_eq!(folders("a.example:5000"), ["a.example_5000_", "a.example:5000"]);
    }
}
