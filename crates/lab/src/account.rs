//! The account's side of EC2, Auto Scaling and SSM, in moto: images, launch templates, groups and their instances, as an
//! operator makes them. Which machine an instance is, a scenario decides.

use crate::fabric::{AWS_PORT, Fabric};
use crate::network::AWS;
use crate::{Result, fail, http};

/// The zone of every group.
const ZONE: &str = "us-east-1a";
/// What every template asks for: the type the lab's IMDS tells.
const TYPE: &str = "m7i.large";

/// An instance as DescribeInstances tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `i-...`
    pub id: String,
    /// `ami-...`
    pub image: String,
    /// `running`, `terminated`, ...
    pub state: String,
}

impl Instance {
    /// Whether it runs, or will.
    pub fn is_alive(&self) -> bool {
        matches!(self.state.as_str(), "pending" | "running")
    }
}

impl Fabric {
    /// Makes an image of an instance, as bakeries do: its id. It has the instance's architecture.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub fn image(&self, name: &str, of: &Instance) -> Result<String> {
        let answer = self.ec2("CreateImage", &[("Name", name), ("InstanceId", &of.id)])?;
        first(&answer, "imageId")
    }

    /// Makes a launch template whose first version launches this image.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub fn launch_template(&self, name: &str, image: &str) -> Result<()> {
        self.template("CreateLaunchTemplate", name, image)
    }

    /// A newer version of the template, which launches another image.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub fn next_version(&self, template: &str, image: &str) -> Result<()> {
        self.template("CreateLaunchTemplateVersion", template, image)
    }

    fn template(&self, action: &str, name: &str, image: &str) -> Result<()> {
        let data = [
            ("LaunchTemplateName", name),
            ("LaunchTemplateData.ImageId", image),
            ("LaunchTemplateData.InstanceType", TYPE),
        ];
        self.ec2(action, &data).map(drop)
    }

    /// Makes a group of so many instances, of the newest version of a template; they are there at once.
    ///
    /// # Errors
    /// When Auto Scaling refuses.
    pub fn group(&self, name: &str, template: &str, size: usize) -> Result<()> {
        let size = size.to_string();
        let parameters = [
            ("AutoScalingGroupName", name),
            ("MinSize", &size),
            ("MaxSize", &size),
            ("DesiredCapacity", &size),
            ("AvailabilityZones.member.1", ZONE),
            ("LaunchTemplate.LaunchTemplateName", template),
            ("LaunchTemplate.Version", "$Latest"),
        ];
        self.auto_scaling("CreateAutoScalingGroup", &parameters).map(drop)
    }

    /// Launches an instance of no group from an image that everybody has.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub fn stock_instance(&self) -> Result<Instance> {
        let filter = [("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")];
        let image = first(&self.ec2("DescribeImages", &filter)?, "imageId")?;
        let parameters = [("ImageId", &*image), ("InstanceType", TYPE), ("MinCount", "1"), ("MaxCount", "1")];
        let answer = self.ec2("RunInstances", &parameters)?;
        read_instances(&answer)?.pop().map_or_else(|| fail("RunInstances launched no instance"), Ok)
    }

    /// Terminates an instance of no group.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub fn terminate(&self, instance: &str) -> Result<()> {
        self.ec2("TerminateInstances", &[("InstanceId.1", instance)]).map(drop)
    }

    /// Makes a symmetric KMS key: its ARN.
    ///
    /// # Errors
    /// When KMS refuses.
    pub fn kms_key(&self) -> Result<String> {
        let (status, body) = http::json("kms", (AWS, AWS_PORT), "TrentService.CreateKey", b"{}")?;
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let arn = answer["KeyMetadata"]["Arn"].as_str().map(str::to_owned);
        arn.map_or_else(|| fail(format!("failed to make a KMS key: {status}: {}", String::from_utf8_lossy(&body))), Ok)
    }

    /// Terminates an instance of a group, which launches another one at once.
    ///
    /// # Errors
    /// When Auto Scaling refuses.
    pub fn terminate_in_group(&self, instance: &str) -> Result<()> {
        let parameters = [("InstanceId", instance), ("ShouldDecrementDesiredCapacity", "false")];
        self.auto_scaling("TerminateInstanceInAutoScalingGroup", &parameters).map(drop)
    }

    /// The instances of a group, in the order in which EC2 launched them; not those that it terminated.
    ///
    /// # Errors
    /// When EC2 does not answer.
    pub fn instances(&self, group: &str) -> Result<Vec<Instance>> {
        let filter = [("Filter.1.Name", "tag:aws:autoscaling:groupName"), ("Filter.1.Value.1", group)];
        let answer = self.ec2("DescribeInstances", &filter)?;
        read_instances(&answer)
    }

    fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        query("ec2", "2016-11-15", action, parameters)
    }

    fn auto_scaling(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        query("autoscaling", "2011-01-01", action, parameters)
    }
}

/// A call of AWS's query protocol: the XML of the answer.
fn query(service: &str, version: &str, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
    let mut form = format!("Action={action}&Version={version}");
    for (key, value) in parameters {
        form += &format!("&{key}={}", encoded(value));
    }
    let (status, body) = http::form(service, (AWS, AWS_PORT), &form)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == 200 { Ok(text) } else { fail(format!("failed to call {service}:{action}: {status}: {text}")) }
}

fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn read_instances(answer: &str) -> Result<Vec<Instance>> {
    // Each instance begins with its id; what a reservation has before it is nobody's.
    answer
        .split("<instanceId>")
        .skip(1)
        .map(|rest| {
            let text = format!("<instanceId>{rest}");
            let state = text.split_once("<instanceState>").map_or("", |(_, state)| state);
            Ok(Instance {
                id: first(&text, "instanceId")?,
                image: first(&text, "imageId")?,
                state: first(state, "name")?,
            })
        })
        .collect()
}

/// The text of the first element with this name.
fn first(xml: &str, element: &str) -> Result<String> {
    let found = xml.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once('<'));
    found.map_or_else(|| fail(format!("there is no {element} in {xml}")), |(text, _)| Ok(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_read_with_their_own_image_and_state() {
        let one = |id: &str, state: &str| {
            format!(
                "<item><instanceId>{id}</instanceId><imageId>ami-{id}</imageId><instanceState><code>16</code>\
                 <name>{state}</name></instanceState><placement><name>no</name></placement></item>"
            )
        };
        let answer = format!("<reservationSet>{}{}</reservationSet>", one("i-1", "terminated"), one("i-2", "running"));
        let found = read_instances(&answer).expect("instances");
        let states: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.image.as_str(), one.is_alive())).collect();
        assert_eq!(states, [("i-1", "ami-i-1", false), ("i-2", "ami-i-2", true)]);
        assert!(read_instances("<instanceId>i-3</instanceId>").is_err(), "an instance without a state");
        assert_eq!(read_instances("<reservationSet/>").expect("none"), []);
    }

    #[test]
    fn values_are_encoded_as_a_form_needs_it() {
        assert_eq!(encoded("$Latest a&b"), "%24Latest%20a%26b");
    }
}
