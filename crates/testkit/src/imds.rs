//! An instance metadata service, version 2 only: tokens with a life, instances told apart by their source address,
//! and faults. Facts: the EC2 user guide, "Use the Instance Metadata Service to access instance metadata".

use crate::files;
use crate::http::{Answer, Handler, Request, pause, respond};
use crate::script::seconds;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest life of a token, in seconds.
const MAX_TTL: u64 = 21_600;

/// What the service says; unknown keys are refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The instances.
    pub instances: Vec<Instance>,
    /// Faults, looked at in order.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Connections are closed without an answer for this long after the start, in seconds.
    #[serde(default)]
    pub late_seconds: f64,
    /// The token that everybody is given; a new random one each time when absent.
    #[serde(default)]
    pub token: Option<String>,
    /// Where every request is written, one JSON object a line.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

/// One instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instance {
    /// The address its requests come from; any when absent.
    pub source: Option<IpAddr>,
    /// `i-...`
    pub instance_id: String,
    /// Twelve digits.
    pub account: String,
    /// Region.
    pub region: String,
    /// Availability zone.
    pub availability_zone: String,
    /// Instance type.
    pub instance_type: String,
    /// AMI.
    pub image_id: String,
    /// Primary private address.
    pub private_ip: String,
    /// Private DNS name.
    pub local_hostname: String,
    /// User-data; 404 when absent.
    pub user_data: Option<String>,
    /// Tags; 404 when absent, as when they are not enabled in the metadata.
    pub tags: Option<BTreeMap<String, String>>,
    /// Role and its credentials document; 404 when absent.
    pub role: Option<Role>,
    /// A folder in which the files of [`NOTICES`] are looked for at each request, so that notices come and go; 404
    /// for those that are not there.
    pub notices: Option<PathBuf>,
}

/// Paths below `meta-data/` whose answers change in the life of an instance.
pub const NOTICES: [&str; 4] = [
    "spot/instance-action",
    "events/recommendations/rebalance",
    "events/maintenance/scheduled",
    "autoscaling/target-lifecycle-state",
];

/// An instance role.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token.
    pub token: String,
    /// RFC 3339.
    pub expiration: String,
}

impl Role {
    fn field(&self) -> (String, String) {
        let document = json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": self.access_key_id, "SecretAccessKey": self.secret_access_key,
            "Token": self.token, "Expiration": self.expiration,
        });
        (format!("meta-data/iam/security-credentials/{}", self.name), document.to_string())
    }
}

/// One fault.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// What the path contains.
    pub path: String,
    /// Answered with this status; as it would be when 0.
    pub status: u16,
    /// Answered with bytes that are neither text nor JSON.
    pub garbage: bool,
    /// Answered this much later, in seconds.
    pub seconds: f64,
    /// How many times; for ever when absent.
    pub times: Option<u32>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Status; 0 for a closed connection.
    pub status: u16,
}

/// The service.
pub struct Imds {
    config: Config,
    started: Instant,
    tokens: Mutex<BTreeMap<String, Instant>>,
    used: Mutex<Vec<u32>>,
    log: Mutex<Vec<Logged>>,
}

/// A thread that died while it held a lock leaves plain data behind: it is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Imds {
    /// A service that starts now.
    pub fn new(config: Config) -> Self {
        let used = Mutex::new(vec![0; config.faults.len()]);
        Imds { config, started: Instant::now(), tokens: Mutex::default(), used, log: Mutex::default() }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Logged> {
        lock(&self.log).clone()
    }

    /// How many requests contained this in their path.
    pub fn count(&self, path: &str) -> usize {
        lock(&self.log).iter().filter(|logged| logged.path.contains(path)).count()
    }

    fn note(&self, request: &Request, status: u16) {
        let line =
            json!({"method": request.method, "path": request.path, "status": status, "peer": request.peer.to_string()});
        lock(&self.log).push(Logged { method: request.method.clone(), path: request.path.clone(), status });
        if let Some(path) = &self.config.log {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                eprintln!("imds-standin: {}: {error}", path.display());
            }
        }
    }

    fn take_fault(&self, path: &str) -> Option<Fault> {
        let mut used = lock(&self.used);
        for (fault, used) in self.config.faults.iter().zip(used.iter_mut()) {
            if path.contains(&fault.path) && fault.times.is_none_or(|times| *used < times) {
                *used += 1;
                return Some(fault.clone());
            }
        }
        None
    }

    fn answer(&self, request: &Request) -> (u16, String) {
        let Some(path) = versioned(&request.path) else { return (404, String::new()) };
        if path == "api/token" {
            return self.token(request);
        }
        // Version 1 is refused: no token, no answer.
        let token = request.header("x-aws-ec2-metadata-token").unwrap_or_default();
        if lock(&self.tokens).get(token).is_none_or(|dies| *dies <= Instant::now()) {
            return (401, String::new());
        }
        if request.method != "GET" {
            return (405, String::new());
        }
        let source = request.peer.ip();
        let instance = self.config.instances.iter().find(|instance| instance.source.is_none_or(|s| s == source));
        match instance.and_then(|instance| instance.get(path.trim_end_matches('/'))) {
            Some(body) => (200, body),
            None => (404, String::new()),
        }
    }

    fn token(&self, request: &Request) -> (u16, String) {
        if request.method != "PUT" {
            return (405, String::new());
        }
        // A proxy in between: the service refuses to hand out a token.
        if request.header("x-forwarded-for").is_some() {
            return (403, String::new());
        }
        let ttl = request.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse::<u64>().ok());
        match (ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl)), files::random_bytes::<24>()) {
            (Some(ttl), Ok(bytes)) => {
                let token = self.config.token.clone().unwrap_or_else(|| files::hex(&bytes));
                lock(&self.tokens).insert(token.clone(), Instant::now() + Duration::from_secs(ttl));
                (200, token)
            }
            (None, _) => (400, String::new()),
            (_, Err(error)) => (500, error.to_string()),
        }
    }
}

impl Handler for Imds {
    async fn handle(&self, request: Request) -> Answer {
        if self.started.elapsed() < seconds(self.config.late_seconds) {
            self.note(&request, 0);
            return Answer::Close;
        }
        let fault = self.take_fault(&request.path).unwrap_or_default();
        pause(seconds(fault.seconds)).await;
        let (status, body) = self.answer(&request);
        let status = if fault.status == 0 { status } else { fault.status };
        self.note(&request, status);
        let body = if fault.garbage { vec![0xff, 0x00, b'{', 0xfe, b'<'] } else { body.into_bytes() };
        let mut response = respond(status, "text/plain", body);
        // The SDKs insist on it.
        let ttl = request.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse().ok());
        if let (200, "PUT", Some(ttl)) = (status, request.method.as_str(), ttl) {
            response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl);
        }
        Answer::Response(Box::new(response))
    }
}

/// What follows the version: `latest`, or a date, which cloud-init asks for.
fn versioned(path: &str) -> Option<&str> {
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    let is_date = version.len() == 10 && version.chars().all(|c| c.is_ascii_digit() || c == '-');
    (version == "latest" || is_date).then_some(rest)
}

impl Instance {
    /// The text of a path, or the list of what is below it: folders with a slash, as the service lists them.
    fn get(&self, path: &str) -> Option<String> {
        let fields = self.fields();
        if let Some(text) = fields.get(path) {
            return Some(text.clone());
        }
        let mut names: Vec<String> = Vec::new();
        for rest in fields.keys().filter_map(|key| key.strip_prefix(path)?.strip_prefix('/')) {
            let name = rest.split_once('/').map_or_else(|| rest.to_owned(), |(folder, _)| format!("{folder}/"));
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
        (!names.is_empty()).then(|| names.join("\n"))
    }

    fn fields(&self) -> BTreeMap<String, String> {
        let mut fields: BTreeMap<String, String> = [
            ("meta-data/instance-id", &self.instance_id),
            ("meta-data/instance-type", &self.instance_type),
            ("meta-data/ami-id", &self.image_id),
            ("meta-data/local-ipv4", &self.private_ip),
            ("meta-data/local-hostname", &self.local_hostname),
            ("meta-data/hostname", &self.local_hostname),
            ("meta-data/placement/region", &self.region),
            ("meta-data/placement/availability-zone", &self.availability_zone),
        ]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(path, text)| (path.to_owned(), text.clone()))
        .collect();
        if let Ok(document) = serde_json::to_string_pretty(&self.document()) {
            fields.insert("dynamic/instance-identity/document".to_owned(), document);
        }
        fields.extend(self.user_data.clone().map(|text| ("user-data".to_owned(), text)));
        for (name, value) in self.tags.iter().flatten() {
            fields.insert(format!("meta-data/tags/instance/{name}"), value.clone());
        }
        fields.extend(self.role.as_ref().map(Role::field));
        for (folder, path) in self.notices.iter().flat_map(|folder| NOTICES.map(|path| (folder, path))) {
            let text = std::fs::read_to_string(folder.join(path));
            fields.extend(text.ok().map(|text| (format!("meta-data/{path}"), text)));
        }
        fields
    }

    fn document(&self) -> Value {
        json!({
            "accountId": self.account, "architecture": "x86_64", "availabilityZone": self.availability_zone,
            "imageId": self.image_id, "instanceId": self.instance_id, "instanceType": self.instance_type,
            "pendingTime": "2026-01-01T00:00:00Z", "privateIp": self.private_ip, "region": self.region,
            "version": "2017-09-30",
        })
    }
}

/// Reads a configuration file.
///
/// # Errors
/// When it can not be read or has unknown keys.
pub fn load(path: &std::path::Path) -> io::Result<Config> {
    serde_saphyr::from_str(&files::read_text(path)?).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_a_text_or_a_list() {
        let mut instance = Instance { instance_id: "i-1".into(), region: "r".into(), ..Instance::default() };
        instance.tags = Some([("Name".to_owned(), "a".to_owned()), ("team".to_owned(), "b".to_owned())].into());
        assert_eq!(instance.get("meta-data/instance-id").as_deref(), Some("i-1"));
        assert_eq!(instance.get("meta-data").as_deref(), Some("instance-id\nplacement/\ntags/"));
        assert_eq!(instance.get("meta-data/tags/instance").as_deref(), Some("Name\nteam"));
        assert_eq!(instance.get("meta-data/tags/instance/team").as_deref(), Some("b"));
        assert_eq!(
            (instance.get("user-data"), instance.get("meta-data/inst"), instance.get("meta-data/iam")),
            (None, None, None)
        );
    }

    #[test]
    fn notices_come_and_go() {
        let folder = tempfile::tempdir().expect("folder");
        let instance = Instance { notices: Some(folder.path().to_owned()), ..Instance::default() };
        let path = "meta-data/spot/instance-action";
        assert_eq!(instance.get(path), None);
        std::fs::create_dir(folder.path().join("spot")).expect("mkdir");
        std::fs::write(folder.path().join("spot/instance-action"), "soon").expect("write");
        assert_eq!(instance.get(path).as_deref(), Some("soon"));
        std::fs::remove_file(folder.path().join("spot/instance-action")).expect("remove");
        assert_eq!(instance.get(path), None);
    }

    #[test]
    fn a_version_is_latest_or_a_date() {
        assert_eq!(versioned("/latest/meta-data/"), Some("meta-data/"));
        assert_eq!(versioned("/2018-09-24/user-data"), Some("user-data"));
        assert_eq!((versioned("/newest/x"), versioned("latest/x"), versioned("/latest")), (None, None, None));
    }
}
