//! Where the control plane is reached: with several masters, at something that outlives each of them.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Role;
use crate::model::names::Endpoint;
use crate::node::Node;
use std::net::IpAddr;

/// Refuses (`Configuration`) a master that may have others beside it, when `control_plane_endpoint` is this machine: every
/// node would lose the API server with it. Nothing is asked of workers, and of masters without `pki`.
pub fn refuse_own(node: &Node) -> Outcome<()> {
    let settings = &node.settings;
    let Some(endpoint) = settings.control_plane_endpoint.as_ref().filter(|_| settings.pki.is_some()) else {
        return Ok(());
    };
    if settings.role != Role::Master {
        return Ok(());
    }
    let host = &node.world.host;
    let own = Own {
        names: [node.identity.node_name.clone(), host.hostname()?],
        // Without a default route there is no other address than the node's.
        addresses: [Some(node.identity.address), host.default_address()?],
    };
    match own.is(endpoint) {
        None => Ok(()),
        Some(what) => {
            let attempted = format!("use `control_plane_endpoint: {endpoint}` for several masters");
            let why = format!("it is {what}: every node would lose the API server with this one machine");
            Err(Failure::new(Cause::Configuration, attempted, why).advise(
                "name a load balancer, a DNS name or a virtual address that leads to every master (docs/ha.md); one master alone needs \
                 no `pki`",
            ))
        }
    }
}

/// What this machine is called, and where it is.
struct Own {
    names: [String; 2],
    addresses: [Option<IpAddr>; 2],
}

impl Own {
    /// What of this machine the endpoint is; `None` when it is something else. A loopback address is not one machine: it may
    /// be a proxy that every machine has (`doctor` warns of it).
    fn is(&self, endpoint: &Endpoint) -> Option<&'static str> {
        let host = endpoint.host();
        let address: Option<IpAddr> = host.parse().ok();
        if address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        if address.is_some_and(|address| address.is_unspecified() || self.addresses.contains(&Some(address))) {
            return Some("this machine's own address");
        }
        let is_ours = |name: &String| name.eq_ignore_ascii_case(host);
        self.names.iter().any(is_ours).then_some("this machine's own name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_this_machine_is_known() {
        let own = Own {
            names: ["ip-10-0-0-1.eu-west-1.compute.internal".to_owned(), "Master-1".to_owned()],
            addresses: [Some([10, 0, 0, 1].into()), "fd00::1".parse().ok()],
        };
        let is = |text: &str| own.is(&Endpoint::parse(text).expect(text));
        for (endpoint, what) in [
            ("10.0.0.1:6443", "this machine's own address"),
            ("10.0.0.1:443", "this machine's own address"),
            ("[fd00::1]:6443", "this machine's own address"),
            ("0.0.0.0:6443", "this machine's own address"),
            ("ip-10-0-0-1.eu-west-1.compute.internal:6443", "this machine's own name"),
            ("master-1:6443", "this machine's own name"),
        ] {
            assert_eq!(is(endpoint), Some(what), "{endpoint}");
        }
        for other in
            ["api.prod.example.com:6443", "10.0.0.2:6443", "10.0.0.100:6443", "127.0.0.1:6443", "localhost:6443"]
        {
            assert_eq!(is(other), None, "{other}");
        }
    }
}
