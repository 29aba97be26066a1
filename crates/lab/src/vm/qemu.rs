//! The virtual hardware. Firmware says what that of EC2 says (AWS, "Detect whether a host is an EC2 instance"): the vendor
//! of the BIOS and of the system, and a UUID and serial number that begin with `ec2`.

use super::image::Image;
use crate::{Result, attempted};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// Enough for a control plane without `--ignore-preflight-errors` (kubeadm wants 2 and 1700 MB).
const PROCESSORS: &str = "2";
const MEMORY_MIB: &str = "3072";
/// The predictable names of interfaces are not EC2's with this kernel; audit and its log cost time.
const KERNEL: &str = "root=LABEL=root ro console=ttyS0 net.ifnames=0 audit=0 panic=10";
/// A kernel says its first words after some tenths of a second where virtualisation works.
const PROBE: Duration = Duration::from_secs(5);
/// The first words of Linux on its console.
const ALIVE: &str = "Linux version";

/// What the processor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// This machine's own.
    Kvm,
    /// A program.
    Emulated,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "this machine's (KVM)",
            Accelerator::Emulated => "emulated (no guest starts with KVM here)",
        })
    }
}

impl Accelerator {
    /// KVM where a guest really starts: that `/dev/kvm` is there says little on a machine that is a guest itself.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn choose(image: &Image, place: &Path) -> Result<Accelerator> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Accelerator::Emulated);
        }
        let console = place.join("probe.log");
        // It dies with this process, however that dies.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", QEMU]).args(Accelerator::Kvm.arguments()).args(BARE).args([
            "-m",
            "256",
            "-no-reboot",
        ]);
        qemu.arg("-kernel").arg(&image.kernel).args(["-append", "console=ttyS0 panic=-1"]);
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        let mut qemu = attempted(
            qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn(),
            format!("start {QEMU}"),
        )?;
        let began = Instant::now();
        let spoke = || std::fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(ALIVE));
        while began.elapsed() < PROBE && !spoke() && matches!(qemu.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let works = spoke();
        let _ = qemu.kill();
        let _ = qemu.wait();
        Ok(if works { Accelerator::Kvm } else { Accelerator::Emulated })
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Emulated => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// No window, and no device that is not named.
const BARE: [&str; 4] = ["-display", "none", "-nodefaults", "-no-user-config"];

/// One machine.
pub struct Hardware<'a> {
    /// What the processor is.
    pub accelerator: Accelerator,
    /// The kernel.
    pub image: &'a Image,
    /// The disk.
    pub disk: PathBuf,
    /// UUID and serial number.
    pub serial: &'a str,
    /// Its end of the cable here.
    pub tap: String,
    /// Its hardware address.
    pub mac: String,
    /// The file its serial console is appended to.
    pub console: PathBuf,
    /// The socket of its guest agent.
    pub agent: PathBuf,
}

impl Hardware<'_> {
    /// QEMU's command line.
    pub fn command(&self) -> Command {
        let serial = self.serial;
        let mut qemu = Command::new(QEMU);
        qemu.args(self.accelerator.arguments()).args(BARE).args(["-smp", PROCESSORS, "-m", MEMORY_MIB]);
        qemu.args(["-smbios", "type=0,vendor=Amazon EC2,version=1.0"]);
        qemu.arg("-smbios");
        qemu.arg(format!("type=1,manufacturer=Amazon EC2,product=m7i.large,uuid={serial},serial={serial}"));
        qemu.arg("-kernel").arg(&self.image.kernel).arg("-initrd").arg(&self.image.initrd).args(["-append", KERNEL]);
        // "unsafe": what the guest flushes goes to this machine's page cache, which outlives a killed QEMU. So a power
        // cut takes from the guest exactly what it had not written out, and its fsync costs nothing.
        let disk = option_value(&self.disk);
        qemu.arg("-drive").arg(format!("file={disk},format=raw,if=virtio,cache=unsafe"));
        qemu.arg("-netdev").arg(format!("tap,id=net,ifname={},script=no,downscript=no", self.tap));
        qemu.arg("-device").arg(format!("virtio-net-pci,netdev=net,mac={},romfile=", self.mac));
        let console = option_value(&self.console);
        qemu.arg("-chardev").arg(format!("file,id=console,path={console},append=on"));
        qemu.args(["-serial", "chardev:console", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        let agent = option_value(&self.agent);
        qemu.arg("-chardev").arg(format!("socket,id=agent,path={agent},server=on,wait=off"));
        qemu.args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]);
        qemu
    }
}

/// A comma ends an option's value unless it is doubled.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_says_ec2_and_paths_may_hold_commas() {
        let image = Image {
            tree: "/tree".into(),
            layer: "/layer".into(),
            kernel: "/boot/vmlinuz".into(),
            initrd: "/boot/initrd".into(),
        };
        let hardware = Hardware {
            accelerator: Accelerator::Emulated,
            image: &image,
            disk: "/a,b/disk".into(),
            serial: "ec2f3a5c-0000-4000-8000-000000000000",
            tap: "v-m1".into(),
            mac: "02:4d:00:00:00:0b".into(),
            console: "/c".into(),
            agent: "/s".into(),
        };
        let command = hardware.command();
        let arguments: Vec<String> = command.get_args().map(|arg| arg.display().to_string()).collect();
        let has = |text: &str| arguments.iter().any(|argument| argument.contains(text));
        assert!(has("type=0,vendor=Amazon EC2"), "{arguments:?}");
        assert!(has("manufacturer=Amazon EC2"), "{arguments:?}");
        assert!(has("uuid=ec2f3a5c-0000-4000-8000-000000000000,serial=ec2f3a5c-0000-4000-8000-000000000000"));
        assert!(has("file=/a,,b/disk,format=raw"), "{arguments:?}");
        assert!(has("tcg,thread=multi"), "{arguments:?}");
    }
}
