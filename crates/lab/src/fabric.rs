//! What surrounds the machines: instance metadata, S3 and EC2, as servers in the lab's network namespace.

use crate::machine::{Machine, Shared, Spec};
use crate::network::{AWS, BALANCER, METADATA, NAMESPACE, OTHER_S3};
use crate::state::Process;
use crate::{Result, attempted, command, fail, http, interrupt, network};
use kubestrap_testkit::moto;
use serde_json::{Value, json};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// moto imports everything it mocks; under load that takes a while.
const START: Duration = Duration::from_secs(90);
/// Where moto listens.
pub(crate) const AWS_PORT: u16 = 5000;
/// An S3 server of the Rust registry that verifies signatures and honours conditions, and its version.
const OTHER_S3_CRATE: (&str, &str) = ("s3s-fs", "0.14.1");
const OTHER_S3_PORT: u16 = 8014;
/// Where API servers listen, and the balancer before them.
const API_PORT: u16 = 6443;
/// The account all instances belong to.
const ACCOUNT: &str = "123456789012";

/// The servers.
pub struct Fabric {
    pub(crate) shared: Rc<Shared>,
    imds: PathBuf,
    pub(crate) ecr: PathBuf,
    balancer: PathBuf,
}

/// An S3 server that is not moto, with long-lived credentials.
#[derive(Debug, Clone)]
pub struct OtherS3 {
    /// Its URL.
    pub endpoint: String,
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
}

impl Fabric {
    /// The fabric of a lab; `programs` holds the stand-ins.
    pub fn new(shared: Rc<Shared>, programs: &Path) -> Fabric {
        let [imds, ecr, balancer] = ["imds", "ecr", "balancer"].map(|name| programs.join(format!("{name}-standin")));
        Fabric { shared, imds, ecr, balancer }
    }

    /// Starts S3 and EC2.
    ///
    /// # Errors
    /// When moto cannot be installed or does not answer.
    pub fn start_aws(&self) -> Result<()> {
        let place = self.shared.folder.programs("moto");
        let program = attempted(moto::install(&place), "install moto")?;
        self.serve("moto", Command::new(program).args(["-H", &AWS.to_string(), "-p", &AWS_PORT.to_string()]))?;
        self.await_answer("moto", (AWS, AWS_PORT), "/moto-api/")
    }

    /// Starts a server in the lab's network, in place of the one with its name; it ends with the lab.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn serve(&self, name: &str, program: &Command) -> Result<()> {
        interrupt::check()?;
        self.shared.stop(name)?;
        let log = self.shared.folder.run().join(format!("{name}.log"));
        let output = attempted(File::create(&log), format!("write {}", log.display()))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAMESPACE]).arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs().filter_map(|(key, value)| Some((key, value?))) {
            command.env(key, value);
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        let Some(process) = Process::of(child.id().cast_signed()) else { return fail(format!("{name} ended at once")) };
        self.shared.children.borrow_mut().push(child);
        self.shared.update(|state| {
            state.servers.insert(name.to_owned(), process);
        })
    }

    fn await_answer(&self, name: &str, server: (Ipv4Addr, u16), path: &str) -> Result<()> {
        let began = Instant::now();
        while http::request("GET", server, path, b"").is_err() {
            interrupt::check()?;
            let process = self.shared.state.borrow().servers.get(name).copied();
            if !process.is_some_and(|process| process.alive()) || began.elapsed() > START {
                let log = std::fs::read_to_string(self.shared.folder.run().join(format!("{name}.log")));
                let words = command::tail(&log.unwrap_or_default(), 5);
                return fail(format!("{name} does not answer at {}:{}: {words}", server.0, server.1));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts instance metadata anew, with all machines that have it; it answers nobody for so long.
    ///
    /// # Errors
    /// When the stand-in does not start.
    pub fn publish_metadata(&self, late: Duration) -> Result<()> {
        let machines: Vec<String> = self.shared.state.borrow().machines.keys().cloned().collect();
        let read = |name: &String| std::fs::read(self.shared.folder.machine(name).join("instance.json")).ok();
        let instances = machines.iter().filter_map(read).filter_map(|text| serde_json::from_slice(&text).ok());
        let config = json!({
            "instances": instances.collect::<Vec<Value>>(),
            "late_seconds": late.as_secs_f64(),
            "log": self.metadata_log(),
        });
        let path = self.shared.folder.run().join("imds.json");
        crate::tree::write(&path, serde_json::to_vec_pretty(&config)?, 0o600)?;
        let mut program = Command::new(&self.imds);
        program.args(["--listen", &format!("{METADATA}:80"), "--config"]).arg(path);
        self.serve("imds", &program)?;
        if late.is_zero() {
            return self.await_answer("imds", (METADATA, 80), "/");
        }
        Ok(())
    }

    /// Starts the load balancer before the API servers; it has no targets before [`Fabric::publish_targets`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_balancer(&self) -> Result<()> {
        self.publish_targets(&[])?;
        let mut program = Command::new(&self.balancer);
        program.args(["--listen", &format!("{BALANCER}:{API_PORT}"), "--targets"]).arg(self.targets());
        self.serve("balancer", &program)
    }

    /// The machines that the balancer looks at; it finds out by itself which of them have an API server that is ready.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn publish_targets(&self, machines: &[Machine]) -> Result<()> {
        let text: String = machines.iter().map(|machine| format!("{}:{API_PORT}\n", machine.address())).collect();
        let fresh = self.targets().with_extension("new");
        crate::tree::write(&fresh, text, 0o644)?;
        attempted(std::fs::rename(&fresh, self.targets()), "write the balancer's targets")
    }

    fn targets(&self) -> PathBuf {
        self.shared.folder.run().join("balancer.targets")
    }

    fn metadata_log(&self) -> PathBuf {
        self.shared.folder.run().join("imds.jsonl")
    }

    /// Every request to instance metadata so far, one JSON object a line.
    pub fn metadata_requests(&self) -> String {
        std::fs::read_to_string(self.metadata_log()).unwrap_or_default()
    }

    /// Makes a bucket; nothing when it is there.
    ///
    /// # Errors
    /// When S3 refuses.
    pub fn bucket(&self, name: &str) -> Result<()> {
        let (status, body) = http::request("PUT", (AWS, AWS_PORT), &format!("/{name}"), b"")?;
        if matches!(status, 200 | 409) {
            return Ok(());
        }
        fail(format!("failed to make the bucket {name}: {status}: {}", String::from_utf8_lossy(&body)))
    }

    /// An object of the store, as JSON; `None` when it is not there.
    ///
    /// # Errors
    /// When S3 does not answer, or it is not JSON.
    pub fn object(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = http::request("GET", (AWS, AWS_PORT), &format!("/{path}"), b"")?;
        match status {
            200 => attempted(serde_json::from_slice(&body), format!("read s3://{path}")).map(Some),
            404 => Ok(None),
            _ => fail(format!("failed to read s3://{path}: {status}")),
        }
    }

    /// Takes the store away from everybody, or gives it back with all it had.
    ///
    /// # Errors
    /// When the address cannot be changed.
    pub fn set_store(&self, up: bool) -> Result<()> {
        network::set_address(AWS, up)
    }

    /// An S3 server that is not moto, with an empty bucket; installed from the Rust registry the first time.
    ///
    /// # Errors
    /// When it cannot be installed or does not answer.
    pub fn other_s3(&self, bucket: &str, say: &dyn Fn(&str)) -> Result<OtherS3> {
        let (name, version) = OTHER_S3_CRATE;
        let place = self.shared.folder.programs(name);
        let program = place.join("bin").join(name);
        if !program.is_file() {
            say(&format!("installing {name} {version}, another S3 server (once; cargo builds it in some minutes)"));
            let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
            let arguments = ["install", name, "--version", version, "--locked", "--features", "binary", "--root"];
            command::run(command::program(&cargo, &arguments).arg(&place))?;
        }
        let data = self.shared.folder.run().join("other-s3");
        attempted(std::fs::create_dir_all(data.join(bucket)), "make the other S3 server's folder")?;
        let (access_key, secret_key) = ("AKIALABLABLABLABLAB0", "lab-secret-of-no-worth");
        let mut server = Command::new(program);
        server.args(["--host", &OTHER_S3.to_string(), "--port", &OTHER_S3_PORT.to_string()]);
        server.args(["--access-key", access_key, "--secret-key", secret_key]).arg(data).env("RUST_LOG", "warn");
        self.serve(name, &server)?;
        self.await_answer(name, (OTHER_S3, OTHER_S3_PORT), "/")?;
        Ok(OtherS3 {
            endpoint: format!("http://{OTHER_S3}:{OTHER_S3_PORT}"),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        })
    }
}

/// What IMDS says of a machine.
pub fn instance(machine: &Machine, spec: &Spec) -> Value {
    let random = crate::machine::random_uuid().replace('-', "");
    let own = (format!("i-0{}", &random[..16]), "ami-0abc0abc0abc0abc0".to_owned());
    let (id, image) = spec.instance.as_ref().map_or(own, |launched| (launched.id.clone(), launched.image.clone()));
    let mut instance = json!({
        "source": machine.address(),
        "instance_id": id,
        "account": ACCOUNT,
        "region": spec.zone.trim_end_matches(|c: char| c.is_ascii_lowercase()),
        "availability_zone": spec.zone,
        "instance_type": "m7i.large",
        "image_id": image,
        "private_ip": machine.address(),
        "local_hostname": machine.dns_name(),
        // A role, as every instance should have: nothing has keys in files.
        "role": {
            "name": "kubestrap",
            "access_key_id": "ASIALABLABLABLABLAB0",
            "secret_access_key": "lab-secret-of-no-worth",
            "token": "lab-session-token",
            "expiration": "2099-01-01T00:00:00Z",
        },
    });
    if let Some(text) = &spec.user_data {
        instance["user_data"] = json!(text);
    }
    instance
}
