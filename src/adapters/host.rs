//! Facts about the machine that are not in core's reach as files.

use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::Host;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

/// Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket to one makes the kernel choose the source
/// address of the default route; no packet is sent.
const FAR_AWAY: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// This machine.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose files lie below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Machine { root: root.into() }
    }
}

impl Host for Machine {
    /// `/etc/hostname` below the root when there is one and the root is not `/`; the kernel's otherwise.
    fn hostname(&self) -> Outcome<String> {
        let attempted = "read the host name";
        let file = self.root.join("etc/hostname");
        if self.root.as_path() != Path::new("/") && file.exists() {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                Failure::new(Cause::FileAccess, format!("{attempted} from {}", file.display()), error.to_string())
            })?;
            return Ok(text.trim().to_owned());
        }
        let name =
            nix::unistd::gethostname().map_err(|error| Failure::new(Cause::Internal, attempted, error.to_string()))?;
        name.into_string().map_err(|name| {
            let why = format!("{} is not UTF-8", name.to_string_lossy());
            Failure::new(Cause::Configuration, attempted, why).advise("set a host name with hostnamectl")
        })
    }

    fn default_address(&self) -> Outcome<Option<IpAddr>> {
        for (from, to) in FAR_AWAY {
            match source_address(from, to) {
                Ok(address) => return Ok(Some(address)),
                Err(error) if no_route(&error) => {}
                Err(error) => {
                    let attempted = format!("find the source address of the route to {to}");
                    return Err(Failure::new(Cause::Network, attempted, error.to_string()));
                }
            }
        }
        Ok(None)
    }

    fn program(&self) -> Outcome<PathBuf> {
        let attempted = "find the file of this program";
        let path =
            std::env::current_exe().map_err(|error| Failure::new(Cause::FileAccess, attempted, error.to_string()))?;
        // An upgrade replaces the file; Linux then calls ours "... (deleted)", and what is at its path is the new one.
        let text = path.to_string_lossy();
        let path = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text));
        Ok(path.strip_prefix(&self.root).map_or(path.clone(), |below| Path::new("/").join(below)))
    }
}

fn source_address(from: &str, to: &str) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to.parse::<SocketAddr>().map_err(std::io::Error::other)?)?;
    let address = socket.local_addr()?.ip();
    if address.is_unspecified() { Err(ErrorKind::NetworkUnreachable.into()) } else { Ok(address) }
}

/// Whether the kernel says that this address family has no such route, or is switched off.
fn no_route(error: &std::io::Error) -> bool {
    use nix::errno::Errno;
    let known = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT];
    error.kind() == ErrorKind::NetworkUnreachable
        || error.raw_os_error().is_some_and(|code| known.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_as_root_has_its_own_host_name() {
        let root = tempfile::tempdir().expect("tempdir");
        let machine = Machine::new(root.path());
        let kernel = nix::unistd::gethostname().expect("gethostname").into_string().expect("UTF-8");
        assert_eq!(machine.hostname(), Ok(kernel));
        std::fs::create_dir(root.path().join("etc")).expect("mkdir");
        std::fs::write(root.path().join("etc/hostname"), "worker-3\n").expect("write");
        assert_eq!(machine.hostname(), Ok("worker-3".to_owned()));
    }

    #[test]
    fn the_program_is_this_one_as_the_node_sees_it() {
        let own = std::env::current_exe().expect("a path");
        assert_eq!(Machine::new("/").program(), Ok(own.clone()));
        let name = Path::new("/").join(own.file_name().expect("a name"));
        assert_eq!(Machine::new(own.parent().expect("a folder")).program(), Ok(name));
        assert_eq!(Machine::new("/elsewhere").program(), Ok(own));
    }

    #[test]
    fn the_default_address_is_one_that_can_be_bound() {
        let address = Machine::new("/").default_address().expect("an answer");
        if let Some(address) = address {
            assert!(UdpSocket::bind((address, 0)).is_ok(), "{address} is not ours");
        }
    }
}
