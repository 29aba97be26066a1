//! Scenarios: stories with real machines, each with what it shows and what it needs.

mod boot;
mod cluster;
mod ecr;
mod install;
mod interrupted;
mod masters;
mod network;
mod outages;
mod roll;
mod service;
mod shipped;
mod support;
mod timing;
mod virtual_machine;

use crate::command::tail;
use crate::folder::{self, Folder, KUBERNETES};
use crate::lab::{Lab, Options};
use crate::{Result, fail, interrupt, logs, needs, vm};
use std::time::{Duration, Instant};

pub use support::cluster_of;

/// What a scenario cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Stand-ins for kubeadm and kubelet are enough, and are used even when the real ones are there.
    Nothing,
    /// Real kubeadm, kubelet, kubectl and images.
    Kubernetes,
    /// QEMU. Kubernetes is real where it is there; stand-ins are enough.
    VirtualMachine,
}

/// One story.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// Whether it leaves the shared cluster whole, which then stays for the next one that shares.
    pub shares: bool,
    /// Tells it.
    pub run: fn(&mut Lab) -> Result<()>,
}

/// All of them, in the order in which `all` runs them.
pub const SCENARIOS: &[&[Scenario]] = &[
    shipped::SCENARIOS,
    boot::SCENARIOS,
    service::SCENARIOS,
    ecr::SCENARIOS,
    timing::SCENARIOS,
    cluster::SCENARIOS,
    install::SCENARIOS,
    interrupted::SCENARIOS,
    outages::SCENARIOS,
    network::SCENARIOS,
    roll::SCENARIOS,
    masters::SCENARIOS,
    cluster::LATE,
    outages::AFTER_LATE,
    virtual_machine::SCENARIOS,
];

fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().flat_map(|family| family.iter())
}

/// Scenarios that are to be run.
pub struct Selection {
    scenarios: Vec<&'static Scenario>,
    ci: bool,
}

impl Selection {
    /// By their names, or `all`; everything for CI.
    ///
    /// # Errors
    /// When there is no scenario of a name, or nothing was chosen.
    pub fn parse(names: &[String], ci: bool) -> Result<Selection> {
        if ci || names.iter().any(|name| name == "all") {
            return Ok(Selection { scenarios: all().collect(), ci });
        }
        if names.is_empty() {
            return fail("name a scenario, or `all`; `cargo xtask lab run --list` shows them");
        }
        let find = |name: &String| match all().find(|scenario| scenario.name == name) {
            Some(scenario) => Ok(scenario),
            None => fail(format!("there is no scenario {name}; `cargo xtask lab run --list` shows them")),
        };
        Ok(Selection { scenarios: names.iter().map(find).collect::<Result<_>>()?, ci })
    }

    /// Those with this need. The ones that share a cluster follow each other; otherwise the order stays.
    fn of(&self, needs: Needs) -> Vec<&'static Scenario> {
        let mut chosen: Vec<_> = self.scenarios.iter().copied().filter(|scenario| scenario.needs == needs).collect();
        chosen.sort_by_key(|scenario| scenario.shares);
        chosen
    }

    /// What of it can be run on this machine. CI goes on where nothing can be, and says so in one line; others are told
    /// what is missing.
    ///
    /// # Errors
    /// When Kubernetes is needed and not there.
    pub fn possible(mut self, folder: &Folder) -> Result<Option<Selection>> {
        if self.ci
            && let Err(error) = needs::allowed(folder)
        {
            println!("lab: skipped: {error}");
            return Ok(None);
        }
        if self.ci {
            // It takes minutes, and what CI has no processor for shows nothing but time-outs.
            self.scenarios.retain(|scenario| scenario.needs != Needs::VirtualMachine);
        } else if self.scenarios.iter().any(|scenario| scenario.needs == Needs::VirtualMachine) {
            vm::check()?;
        }
        if folder::kubernetes(folder).is_none() {
            if !self.ci && self.scenarios.iter().any(|scenario| scenario.needs == Needs::Kubernetes) {
                return fail(no_kubernetes(folder));
            }
            let before = self.scenarios.len();
            self.scenarios.retain(|scenario| scenario.needs != Needs::Kubernetes);
            println!("lab: {} scenarios skipped: {}", before - self.scenarios.len(), no_kubernetes(folder));
        }
        Ok(Some(self))
    }
}

/// How to enable what needs Kubernetes.
pub fn no_kubernetes(folder: &Folder) -> String {
    let place = std::env::var(KUBERNETES).unwrap_or_else(|_| folder.path().join("k8s").display().to_string());
    format!(
        "there is no kubeadm in {place}; put kubeadm, kubelet, kubectl and images/*.tar there, or name another folder \
         with {KUBERNETES} (docs/lab.md says where they come from)"
    )
}

/// Prints what there is.
///
/// # Errors
/// None today.
pub fn list() -> Result<()> {
    for scenario in all() {
        let needs = match scenario.needs {
            Needs::Nothing => "",
            Needs::Kubernetes => "Kubernetes",
            Needs::VirtualMachine => "QEMU",
        };
        println!("{:<22} {:<11} {}", scenario.name, needs, scenario.about);
    }
    Ok(())
}

/// Each has a lab of its own, in this order.
const GROUPS: [Needs; 3] = [Needs::Nothing, Needs::Kubernetes, Needs::VirtualMachine];

struct Told {
    name: &'static str,
    took: Duration,
    error: Option<String>,
}

/// Runs them one after another, each with new machines; a table at the end.
///
/// # Errors
/// When one failed.
pub fn run(options: Options, selection: &Selection) -> Result<()> {
    let mut told = Vec::new();
    for (place, needs) in GROUPS.into_iter().enumerate() {
        let chosen = selection.of(needs);
        if chosen.is_empty() {
            continue;
        }
        let more = GROUPS[place + 1..].iter().any(|later| !selection.of(*later).is_empty());
        let kubernetes = options.kubernetes.clone().filter(|_| needs != Needs::Nothing);
        let mut lab = Lab::open(Options { kubernetes, keep: false, ..options.clone() })?;
        for (number, scenario) in chosen.iter().enumerate() {
            told.push(tell(&mut lab, scenario)?);
            interrupt::check()?;
            let next = chosen.get(number + 1);
            let failed = told.last().is_some_and(|one| one.error.is_some());
            match next {
                None if options.keep && !more => {
                    println!("\nThe machines stay up: `cargo xtask lab shell NAME`, `cargo xtask lab down`.");
                    lab.keep()?;
                    break;
                }
                Some(next) if scenario.shares && next.shares && !failed => support::only_master(&mut lab)?,
                _ => lab.clear()?,
            }
        }
    }
    table(&told)
}

fn tell(lab: &mut Lab, scenario: &'static Scenario) -> Result<Told> {
    println!();
    lab.say(&format!("== {}: {}", scenario.name, scenario.about));
    let began = Instant::now();
    let result = (scenario.run)(lab);
    let took = began.elapsed();
    let error = result.err().map(|error| error.to_string());
    if let Some(error) = &error {
        let place = logs::collect(&lab.machines(), &lab.folder().logs(), scenario.name)?;
        lab.say(&format!("== {} FAILED: {error}", scenario.name));
        lab.say(&format!("logs of all machines: {}", place.display()));
    } else {
        lab.say(&format!("== {}: passed after {:.1} s", scenario.name, took.as_secs_f64()));
    }
    Ok(Told { name: scenario.name, took, error })
}

fn table(told: &[Told]) -> Result<()> {
    println!("\n{:<22} {:>8}  RESULT", "SCENARIO", "SECONDS");
    for one in told {
        let result =
            one.error.as_ref().map_or_else(|| "passed".to_owned(), |error| format!("FAILED: {}", tail(error, 1)));
        println!("{:<22} {:>8.1}  {result}", one.name, one.took.as_secs_f64());
    }
    let failed = told.iter().filter(|one| one.error.is_some()).count();
    if failed == 0 {
        return Ok(());
    }
    fail(format!("{failed} of {} scenarios failed", told.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_unknown_ones_are_refused() {
        let names: BTreeSet<_> = all().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().count());
        let all_names = Selection::parse(&["all".to_owned()], false).expect("all");
        assert_eq!(all_names.scenarios.len(), names.len());
        let error = Selection::parse(&["nonsense".to_owned()], false).err().expect("refused").to_string();
        assert!(error.contains("nonsense") && error.contains("--list"), "{error}");
        assert!(Selection::parse(&[], false).is_err());
    }
}
