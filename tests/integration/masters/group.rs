//! A group of machines that are configured as masters with the same key: addresses of their own, EC2 identities, and a
//! balancer before their API servers.

use crate::http::Server;
use crate::network::Network;
use crate::process::{eventually, signal};
use crate::world::{Machine, World};
use serde_json::Value;

/// 32 bytes, in base64. Nothing else is sealed with it.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
/// kubeadm's minutes are seconds.
pub const QUICK: &str = "timeout_scale: 0.03\n";

/// The group. Everything ends with it.
pub struct Group {
    /// The store.
    pub world: World,
    /// The addresses.
    pub network: Network,
    _balancer: Server,
}

/// A master with its metadata service.
pub struct Master {
    /// The machine.
    pub machine: Machine,
    _imds: Server,
}

impl std::ops::Deref for Master {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Group {
    /// No machine yet.
    pub fn new() -> Group {
        let (world, network) = (World::new(), Network::new());
        let targets = world.path("targets");
        std::fs::write(&targets, network.targets()).expect("write");
        let balancer = Server::balancer(network.endpoint(), &targets);
        Group { world, network, _balancer: balancer }
    }

    /// A group with so many masters, which joined one after another.
    pub fn of(count: u8) -> (Group, Vec<Master>) {
        let group = Group::new();
        let join = |n| {
            let master = group.master(n);
            master.run(&["run", "--once"]).expect(0);
            master
        };
        let masters = (1..=count).map(join).collect();
        (group, masters)
    }

    /// The machine number n, called `m<n>`.
    pub fn master(&self, n: u8) -> Master {
        self.named(n, &format!("m{n}"), n)
    }

    /// A machine that has a name and an address which may be another one's.
    pub fn named(&self, n: u8, name: &str, address: u8) -> Master {
        let pki = "pki: { key_file: /etc/kubestrap/pki.key }\n";
        let master = self.with(n, name, address, pki);
        master.write("/etc/kubestrap/pki.key", KEY);
        master.set_mode("/etc/kubestrap/pki.key", 0o600);
        master
    }

    /// A machine with this about the PKI in its configuration.
    pub fn with(&self, n: u8, name: &str, address: u8, pki: &str) -> Master {
        let instance = format!(
            "instances: [{{instance_id: i-{n:017x}, account: '123456789012', region: eu-central-1, availability_zone: \
             eu-central-1b, instance_type: m7g.large, image_id: ami-0abc, private_ip: {}, local_hostname: {name}}}]\n",
            self.network.address(address)
        );
        let imds = Server::imds(&self.world, &instance);
        let (store, port) = (self.world.path("store").display().to_string(), self.network.port);
        let nobody = "http://127.0.0.1:9";
        let machine = self.world.bare_machine(
            &format!("root{n}"),
            &format!(
                "cluster: prod\nrole: master\nstore: file://{store}\nidentity: ec2\ncontrol_plane_endpoint: '{}'\n\
                 aws: {{ metadata_endpoint: '{}', ec2_endpoint: '{nobody}', ecr_endpoint: '{nobody}' }}\n\
                 ecr: {{ enabled: false }}\nkubeadm:\n  ClusterConfiguration: {{ encryptionAlgorithm: ECDSA-P256 }}\n  \
                 InitConfiguration: {{ localAPIEndpoint: {{ bindPort: {port} }} }}\n  JoinConfiguration: \
                 {{ controlPlane: {{ localAPIEndpoint: {{ bindPort: {port} }} }} }}\n{pki}",
                self.network.endpoint(),
                imds.url()
            ),
        );
        machine.script(QUICK);
        Master { machine, _imds: imds }
    }

    /// The join lock; none when nobody joins.
    pub fn lock(&self) -> Option<Value> {
        self.world.object("join/control-plane.lock")
    }
}

impl Master {
    /// etcd's members as the stand-in has them: name, and whether it votes.
    pub fn members(&self) -> Vec<(String, bool)> {
        let objects = self.path("/var/lib/etcd/standin.json").canonicalize().expect("etcd's data");
        let text = std::fs::read_to_string(objects.with_file_name("standin-members.json")).expect("members");
        let cluster: Value = serde_json::from_str(&text).expect("JSON");
        let members = cluster["members"].as_array().expect("members").iter();
        members
            .map(|member| (member["name"].as_str().expect("a name").to_owned(), member["learner"] == false))
            .collect()
    }

    /// Names of the members that vote.
    pub fn voters(&self) -> Vec<String> {
        self.members().into_iter().filter(|(_, votes)| *votes).map(|(name, _)| name).collect()
    }

    /// The power is gone: whatever runs here ends, and its kubelet is not heard of again.
    pub fn cut_power(&self) {
        self.write("/run/kubestrap-standin/off", "");
        let root = self.root().display().to_string();
        let own = || {
            let (folder, word) = (format!("{root}/"), format!("{root} "));
            let found = crate::process::processes_of(&folder).into_iter();
            // Not the metadata service nor the balancer, which only live beside it.
            found.chain(crate::process::processes_of(&word)).filter(|(_, line)| !line.contains("-standin "))
        };
        own().for_each(|(pid, _)| signal(pid, nix::sys::signal::Signal::SIGKILL));
        eventually("nothing runs any more", || own().all(|(_, line)| line.is_empty()));
    }
}
