//! Simpler forms of a scenario: one thing fewer goes wrong, or one machine fewer is there.

use super::{Fault, Scenario};
use std::time::Duration;

impl Scenario {
    /// Whatever can be left out of it, by name; what is there twice is named once.
    pub fn parts(&self) -> Vec<&'static str> {
        let mut parts: Vec<&'static str> = self.rates.in_use().map(Fault::name).collect();
        let mut calamities: Vec<&'static str> = self.calamities.iter().map(|calamity| calamity.name()).collect();
        calamities.sort_unstable();
        calamities.dedup();
        parts.extend(calamities);
        let others = [
            (self.skew > Duration::ZERO, "skew"),
            (self.worker_skew > Duration::ZERO, "worker-skew"),
            (self.boot_clock.is_some(), "boot-clock"),
            (self.no_list_permission, "no-list-permission"),
            (self.ec2_late, "ec2-late"),
            (!self.imds_late.is_zero(), "imds-late"),
            (self.foreign_master, "foreign-master"),
            (self.rash_operator, "rash-operator"),
            (self.clones > 0, "clone"),
            (self.rebuilt, "rebuilt"),
            (self.rolls, "rolls"),
            (self.images, "images"),
            (!self.first_alone.is_zero(), "first-alone"),
            (!self.stagger.is_zero(), "stagger"),
            (self.workers > self.clones, "worker"),
            (self.masters > 1, "master"),
        ];
        parts.extend(others.iter().filter(|(there, _)| *there).map(|(_, name)| *name));
        parts
    }

    /// How often a part is there: calamities and machines may be there more than once.
    fn times(&self, part: &str) -> u64 {
        let calamities = self.calamities.iter().filter(|calamity| calamity.name() == part).count() as u64;
        match part {
            "clone" => self.clones,
            "worker" => self.workers - self.clones,
            "master" => self.masters - 1,
            _ => calamities.max(u64::from(self.parts().contains(&part))),
        }
    }

    /// Its parts in one word for [`Scenario::only`]: what is there twice is named twice.
    pub fn parts_in_one_word(&self) -> String {
        let all = self.parts().into_iter().flat_map(|part| std::iter::repeat_n(part, self.times(part) as usize));
        all.collect::<Vec<_>>().join(",")
    }

    /// The same scenario with these parts and no others; the part that it does not have otherwise.
    pub fn only(&self, kept: &[&str]) -> Result<Scenario, String> {
        let wanted = |part: &str| kept.iter().filter(|known| **known == part).count() as u64;
        if let Some(part) = kept.iter().find(|part| wanted(part) > self.times(part)) {
            return Err((*part).to_owned());
        }
        let mut simpler = self.clone();
        for part in self.parts() {
            while simpler.times(part) > wanted(part) {
                simpler = simpler.without(part).ok_or_else(|| part.to_owned())?;
            }
        }
        Ok(simpler)
    }

    /// The same scenario without one of its [`Scenario::parts`]: a fault altogether, a calamity or a machine once.
    /// `None` when there is no such part.
    pub fn without(&self, part: &str) -> Option<Scenario> {
        let mut simpler = self.clone();
        if !self.parts().contains(&part) {
            return None;
        }
        if let Some(fault) = self.rates.in_use().find(|fault| fault.name() == part) {
            simpler.rates = self.rates.with(fault, 0);
            return Some(simpler);
        }
        if let Some(at) = self.calamities.iter().position(|calamity| calamity.name() == part) {
            simpler.calamities.to_mut().remove(at);
            return Some(simpler);
        }
        match part {
            "skew" => simpler.skew = Duration::ZERO,
            "worker-skew" => simpler.worker_skew = Duration::ZERO,
            "boot-clock" => simpler.boot_clock = None,
            "images" => simpler.images = false,
            "no-list-permission" => simpler.no_list_permission = false,
            "ec2-late" => simpler.ec2_late = false,
            "imds-late" => simpler.imds_late = Duration::ZERO,
            "foreign-master" => simpler.foreign_master = false,
            "rash-operator" => simpler.rash_operator = false,
            "clone" => (simpler.clones, simpler.workers) = (self.clones - 1, self.workers - 1),
            "rebuilt" => simpler.rebuilt = false,
            "rolls" => simpler.rolls = false,
            "first-alone" => simpler.first_alone = Duration::ZERO,
            "stagger" => simpler.stagger = Duration::ZERO,
            "worker" => simpler.workers -= 1,
            "master" => simpler.masters -= 1,
            _ => return None,
        }
        Some(simpler)
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario;

    #[test]
    fn every_part_of_every_scenario_can_be_left_out_and_is_gone_then() {
        for scenario in scenario::all() {
            let mut bare = scenario.clone();
            for _ in 0..200 {
                let Some(part) = bare.parts().first().copied() else { break };
                bare = bare.without(part).unwrap_or_else(|| panic!("{}: {part}", scenario.name));
            }
            assert_eq!(bare.parts(), Vec::<&str>::new(), "{}", scenario.name);
            assert!(bare.without("storm").is_none());
            let word = scenario.parts_in_one_word();
            let parts: Vec<&str> = word.split(',').filter(|part| !part.is_empty()).collect();
            assert_eq!(scenario.only(&parts).map(|same| same.parts_in_one_word()), Ok(word.clone()));
            assert_eq!(scenario.only(&[]).map(|bare| bare.parts_in_one_word()), Ok(String::new()));
            assert_eq!(scenario.only(&["storm"]).map(|_| ()), Err("storm".to_owned()));
        }
    }
}
