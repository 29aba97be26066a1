//! moto's server with IAM in force: what a role's policy does not allow is refused, for S3 down to the key.
//!
//! It does not evaluate conditions, answers 404 for a missing object whatever the policy says, and has neither keys nor a
//! registry to pull from: `documents.rs` and the S3 stub are for those.

use crate::http;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where everything is.
pub const REGION: &str = "eu-central-1";
/// moto's own.
pub const ACCOUNT: &str = "123456789012";
/// The one bucket: that of the S3 stub too.
pub const BUCKET: &str = "bucket";
/// An AMI that moto knows: every instance was started from it.
pub const IMAGE: &str = "ami-12c6146b";
/// Another one, for the same architecture.
pub const NEWER: &str = "ami-1e749f67";

/// The credentials of a role.
#[derive(Clone)]
pub struct Credentials {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token.
    pub token: String,
}

/// A server of its own: IAM is in force for all of it. It ends with this.
pub struct Cloud {
    server: Child,
    address: String,
}

impl Cloud {
    /// An account with an empty bucket; everything is allowed until [`Cloud::enforce`]. None when moto is not installed
    /// (`cargo xtask test` installs it).
    pub fn start() -> Option<Cloud> {
        if std::env::var_os("KUBESTRAP_TEST_S3").is_none_or(|url| url.is_empty()) {
            println!("skipped: KUBESTRAP_TEST_S3 is not set (cargo xtask test sets it)");
            return None;
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto/bin/moto_server");
        let port = crate::world::free_port();
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let cloud = Cloud { server, address: format!("127.0.0.1:{port}") };
        let began = Instant::now();
        while std::net::TcpStream::connect(&cloud.address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(180), "moto's server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let place = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        cloud.send("s3", &format!("PUT /{BUCKET}"), &place);
        Some(cloud)
    }

    /// The base URL of every service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on a request needs credentials that allow it.
    pub fn enforce(&self) {
        self.send("s3", "POST /moto-api/reset-auth", "0");
        let (status, _) = http::request(&self.address, &format!("GET /{BUCKET}?list-type=2"));
        assert_ne!(status, 200, "IAM is not in force");
    }

    /// An object, before IAM is in force.
    pub fn put(&self, key: &str, body: &str) {
        self.send("s3", &format!("PUT /{BUCKET}/{key}"), body);
    }

    /// Instances that run.
    pub fn instances(&self, count: usize) -> Vec<String> {
        let count = count.to_string();
        let body = self.call("ec2", "RunInstances", &[("ImageId", IMAGE), ("MinCount", &count), ("MaxCount", &count)]);
        let ids: Vec<String> = body.split("<instanceId>").skip(1).map(|rest| until(rest, '<').to_owned()).collect();
        assert_eq!(ids.len().to_string(), count, "{body}");
        ids
    }

    /// Ends an instance.
    pub fn terminate(&self, instance: &str) {
        self.call("ec2", "TerminateInstances", &[("InstanceId.1", instance)]);
    }

    /// A launch template with an image, as it is written there.
    pub fn template(&self, name: &str, image: &str) {
        let parameters = [("LaunchTemplateName", name), ("LaunchTemplateData.ImageId", image)];
        self.call("ec2", "CreateLaunchTemplate", &parameters);
    }

    /// An Auto Scaling group that starts instances from a launch template's latest version, and has this one.
    pub fn group(&self, name: &str, template: &str, instance: &str) {
        let parameters = [
            ("AutoScalingGroupName", name),
            ("LaunchTemplate.LaunchTemplateName", template),
            ("LaunchTemplate.Version", "$Latest"),
            ("MinSize", "0"),
            ("MaxSize", "2"),
            ("AvailabilityZones.member.1", "eu-central-1a"),
        ];
        self.call("autoscaling", "CreateAutoScalingGroup", &parameters);
        let member = [("AutoScalingGroupName", name), ("InstanceIds.member.1", instance)];
        self.call("autoscaling", "AttachInstances", &member);
    }

    /// A parameter.
    pub fn parameter(&self, name: &str, value: &str) {
        let body = serde_json::json!({ "Name": name, "Value": value, "Type": "String" }).to_string();
        self.request("ssm", "POST /", "application/x-amz-json-1.1\r\nx-amz-target: AmazonSSM.PutParameter", &body);
    }

    /// An image that is not for the architecture of the rest.
    pub fn foreign_image(&self, name: &str) -> String {
        let body = self.call("ec2", "RegisterImage", &[("Name", name)]);
        let rest = body.split_once("<imageId>").unwrap_or_else(|| panic!("no id: {body}")).1;
        until(rest, '<').to_owned()
    }

    /// A role with these policies and nothing else.
    pub fn role(&self, name: &str, policies: &[String]) -> Credentials {
        // moto asks nobody who may assume it as long as IAM is not in force.
        let nobody = "{\"Version\":\"2012-10-17\",\"Statement\":[]}";
        self.call("iam", "CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", nobody)]);
        for (number, policy) in policies.iter().enumerate() {
            let policy_name = format!("policy-{number}");
            let parameters = [("RoleName", name), ("PolicyName", &policy_name), ("PolicyDocument", policy)];
            self.call("iam", "PutRolePolicy", &parameters);
        }
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{name}");
        let body = self.call("sts", "AssumeRole", &[("RoleArn", &arn), ("RoleSessionName", "session")]);
        let field = |name: &str| {
            let rest = body.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {body}")).1;
            until(rest, '<').to_owned()
        };
        Credentials { id: field("AccessKeyId"), secret: field("SecretAccessKey"), token: field("SessionToken") }
    }

    /// An action of a service that takes forms.
    fn call(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> String {
        let version = match service {
            "ec2" => "2016-11-15",
            "iam" => "2010-05-08",
            "autoscaling" => "2011-01-01",
            _ => "2011-06-15",
        };
        let mut form = format!("Action={action}&Version={version}");
        parameters.iter().for_each(|(name, value)| form.push_str(&format!("&{name}={}", escape(value))));
        self.send(service, "POST /", &form)
    }

    /// A request to a service; moto finds the service by the scope of the signature, which it does not check yet.
    fn send(&self, service: &str, line: &str, body: &str) -> String {
        let kind = if service == "s3" { "text/plain" } else { "application/x-www-form-urlencoded" };
        self.request(service, line, kind, body)
    }

    fn request(&self, service: &str, line: &str, kind: &str, body: &str) -> String {
        let scope = format!("AKIAROOT/20260101/{REGION}/{service}/aws4_request");
        let headers = format!(
            "authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0\r\ncontent-type: {kind}\r\n"
        );
        let (status, answer) = http::send(&self.address, line, &headers, body);
        assert!((200..300).contains(&status), "{line} {body}: {status} {answer}");
        answer
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn until(text: &str, end: char) -> &str {
    text.split(end).next().unwrap_or_default()
}

/// For a form.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
