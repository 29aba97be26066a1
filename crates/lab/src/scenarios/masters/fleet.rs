//! Machines of a cluster with several masters: all masters have the same user-data, and the load balancer's name is the
//! endpoint of all.

use super::super::support::{BUCKET, STAYS_ON_A_FULL_DISK, await_ready, user_data};
use crate::fabric::AWS_PORT;
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::network::AWS;
use crate::{Result, attempted, fail};
use base64::Engine;
use serde_json::Value;

/// Where the masters' key lies.
const KEY: &str = "/etc/kubestrap/pki.key";

/// What seals the cluster's private keys.
enum Seal {
    /// A file, the same on every master: its text.
    Key(String),
    /// A key of KMS: its ARN.
    Kms(String),
}

/// How machines of one cluster are made.
pub struct Fleet {
    /// The cluster's name.
    pub cluster: String,
    seal: Seal,
    more: String,
    boot: Boot,
    metal: bool,
}

impl Fleet {
    /// Masters on EC2 with a key file in their image. The balancer is there from now on.
    pub fn new(lab: &mut Lab, cluster: &str) -> Result<Fleet> {
        lab.fabric().bucket(BUCKET)?;
        lab.balance()?;
        let bytes = crate::machine::random_uuid() + &crate::machine::random_uuid();
        let bytes: Vec<u8> = bytes.bytes().filter(u8::is_ascii_hexdigit).take(32).collect();
        let key = base64::engine::general_purpose::STANDARD.encode(bytes);
        let (cluster, more) = (cluster.to_owned(), STAYS_ON_A_FULL_DISK.to_owned());
        Ok(Fleet { cluster, seal: Seal::Key(key), more, boot: Boot::Baked, metal: false })
    }

    /// Sealed by a new KMS key instead.
    pub fn kms(mut self, lab: &Lab) -> Result<Fleet> {
        self.seal = Seal::Kms(lab.fabric().kms_key()?);
        Ok(self)
    }

    /// Without EC2: keys of S3 in a file, names of their own.
    pub fn metal(mut self) -> Fleet {
        self.metal = true;
        self
    }

    /// Booting in another way. cloud-init writes the configuration and the key then.
    pub fn boot(mut self, boot: Boot) -> Fleet {
        self.boot = boot;
        self
    }

    /// With more configuration for the masters, instead of the one about full disks.
    pub fn more(mut self, text: &str) -> Fleet {
        text.clone_into(&mut self.more);
        self
    }

    fn pki(&self) -> String {
        match &self.seal {
            Seal::Key(_) => format!("pki: {{ key_file: {KEY} }}\n"),
            Seal::Kms(arn) => format!("pki: {{ kms_key_id: '{arn}' }}\n"),
        }
    }

    /// The configuration of every master.
    pub fn configuration(&self) -> Result<String> {
        Ok(user_data("master.kubestrap.yaml", &self.cluster)? + &self.pki() + &self.more)
    }

    /// The same as cloud-init's file, which writes the key too.
    fn cloud_config(&self) -> Result<String> {
        let line = |text: &str| format!("      {}\n", text.trim_end());
        let own = self.pki().lines().chain(self.more.lines()).map(line).collect::<String>();
        let mut text = user_data("master.cloud-config.yaml", &self.cluster)?.replace("runcmd:\n", &(own + "runcmd:\n"));
        if let Seal::Key(key) = &self.seal {
            let file = format!("  - path: {KEY}\n    permissions: \"0600\"\n    content: {key}\nruncmd:\n");
            text = text.replace("runcmd:\n", &file);
        }
        Ok(text)
    }

    /// A master, powered off.
    pub fn master(&self, lab: &mut Lab, name: &str) -> Result<Machine> {
        let mut spec = Spec::new(name).boot(self.boot);
        if self.boot == Boot::CloudInit {
            spec = spec.user_data(self.cloud_config()?);
        } else if let Seal::Key(key) = &self.seal {
            spec = spec.file_mode(KEY, format!("{key}\n"), 0o600);
        }
        self.machine(lab, spec, self.configuration()?)
    }

    /// A worker, powered off.
    pub fn worker(&self, lab: &mut Lab, name: &str) -> Result<Machine> {
        let spec = Spec::new(name).boot(if self.boot == Boot::Plain { Boot::Plain } else { Boot::Baked });
        self.machine(lab, spec, user_data("worker.kubestrap.yaml", &self.cluster)?)
    }

    fn machine(&self, lab: &mut Lab, mut spec: Spec, configuration: String) -> Result<Machine> {
        if self.metal {
            let s3 = format!("s3: {{ endpoint: 'http://{AWS}:{AWS_PORT}', region: us-east-1 }}\n");
            let keys = "[default]\naws_access_key_id = AKIALABLABLABLABLAB0\naws_secret_access_key = of-no-worth\n";
            spec = spec.file_mode("/etc/kubestrap/config.yaml", configuration + &s3, 0o600);
            spec = spec.file_mode("/root/.aws/credentials", keys, 0o600);
            spec.metadata = false;
        } else {
            // EC2 is believed about others only when it knows the asker.
            spec = spec.instance(lab.fabric().stock_instance()?);
            if spec.boot == Boot::Plain {
                spec = spec.file_mode("/etc/kubestrap/config.yaml", configuration, 0o600);
            } else if spec.user_data.is_none() {
                spec = spec.user_data(configuration);
            }
        }
        lab.machine(&spec)
    }

    /// Masters `m1`, `m2`, ..., powered off.
    pub fn masters(&self, lab: &mut Lab, count: usize) -> Result<Vec<Machine>> {
        (1..=count).map(|number| self.master(lab, &format!("m{number}"))).collect()
    }

    /// So many masters that are in place.
    pub fn in_place(&self, lab: &mut Lab, count: usize) -> Result<Vec<Machine>> {
        let masters = self.masters(lab, count)?;
        masters.iter().try_for_each(Machine::power_on)?;
        masters.iter().try_for_each(|master| await_ready(lab, master, master).map(drop))?;
        super::facts::is_whole(lab, self, &masters, &[])?;
        Ok(masters)
    }
}

/// The id that EC2 knows the machine by.
pub fn instance_of(machine: &Machine) -> Result<String> {
    let path = machine.folder().join("instance.json");
    let text = attempted(std::fs::read(&path), format!("read {}", path.display()))?;
    let instance: Value = attempted(serde_json::from_slice(&text), format!("read {}", path.display()))?;
    let id = instance["instance_id"].as_str().map(str::to_owned);
    id.map_or_else(|| fail(format!("{} has no instance id", machine.name())), Ok)
}

/// What EC2 does when a machine is terminated: its power is gone, and EC2 says so. Its address stays taken.
pub fn terminate(lab: &Lab, machine: &Machine) -> Result<()> {
    machine.power_cut()?;
    let id = instance_of(machine)?;
    lab.fabric().terminate(&id)?;
    lab.say(&format!("{} ({id}) has lost its power, and EC2 says that it is terminated", machine.name()));
    Ok(())
}
