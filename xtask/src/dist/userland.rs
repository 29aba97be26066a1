//! The program in roots that are not this machine's: one with nothing but the files that names and TLS need, and trees of
//! other distributions. A store is reached by its name there, over TLS, and strace watches which files are opened.

use super::files::{copy, write};
use super::names::NameServer;
use kubestrap_lab::command::{Finished, finish, program, run};
use kubestrap_lab::{Result, attempted, fail};
use kubestrap_testkit::pki::{self, Leaf, Pair, Usage};
use kubestrap_testkit::s3stub::{S3Stub, Script};
use kubestrap_testkit::{http, tls};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Hosts in URLs, which the store's certificate is for.
const HOSTS: [&str; 4] = ["s3.hosts.test", "s3.dist.test", "store", "s3.sub"];
/// What the name server knows.
const KNOWN: &[&str] = &["s3.dist.test", "store.dist.test", "s3.sub.dist.test"];
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
/// Mounts a tree under a layer that is thrown away, and goes on in it; the mount ends with the process.
const LAYER: &str =
    "mount -t overlay overlay -o \"lowerdir=$1,upperdir=$2,workdir=$3\" \"$4\" && shift 4 && exec \"$@\"";

/// A name server and a store.
pub(super) struct Stand {
    address: Ipv4Addr,
    port: u16,
    names: NameServer,
    ca: Pair,
}

/// One way to find a name.
struct Way {
    what: &'static str,
    resolv_conf: String,
    hosts: String,
    host: &'static str,
    /// What the name server is asked for.
    asked: &'static [&'static str],
}

impl Stand {
    /// Both, on an address of this process alone.
    pub(super) fn start() -> Result<Stand> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 77, high, low | 1);
        let names = NameServer::start(address, KNOWN)?;
        let ca = pki::make_ca("dist", pki::CA_LIFE)?;
        let sans = HOSTS.map(str::to_owned);
        let leaf = Leaf { name: "s3", groups: &[], sans: &sans, usage: Usage::Server, life: pki::LEAF_LIFE };
        let config = tls::server(&pki::make_leaf(&ca, &leaf)?, &ca.certificate)?;
        let listener = attempted(std::net::TcpListener::bind((address, 0)), format!("listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // It ends with this program.
        std::thread::spawn(move || {
            let served: std::io::Result<()> = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                http::serve_tls(listener, config, Arc::new(S3Stub::new(Script::default()))).await
            });
            if let Err(error) = served {
                eprintln!("the store on {address}: {error}");
            }
        });
        Ok(Stand { address, port, names, ca })
    }

    fn ways(&self) -> [Way; 4] {
        let server = format!("nameserver {}\n", self.address);
        [
            Way {
                what: "by /etc/hosts, with no name server",
                resolv_conf: "# none\n".to_owned(),
                hosts: format!("{} s3.hosts.test\n", self.address),
                host: "s3.hosts.test",
                asked: &[],
            },
            Way {
                what: "by its whole name",
                resolv_conf: format!("search dist.test\n{server}options edns0 trust-ad\n"),
                hosts: "127.0.0.1 localhost\n".to_owned(),
                host: "s3.dist.test",
                asked: &["s3.dist.test"],
            },
            Way {
                what: "by the search list",
                resolv_conf: format!("search absent.test dist.test\n{server}"),
                hosts: String::new(),
                host: "store",
                asked: &["store.absent.test", "store.dist.test"],
            },
            Way {
                what: "by the search list, as ndots demands",
                resolv_conf: format!("{server}search dist.test\noptions ndots:2\n"),
                hosts: String::new(),
                host: "s3.sub",
                asked: &["s3.sub.dist.test"],
            },
        ]
    }

    /// All of it, in a bare root and in these trees.
    pub(super) fn judge(&self, kubestrap: &Path, userlands: &[PathBuf]) -> Result<()> {
        sees_the_usual()?;
        let bare = attempted(tempfile::tempdir(), "make a folder")?;
        copy(kubestrap, &bare.path().join("kubestrap"), 0o755)?;
        for way in &self.ways() {
            self.found(&Root { folder: bare.path(), tree: None }, way)?;
        }
        std::fs::remove_file(bare.path().join(ROOTS))?;
        let (done, _) = Root { folder: bare.path(), tree: None }.status()?;
        if done.code != Some(12) || !done.stderr.contains("no trusted root certificates") {
            return fail(format!("without CA roots it ends with {:?}:\n{}", done.code, done.stderr));
        }
        println!("a bare root: the store is found in {} ways, without NSS; without CA roots it says so", HOSTS.len());
        for tree in userlands {
            let layer = attempted(tempfile::tempdir(), "make a folder")?;
            copy(kubestrap, &layer.path().join("kubestrap"), 0o755)?;
            for way in &self.ways() {
                self.found(&Root { folder: layer.path(), tree: Some(tree) }, way)?;
            }
            let libc = run(program("chroot", &[]).arg(tree).args(["ldd", "--version"]))?;
            println!("{}: the same, beside {}", tree.display(), libc.lines().next().unwrap_or_default());
        }
        Ok(())
    }

    /// The store answers under this name, the right names were asked for, and no library was opened.
    fn found(&self, root: &Root<'_>, way: &Way) -> Result<()> {
        write(&root.folder.join("etc/resolv.conf"), &way.resolv_conf, 0o644)?;
        write(&root.folder.join("etc/hosts"), &way.hosts, 0o644)?;
        write(&root.folder.join(ROOTS), &self.ca.certificate, 0o644)?;
        let config = format!(
            "cluster: prod\nrole: worker\nstore: s3://bucket/k8s\ns3: {{ endpoint: 'https://{}:{}', region: \
             eu-central-1 }}\nidentity: host\nnode: {{ name: w1, address: 192.0.2.10 }}\n",
            way.host, self.port
        );
        write(&root.folder.join("etc/kubestrap/config.yaml"), &config, 0o600)?;
        let (done, opened) = root.status()?;
        let said = done.success(format!("reach the store {}", way.what))?;
        if !said.contains("no master has claimed it yet") {
            return fail(format!("{}: the store is empty, and it says {said:?}", way.what));
        }
        let mut asked = self.names.asked();
        asked.dedup();
        if asked != way.asked {
            return fail(format!("{}: the name server was asked for {asked:?} and not {:?}", way.what, way.asked));
        }
        if !opened.iter().any(|path| path == "/etc/hosts") {
            return fail(format!("strace saw nothing of /etc/hosts: {opened:?}"));
        }
        match opened.iter().find(|path| is_of_libc(path)) {
            Some(path) => fail(format!("{}: it opened {path}", way.what)),
            None => Ok(()),
        }
    }
}

/// Where the program runs: a folder alone, or as a layer over a tree.
struct Root<'a> {
    folder: &'a Path,
    tree: Option<&'a Path>,
}

impl Root<'_> {
    /// `kubestrap status --cluster` in there, and the files that it opened.
    fn status(&self) -> Result<(Finished, Vec<String>)> {
        let aside = attempted(tempfile::tempdir(), "make a folder")?;
        let trace = aside.path().join("trace");
        let (work, joined) = (aside.path().join("work"), aside.path().join("joined"));
        let mut command = match self.tree {
            None => Command::new("strace"),
            Some(tree) => {
                std::fs::create_dir(&joined)?;
                // The layer must be on the file system of its work folder.
                std::fs::create_dir(&work)?;
                let mut command = program("unshare", &["--mount", "sh", "-c", LAYER, "sh"]);
                command.arg(tree).arg(self.folder).arg(&work).arg(&joined).arg("strace");
                command
            }
        };
        command.args(["-f", "-e", "trace=open,openat,execve", "-s", "200", "-o"]).arg(&trace).arg("chroot");
        command.arg(if self.tree.is_some() { &joined } else { self.folder }).args([
            "/kubestrap",
            "status",
            "--cluster",
        ]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "a-key-for-the-stub");
        let done = finish(&mut command)?;
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        Ok((done, opened_after(&text, "/kubestrap")))
    }
}

/// What a program opened, or tried to, from the moment on in which it was started.
fn opened_after(trace: &str, started: &str) -> Vec<String> {
    let begins = format!("execve(\"{started}\"");
    let lines = trace.lines().skip_while(|line| !line.contains(&begins)).skip(1);
    lines.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

fn is_of_libc(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "nsswitch.conf" || name.starts_with("libnss") || name.contains(".so")
}

/// A program that does use NSS is seen using it: or the watch would prove nothing.
fn sees_the_usual() -> Result<()> {
    let place = attempted(tempfile::tempdir(), "make a folder")?;
    let trace = place.path().join("trace");
    let mut command = program("strace", &["-f", "-e", "trace=open,openat,execve", "-o"]);
    finish(command.arg(&trace).args(["/usr/bin/getent", "hosts", "localhost"]))?;
    let opened = opened_after(&std::fs::read_to_string(&trace).unwrap_or_default(), "/usr/bin/getent");
    match opened.iter().any(|path| path.ends_with("/nsswitch.conf")) {
        true => Ok(()),
        false => fail("strace does not see that getent opens nsswitch.conf: is it installed, and allowed to trace?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_before_the_program_started_does_not_count() {
        let trace = "1 openat(AT_FDCWD, \"/lib/libc.so.6\", O_RDONLY) = 3\n1 execve(\"/kubestrap\", [\"/kubestrap\"], \
                     0x1) = 0\n1 openat(AT_FDCWD, \"/etc/hosts\", O_RDONLY) = 3\n2 openat(AT_FDCWD, \
                     \"/etc/nsswitch.conf\", O_RDONLY) = -1 ENOENT\n1 +++ exited with 0 +++\n";
        assert_eq!(opened_after(trace, "/kubestrap"), ["/etc/hosts", "/etc/nsswitch.conf"]);
    }

    #[test]
    fn libraries_and_the_name_service_switch_are_recognised() {
        for path in ["/etc/nsswitch.conf", "/lib/x86_64-linux-gnu/libnss_files.so.2", "/etc/ld.so.cache", "libc.so.6"] {
            assert!(is_of_libc(path), "{path}");
        }
        for path in ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/proc/self/maps"] {
            assert!(!is_of_libc(path), "{path}");
        }
    }
}
