//! What the repository ships beside the program, judged by the programs that will read it: systemd 252 and cloud-init
//! 22.4 of Debian bookworm.

use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::{Result, fail, shipped};

/// See the module.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "shipped-files",
    about: "systemd-analyze verifies the units and their sandbox; cloud-init's schema and kubestrap check the user-data",
    needs: Needs::Nothing,
    shares: false,
    run: shipped_files,
}];

const PLACE: &str = "/root/user-data";

fn shipped_files(lab: &mut Lab) -> Result<()> {
    let machine = lab.machine(&Spec::new("m1").boot(Boot::Plain))?;
    machine.power_on()?;
    machine.wait_booted()?;
    units(lab, &machine)?;
    machine.write(&format!("{PLACE}/take-apart.py"), shipped::TAKE_APART, 0o644)?;
    let files = shipped::user_data()?;
    for (name, text) in &files {
        user_data(&machine, name, text)?;
    }
    lab.say(&format!("{} files of cloud-init/ are what they should be", files.len()));
    Ok(())
}

fn units(lab: &Lab, machine: &Machine) -> Result<()> {
    let words = machine.shell("systemd-analyze verify --man=no kubestrap.service kubelet.service 2>&1")?;
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("kubestrap")).collect();
    if !ours.is_empty() {
        return fail(format!("systemd-analyze verify complains: {}", ours.join("; ")));
    }
    machine.shell("systemd-tmpfiles --create /usr/lib/tmpfiles.d/kubestrap.conf")?;
    let words = machine.shell("systemd-analyze security --no-pager kubestrap.service | tail -1")?;
    let Some(level) = words.split_whitespace().find_map(shipped::tenths) else {
        return fail(format!("systemd-analyze security said: {words}"));
    };
    let most = shipped::exposure()?;
    lab.say(&format!("the unit's exposure is {level} tenths (at most {most})"));
    if level > most { fail(format!("the sandbox has become weaker: {words}")) } else { Ok(()) }
}

fn user_data(machine: &Machine, name: &str, text: &str) -> Result<()> {
    let path = format!("{PLACE}/{name}");
    machine.write(&path, text, 0o600)?;
    machine.shell(&format!("python3 {PLACE}/take-apart.py {path}"))?;
    machine.shell(&format!("kubestrap --config {path}.ours config check"))?;
    if machine.exists(&format!("{path}.cloud-config")) {
        machine.shell(&format!("cloud-init schema --config-file {path}.cloud-config"))?;
    }
    if text.len() > shipped::USER_DATA_LIMIT { fail(format!("{name} is larger than user-data may be")) } else { Ok(()) }
}
