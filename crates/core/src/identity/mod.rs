//! Who this machine is: from EC2 (IMDSv2 alone) or from the host itself, decided without waiting for a time-out on bare
//! metal.

mod ec2;
mod host;
mod imds;
mod owner;

pub use imds::{Imds, Tell};
pub use owner::bind_state;

use crate::config::settings::{IdentitySource, NodeSettings};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Identity;
use crate::model::names::is_dns_name;
use crate::ports::Files;
use crate::world::World;
use std::path::Path;

/// Whether a text of the firmware, in lower case, is Amazon's.
type Sign = fn(&str) -> bool;

/// What the firmware says on EC2: Nitro and Xen, virtual and metal (AWS "Detect whether a host is an EC2 instance").
const FIRMWARE: &[(&str, Sign)] = &[
    ("/sys/class/dmi/id/sys_vendor", is_amazon),
    ("/sys/class/dmi/id/bios_vendor", is_amazon),
    ("/sys/class/dmi/id/board_asset_tag", is_instance_id),
    ("/sys/class/dmi/id/bios_version", |text| text.contains("amazon")),
    // Xen's own uuid. The product_uuid is not asked: on bare metal it is random, so that one in 4096 begins with
    // ec2 and would wait 5 minutes for a service that is not there.
    ("/sys/hypervisor/uuid", |text| text.starts_with("ec2")),
];

fn is_amazon(text: &str) -> bool {
    text == "amazon ec2"
}

/// `i-` and 8 or 17 hex digits; other vendors' asset tags begin with `i-` too.
fn is_instance_id(text: &str) -> bool {
    let digits = text.strip_prefix("i-").unwrap_or_default();
    matches!(digits.len(), 8 | 17) && digits.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether this machine is asked for by IMDS: what was configured, or what the firmware says. No network is used.
pub fn is_ec2(source: IdentitySource, files: &dyn Files) -> Outcome<bool> {
    match source {
        IdentitySource::Ec2 => return Ok(true),
        IdentitySource::Host => return Ok(false),
        IdentitySource::Auto => {}
    }
    for (path, says_ec2) in FIRMWARE {
        // Some are readable by root alone, or not there at all: the others decide.
        let Ok(Some(text)) = files.read(Path::new(path), 4096) else { continue };
        if says_ec2(&String::from_utf8_lossy(&text).trim().to_ascii_lowercase()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Finds out who this machine is; `node.name` and `node.address` of the configuration come first. On EC2 it waits up
/// to 5 minutes for the metadata service.
pub async fn discover(world: &World, imds: &Imds, source: IdentitySource, node: &NodeSettings) -> Outcome<Identity> {
    let found = if is_ec2(source, &*world.files)? {
        ec2::discover(imds, node).await?
    } else {
        host::discover(&*world.files, &*world.host, node)?
    };
    if !is_dns_name(&found.node_name) {
        let why = format!("{:?} is not a DNS name (lower-case letters, digits, - and .)", found.node_name);
        return Err(Failure::new(Cause::Configuration, "name this node", why).advise("set `node.name`"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cause::Outcome;
    use crate::ports::FileInfo;
    use std::collections::BTreeMap;

    /// Files that can only be read.
    pub(super) struct Texts(pub BTreeMap<&'static str, &'static str>);

    impl Files for Texts {
        fn read(&self, path: &Path, _limit: u64) -> Outcome<Option<Vec<u8>>> {
            Ok(path.to_str().and_then(|path| self.0.get(path)).map(|text| text.as_bytes().to_vec()))
        }
        fn stat(&self, _path: &Path) -> Outcome<Option<FileInfo>> {
            Ok(None)
        }
        fn list(&self, _folder: &Path) -> Outcome<Vec<String>> {
            Ok(Vec::new())
        }
        fn write(&self, path: &Path, _body: &[u8], _mode: u32) -> Outcome<()> {
            panic!("{} was written", path.display())
        }
        fn append(&self, path: &Path, _body: &[u8], _mode: u32) -> Outcome<()> {
            panic!("{} was written", path.display())
        }
        fn remove(&self, path: &Path) -> Outcome<()> {
            panic!("{} was removed", path.display())
        }
    }

    #[test]
    fn the_firmware_decides_and_bare_metal_waits_for_nobody() {
        let cases: &[(&'static str, &'static str, bool)] = &[
            ("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n", true),
            ("/sys/class/dmi/id/board_asset_tag", "i-0123456789abcdef0\n", true),
            ("/sys/class/dmi/id/bios_vendor", "Amazon EC2", true),
            (
                "/sys/class/dmi/id/bios_version",
                "4.11.amazon
",
                true,
            ),
            // One uuid in 4096 begins so on bare metal.
            ("/sys/class/dmi/id/product_uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF", false),
            ("/sys/class/dmi/id/board_asset_tag", "i-rack-7", false),
            ("/sys/hypervisor/uuid", "ec2e1916", true),
            ("/sys/class/dmi/id/sys_vendor", "Dell Inc.\n", false),
            ("/sys/class/dmi/id/product_uuid", "4c4c4544-0031", false),
        ];
        for (path, text, expected) in cases {
            let files = Texts(BTreeMap::from([(*path, *text)]));
            assert_eq!(is_ec2(IdentitySource::Auto, &files), Ok(*expected), "{path}: {text}");
        }
        let none = Texts(BTreeMap::new());
        assert_eq!(is_ec2(IdentitySource::Auto, &none), Ok(false));
        assert_eq!(is_ec2(IdentitySource::Ec2, &none), Ok(true));
        assert_eq!(is_ec2(IdentitySource::Host, &Texts(BTreeMap::from([(FIRMWARE[0].0, "Amazon EC2")]))), Ok(false));
    }
}
