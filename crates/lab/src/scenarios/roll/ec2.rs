//! EC2 as its customers see it: every instance of a group that lives has a machine of its own, with the user-data of the
//! group and the image the group launched it with; what was terminated has lost its power.

use crate::Result;
use crate::account::Instance;
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};

/// The machines of a group.
pub struct Ec2 {
    group: String,
    user_data: String,
    broken: Option<String>,
    machines: Vec<(Instance, Machine)>,
}

/// What EC2 did to an instance.
pub enum Change {
    /// Its machine is on.
    Launched(Instance),
    /// Its machine is off.
    Terminated(Instance),
}

impl Ec2 {
    /// Nothing yet of this group, whose template has this user-data.
    pub fn new(group: &str, user_data: String) -> Ec2 {
        Ec2 { group: group.to_owned(), user_data, broken: None, machines: Vec::new() }
    }

    /// There is no kubestrap on this image: its machines boot, and join nothing.
    pub fn breaks(&mut self, image: &str) {
        self.broken = Some(image.to_owned());
    }

    /// What was wrong with the image is mended: machines that are launched from now on join.
    pub fn is_mended(&mut self) {
        self.broken = None;
    }

    /// Brings the machines to where the instances are: what was done, in order.
    pub fn settle(&mut self, lab: &mut Lab) -> Result<Vec<Change>> {
        let mut done = Vec::new();
        let now = lab.fabric().instances(&self.group)?;
        let lives = |id: &str| now.iter().any(|one| one.id == id && one.is_alive());
        // One that a group terminates is no longer among its instances.
        for (known, machine) in self.machines.iter_mut().filter(|(known, _)| known.is_alive() && !lives(&known.id)) {
            // Its number stays taken: no later Node has its name.
            machine.power_cut()?;
            "terminated".clone_into(&mut known.state);
            done.push(Change::Terminated(known.clone()));
        }
        for instance in now.iter().filter(|one| one.is_alive()) {
            if self.machine(&instance.id).is_none() {
                let machine = self.launch(lab, instance)?;
                self.machines.push((instance.clone(), machine));
                done.push(Change::Launched(instance.clone()));
            }
        }
        Ok(done)
    }

    fn launch(&self, lab: &mut Lab, instance: &Instance) -> Result<Machine> {
        let boot = if self.broken.as_ref() == Some(&instance.image) { Boot::Plain } else { Boot::Baked };
        let name = format!("w{}", self.machines.len() + 1);
        let spec = Spec::new(&name).user_data(self.user_data.clone()).instance(instance.clone()).boot(boot);
        let machine = lab.machine(&spec)?;
        machine.power_on()?;
        Ok(machine)
    }

    /// The machine of an instance.
    pub fn machine(&self, instance: &str) -> Option<&Machine> {
        self.machines.iter().find(|(known, _)| known.id == instance).map(|(_, machine)| machine)
    }

    /// The machines that are on, with their instances.
    pub fn alive(&self) -> impl Iterator<Item = &(Instance, Machine)> {
        self.machines.iter().filter(|(instance, _)| instance.is_alive())
    }
}
