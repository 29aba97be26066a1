//! The identity of a machine that is no EC2 instance.

use crate::config::settings::NodeSettings;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::{Identity, Origin};
use crate::ports::{Files, Host};
use std::collections::BTreeMap;
use std::path::Path;

/// systemd's machine-id(5): 32 lower-case hex digits.
const MACHINE_ID: &str = "/etc/machine-id";

pub(super) fn discover(files: &dyn Files, host: &dyn Host, node: &NodeSettings) -> Outcome<Identity> {
    let machine_id = machine_id(files)?;
    let node_name = match &node.name {
        Some(name) => name.clone(),
        None => name(&host.hostname()?)?,
    };
    let address = match node.address {
        Some(address) => address,
        None => host.default_address()?.ok_or_else(|| {
            Failure::new(Cause::Network, "find this machine's address", "there is no default route")
                .advise("bring the network up before kubestrap (After=network-online.target), or set `node.address`")
        })?,
    };
    Ok(Identity { origin: Origin::Host { machine_id }, node_name, address, provider_id: None, labels: BTreeMap::new() })
}

fn machine_id(files: &dyn Files) -> Outcome<String> {
    let wrong = |why: &str| {
        Failure::new(Cause::Configuration, format!("read {MACHINE_ID}"), why)
            .advise("run `systemd-machine-id-setup`; an image must be shipped with the file empty")
    };
    let text = files.read(Path::new(MACHINE_ID), 4096)?.ok_or_else(|| wrong("there is no such file"))?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    match text.as_str() {
        "" | "uninitialized" => Err(wrong("it has not been set up yet")),
        id if id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()) => Ok(id.to_ascii_lowercase()),
        _ => Err(wrong("it is not 32 hex digits")),
    }
}

fn name(hostname: &str) -> Outcome<String> {
    let name = hostname.trim().to_ascii_lowercase();
    if name.is_empty() || name == "localhost" || name.starts_with("localhost.") {
        let why = format!("the host name is {name:?}, which every machine has");
        return Err(
            Failure::new(Cause::Configuration, "name this node", why).advise("set the host name, or `node.name`")
        );
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Texts;
    use super::*;
    use std::net::IpAddr;
    use std::path::PathBuf;

    struct Machine(&'static str, Option<IpAddr>);

    impl Host for Machine {
        fn hostname(&self) -> Outcome<String> {
            Ok(self.0.to_owned())
        }
        fn default_address(&self) -> Outcome<Option<IpAddr>> {
            Ok(self.1)
        }
        fn program(&self) -> Outcome<PathBuf> {
            Ok(PathBuf::from("/usr/bin/kubestrap"))
        }
    }

    fn found(id: &'static str, machine: &Machine) -> Outcome<Identity> {
        discover(&Texts(BTreeMap::from([(MACHINE_ID, id)])), machine, &NodeSettings::default())
    }

    const ID: &str = "0123456789abcdef0123456789abcdef\n";

    #[test]
    fn a_machine_is_its_machine_id_name_and_address() {
        let machine = Machine("Node-7.example.com", "10.0.0.7".parse().ok());
        let found = found(ID, &machine).expect("identity");
        assert_eq!(found.key(), "machine-0123456789abcdef0123456789abcdef");
        assert_eq!((found.node_name.as_str(), found.provider_id), ("node-7.example.com", None));
    }

    #[test]
    fn what_cannot_identify_a_machine_is_refused() {
        let good = Machine("node-7", "10.0.0.7".parse().ok());
        for id in ["", "uninitialized\n", "../../etc/passwd", "0123"] {
            assert_eq!(found(id, &good).expect_err(id).cause, Cause::Configuration);
        }
        assert_eq!(found(ID, &Machine("localhost", good.1)).expect_err("name").cause, Cause::Configuration);
        assert_eq!(found(ID, &Machine("node-7", None)).expect_err("address").cause, Cause::Network);
    }
}
