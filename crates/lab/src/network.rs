//! The lab's network: a namespace with a bridge, and one more namespace for each machine.

use crate::Result;
use crate::command::{finish, program, run};
use std::net::Ipv4Addr;

/// The namespace with the bridge and the servers.
pub const NAMESPACE: &str = "kubestrap-lab";
/// The bridge's own address, every machine's gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where S3 and EC2 are. An address of their own: taking it away is an outage.
pub const AWS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where the other S3 server is.
pub const OTHER_S3: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Where the registry is that asks for credentials, and ECR's API.
pub const REGISTRY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
/// Where the registry's blobs lie, as ECR's lie in S3.
pub const BLOBS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
/// Where the load balancer before the API servers is.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 6);
/// Where instance metadata is.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The address of the machine with this number.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The hardware address of the machine with this number.
pub fn hardware_address(number: u8) -> String {
    format!("02:4d:00:00:00:{number:02x}")
}

/// The pods of the machine with this number.
pub fn pods(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// The network namespace of a machine.
pub fn namespace(machine: &str) -> String {
    format!("{NAMESPACE}-{machine}")
}

/// The bridge's end of a machine's cable; names of interfaces have at most 15 characters.
pub(crate) fn cable(machine: &str) -> String {
    format!("v-{machine}")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(&mut program("ip", arguments)).map(drop)
}

fn quietly(arguments: &[&str]) {
    let _ = finish(&mut program("ip", arguments));
}

/// Network namespaces of the lab that exist.
///
/// # Errors
/// When `ip netns` fails.
pub fn namespaces() -> Result<Vec<String>> {
    let text = run(&mut program("ip", &["netns", "list"]))?;
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let ours = names.filter(|name| *name == NAMESPACE || name.starts_with(&format!("{NAMESPACE}-")));
    Ok(ours.map(str::to_owned).collect())
}

/// Makes the bridge.
///
/// # Errors
/// When `ip` fails.
pub fn up() -> Result<()> {
    ip(&["netns", "add", NAMESPACE])?;
    let inside = |arguments: &[&str]| ip(&[&["-n", NAMESPACE], arguments].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["link", "add", "br0", "type", "bridge"])?;
    inside(&["link", "set", "br0", "address", &hardware_address(1)])?;
    inside(&["addr", "add", &format!("{GATEWAY}/24"), "dev", "br0"])?;
    for address in [AWS, OTHER_S3, REGISTRY, BLOBS, BALANCER, METADATA] {
        inside(&["addr", "add", &format!("{address}/32"), "dev", "br0"])?;
    }
    inside(&["link", "set", "br0", "up"])?;
    forward(NAMESPACE)
}

fn forward(namespace: &str) -> Result<()> {
    let script = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    ip(&["netns", "exec", namespace, "sh", "-c", script])
}

/// Takes an address of the fabric away, or puts it back.
///
/// # Errors
/// When `ip` fails.
pub fn set_address(address: Ipv4Addr, present: bool) -> Result<()> {
    let verb = if present { "add" } else { "del" };
    ip(&["-n", NAMESPACE, "addr", verb, &format!("{address}/32"), "dev", "br0"])
}

/// Pulls a machine's cable, or plugs it in again: the machine goes on, and nobody reaches it.
///
/// # Errors
/// When the machine is off, or `ip` fails.
pub fn set_cable(machine: &str, plugged: bool) -> Result<()> {
    ip(&["-n", NAMESPACE, "link", "set", &cable(machine), if plugged { "up" } else { "down" }])
}

/// Connects a machine: its namespace, `eth0`, its address and the routes.
///
/// # Errors
/// When `ip` fails.
pub fn connect(machine: &str, number: u8, metadata: bool) -> Result<()> {
    disconnect(machine);
    let (own, cable, address) = (namespace(machine), cable(machine), address(number).to_string());
    ip(&["netns", "add", &own])?;
    ip(&["-n", NAMESPACE, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
    ip(&["-n", NAMESPACE, "link", "set", &cable, "master", "br0", "up"])?;
    let inside = |arguments: &[&str]| ip(&[&["-n", &own], arguments].concat());
    inside(&["link", "set", "eth0", "address", &hardware_address(number)])?;
    inside(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    inside(&["link", "set", "lo", "up"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["route", "add", "default", "via", &GATEWAY.to_string()])?;
    if !metadata {
        // Bare metal: nobody answers, and nobody says so at once either.
        inside(&["route", "add", "blackhole", &format!("{METADATA}/32")])?;
    }
    ip(&["-n", NAMESPACE, "route", "replace", &pods(number), "via", &address])?;
    forward(&own)
}

/// Connects a virtual machine: the bridge's end of a cable whose other end is QEMU's.
///
/// # Errors
/// When `ip` fails.
pub fn plug(machine: &str, number: u8) -> Result<()> {
    disconnect(machine);
    let (cable, address) = (cable(machine), address(number).to_string());
    ip(&["-n", NAMESPACE, "tuntap", "add", "dev", &cable, "mode", "tap"])?;
    ip(&["-n", NAMESPACE, "link", "set", &cable, "master", "br0", "up"])?;
    ip(&["-n", NAMESPACE, "route", "replace", &pods(number), "via", &address])
}

/// Removes a machine's namespace and cable; nothing when they are not there.
pub fn disconnect(machine: &str) {
    quietly(&["netns", "del", &namespace(machine)]);
    quietly(&["-n", NAMESPACE, "link", "del", &cable(machine)]);
}

/// Lets a machine reach the pods of another one.
pub fn route_pods(machine: &str, other: u8) {
    let address = address(other).to_string();
    quietly(&["-n", &namespace(machine), "route", "replace", &pods(other), "via", &address]);
}

/// Removes everything; nothing when there is nothing.
pub fn down() {
    for name in namespaces().unwrap_or_default() {
        quietly(&["netns", "del", &name]);
    }
}

/// Processes in one of the lab's namespaces.
pub fn inhabitants(namespace: &str) -> Vec<i32> {
    let text = finish(&mut program("ip", &["netns", "pids", namespace])).map(|done| done.stdout).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_machine_follows_from_its_number() {
        assert_eq!(address(11).to_string(), "10.77.0.11");
        assert_eq!(hardware_address(27), "02:4d:00:00:00:1b");
        assert_eq!(pods(27), "10.244.27.0/24");
        assert!(cable("a-name-of-13c").len() <= 15);
    }
}
