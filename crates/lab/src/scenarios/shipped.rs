//! What the repository ships beside the program, judged by the programs that will read it: systemd 252 and cloud-init
//! 22.4 of Debian bookworm.

use super::{Needs, Scenario};
use crate::lab::Lab;
use crate::machine::{Boot, Machine, Spec};
use crate::{Result, attempted, fail};
use std::path::Path;

/// See the module.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "shipped-files",
    about: "systemd-analyze verifies the units and their sandbox; cloud-init's schema and kubestrap check the user-data",
    needs: Needs::Nothing,
    shares: false,
    run: shipped_files,
}];

/// What `systemd-analyze security` may say of the unit at most; SECURITY.md says what is left and why.
const EXPOSURE: f64 = 2.2;
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PLACE: &str = "/root/user-data";
/// Takes user-data apart as cloud-init does, and leaves the cloud-config and kubestrap's configuration as files.
const TAKE_APART: &str = r##"
import email, sys, yaml
name = sys.argv[1]
text = open(name).read()
parts = {}
if text.startswith("#cloud-config"):
    parts["text/cloud-config"] = text
    files = yaml.safe_load(text)["write_files"]
    parts["ours"] = next(f["content"] for f in files if f["path"] == "/etc/kubestrap/config.yaml")
elif text.startswith("#kubestrap"):
    parts["ours"] = text
else:
    message = email.message_from_string(text)
    assert message.is_multipart() and not message.defects, message.defects
    for part in message.walk():
        if not part.is_multipart():
            assert not part.defects, part.defects
            parts[part.get_content_type()] = part.get_payload(decode=True).decode()
    parts["ours"] = parts["application/x-kubestrap+yaml"]
if "text/cloud-config" in parts:
    open(name + ".cloud-config", "w").write(parts["text/cloud-config"])
open(name + ".ours", "w").write(parts["ours"])
"##;

fn shipped_files(lab: &mut Lab) -> Result<()> {
    let machine = lab.machine(&Spec::new("m1").boot(Boot::Plain))?;
    machine.power_on()?;
    machine.wait_booted()?;
    units(lab, &machine)?;
    machine.write(&format!("{PLACE}/take-apart.py"), TAKE_APART, 0o644)?;
    let folder = Path::new(REPOSITORY).join("cloud-init");
    let mut checked = 0;
    for entry in attempted(std::fs::read_dir(&folder), format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "README.md" {
            user_data(&machine, &name, &attempted(std::fs::read_to_string(&path), format!("read {name}"))?)?;
            checked += 1;
        }
    }
    lab.say(&format!("{checked} files of cloud-init/ are what they should be"));
    if checked == 0 { fail("there are no files in cloud-init/") } else { Ok(()) }
}

fn units(lab: &Lab, machine: &Machine) -> Result<()> {
    let words = machine.shell("systemd-analyze verify --man=no kubestrap.service kubelet.service 2>&1")?;
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("kubestrap")).collect();
    if !ours.is_empty() {
        return fail(format!("systemd-analyze verify complains: {}", ours.join("; ")));
    }
    machine.shell("systemd-tmpfiles --create /usr/lib/tmpfiles.d/kubestrap.conf")?;
    let words = machine.shell("systemd-analyze security --no-pager kubestrap.service | tail -1")?;
    let level = words.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    let Some(level) = level else { return fail(format!("systemd-analyze security said: {words}")) };
    lab.say(&format!("the unit's exposure is {level} (at most {EXPOSURE})"));
    if level > EXPOSURE {
        fail(format!("the sandbox has become weaker: {level} instead of {EXPOSURE}"))
    } else {
        Ok(())
    }
}

fn user_data(machine: &Machine, name: &str, text: &str) -> Result<()> {
    let path = format!("{PLACE}/{name}");
    machine.write(&path, text, 0o600)?;
    machine.shell(&format!("python3 {PLACE}/take-apart.py {path}"))?;
    machine.shell(&format!("kubestrap --config {path}.ours config check"))?;
    if machine.exists(&format!("{path}.cloud-config")) {
        machine.shell(&format!("cloud-init schema --config-file {path}.cloud-config"))?;
    }
    // What EC2 takes: 16 KiB before base64.
    if text.len() > 16 * 1024 { fail(format!("{name} is larger than user-data may be")) } else { Ok(()) }
}
