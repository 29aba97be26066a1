//! The part of the Auto Scaling API that moto has not: lifecycle actions that wait, and what is said to them. Strict: an
//! unknown action or parameter, a missing one, another version or no signature is refused. Facts: the Amazon EC2 Auto
//! Scaling API Reference (2011-01-01).
//!
//! Every request is noted, one JSON object a line: `action`, `parameters`, `status`.

use crate::files;
use crate::http::{Answer, Handler, Request, decode, respond};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const VERSION: &str = "2011-01-01";

/// What exists; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The group of each instance.
    pub groups: BTreeMap<String, String>,
    /// Actions that wait from the start.
    #[serde(default)]
    pub waiting: Vec<Action>,
    /// The first so many requests are answered with a throttle.
    #[serde(default)]
    pub throttled: u32,
    /// Where every request is written.
    pub log: PathBuf,
}

/// An instance that waits at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The instance.
    pub instance: String,
    /// The hook's name.
    pub hook: String,
}

/// The service.
pub struct AutoScaling {
    config: Config,
    waiting: Mutex<Vec<Action>>,
    throttled: Mutex<u32>,
}

type Parameters = BTreeMap<String, String>;

/// Status, error code, message.
type Refusal = (u16, &'static str, String);

impl AutoScaling {
    /// A service that starts now.
    pub fn new(config: Config) -> Self {
        let (waiting, throttled) = (Mutex::new(config.waiting.clone()), Mutex::new(config.throttled));
        AutoScaling { config, waiting, throttled }
    }

    fn answer(&self, request: &Request, parameters: &Parameters) -> Result<String, Refusal> {
        let signature = request.header("authorization").unwrap_or_default();
        if !signature.starts_with("AWS4-HMAC-SHA256 ") || !signature.contains("/autoscaling/aws4_request") {
            return Err((403, "MissingAuthenticationToken", "the request is not signed for autoscaling".to_owned()));
        }
        if request.method != "POST" || parameters.get("Version").map(String::as_str) != Some(VERSION) {
            return Err((400, "InvalidAction", format!("only POST of version {VERSION} is known")));
        }
        {
            let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
            if *throttled > 0 {
                *throttled -= 1;
                return Err((400, "Throttling", "Rate exceeded".to_owned()));
            }
        }
        let action = parameters.get("Action").map(String::as_str).unwrap_or_default();
        let result = match action {
            "DescribeAutoScalingInstances" => self.instances(&only(parameters, &["InstanceIds.member.1"])?),
            "DescribeAutoScalingGroups" => self.groups(&only(parameters, &["AutoScalingGroupNames.member.1"])?),
            "RecordLifecycleActionHeartbeat" => {
                let given = only(parameters, &["AutoScalingGroupName", "LifecycleHookName", "InstanceId"])?;
                self.waits(&given[0], &given[1], &given[2], false)?;
                String::new()
            }
            "CompleteLifecycleAction" => {
                let names = ["AutoScalingGroupName", "LifecycleHookName", "InstanceId", "LifecycleActionResult"];
                let given = only(parameters, &names)?;
                if !["CONTINUE", "ABANDON"].contains(&given[3].as_str()) {
                    return Err(invalid(format!("{} is no result", given[3])));
                }
                self.waits(&given[0], &given[1], &given[2], true)?;
                String::new()
            }
            _ => return Err((400, "InvalidAction", format!("{action} is not known here"))),
        };
        Ok(format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/{VERSION}/\"><{action}Result>{result}\
             </{action}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
        ))
    }

    fn waits(&self, group: &str, hook: &str, instance: &str, ends: bool) -> Result<(), Refusal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = self.config.groups.get(instance).is_some_and(|of| of == group);
        match waiting.iter().position(|action| is_in && action.instance == instance && action.hook == hook) {
            Some(at) => {
                if ends {
                    waiting.remove(at);
                }
                Ok(())
            }
            None => Err(invalid(format!("No active Lifecycle Action found with instance ID {instance}"))),
        }
    }

    fn instances(&self, ids: &[String]) -> String {
        let found = ids.iter().filter_map(|id| Some((id, self.config.groups.get(id)?)));
        let members: Vec<String> = found
            .map(|(id, group)| {
                format!(
                    "<member><InstanceId>{id}</InstanceId><AutoScalingGroupName>{group}</AutoScalingGroupName>\
                     <AvailabilityZone>eu-central-1b</AvailabilityZone><LifecycleState>InService</LifecycleState>\
                     <HealthStatus>HEALTHY</HealthStatus><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>"
                )
            })
            .collect();
        format!("<AutoScalingInstances>{}</AutoScalingInstances>", members.concat())
    }

    fn groups(&self, names: &[String]) -> String {
        let known: Vec<&String> =
            names.iter().filter(|name| self.config.groups.values().any(|of| of == *name)).collect();
        let members: Vec<String> = known
            .into_iter()
            .map(|name| {
                format!(
                    "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><MinSize>1</MinSize>\
                     <MaxSize>3</MaxSize><DesiredCapacity>1</DesiredCapacity><DefaultCooldown>300</DefaultCooldown>\
                     <AvailabilityZones><member>eu-central-1b</member></AvailabilityZones>\
                     <HealthCheckType>EC2</HealthCheckType><CreatedTime>2026-01-01T00:00:00Z</CreatedTime>\
                     <LaunchTemplate><LaunchTemplateId>lt-0abc</LaunchTemplateId><Version>1</Version></LaunchTemplate>\
                     </member>"
                )
            })
            .collect();
        format!("<AutoScalingGroups>{}</AutoScalingGroups>", members.concat())
    }

    fn note(&self, parameters: &Parameters, status: u16) {
        let action = parameters.get("Action").cloned().unwrap_or_default();
        let line = json!({"action": action, "parameters": parameters, "status": status});
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.config.log);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
            eprintln!("autoscaling-standin: {}: {error}", self.config.log.display());
        }
    }
}

/// The values of exactly these parameters, beside the action and the version.
fn only(parameters: &Parameters, names: &[&str]) -> Result<Vec<String>, Refusal> {
    let is_known = |name: &str| ["Action", "Version"].contains(&name) || names.contains(&name);
    if let Some(unknown) = parameters.keys().find(|name| !is_known(name)) {
        return Err(invalid(format!("the parameter {unknown} is not expected")));
    }
    let value = |name: &&str| match parameters.get(*name).filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.clone()),
        None => Err(invalid(format!("the parameter {name} is missing"))),
    };
    names.iter().map(value).collect()
}

fn invalid(why: String) -> Refusal {
    (400, "ValidationError", why)
}

impl Handler for AutoScaling {
    async fn handle(&self, request: Request) -> Answer {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        let parameters: Parameters =
            pairs.map(|(name, value)| (decode(name), decode(&value.replace('+', " ")))).collect();
        let (status, text) = match self.answer(&request, &parameters) {
            Ok(text) => (200, text),
            Err((status, code, message)) => (
                status,
                format!(
                    "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/{VERSION}/\"><Error><Type>Sender</Type>\
                     <Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
                ),
            ),
        };
        self.note(&parameters, status);
        Answer::Response(Box::new(respond(status, "text/xml", text)))
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

    fn service() -> AutoScaling {
        let waiting = vec![Action { instance: "i-1".to_owned(), hook: "h".to_owned() }];
        let groups = [("i-1".to_owned(), "g".to_owned())].into();
        AutoScaling::new(Config { groups, waiting, throttled: 0, log: "/dev/null".into() })
    }

    fn parameters(text: &str) -> Parameters {
        text.split('&').filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn an_action_waits_until_it_is_completed_and_only_for_its_group_and_hook() {
        let service = service();
        assert!(service.waits("g", "h", "i-1", false).is_ok() && service.waits("g", "h", "i-1", false).is_ok());
        assert!(service.waits("other", "h", "i-1", true).is_err() && service.waits("g", "x", "i-1", true).is_err());
        assert!(service.waits("g", "h", "i-1", true).is_ok());
        let refused = service.waits("g", "h", "i-1", true).expect_err("it is over");
        assert_eq!(refused.2, "No active Lifecycle Action found with instance ID i-1");
    }

    #[test]
    fn parameters_are_exactly_those_that_are_expected() {
        let given = only(&parameters("Action=A&Version=1&B=2&C=3"), &["C", "B"]).expect("all");
        assert_eq!(given, ["3", "2"]);
        for wrong in ["Action=A&B=2", "B=&C=3", "B=2&C=3&D=4"] {
            assert!(only(&parameters(wrong), &["C", "B"]).is_err(), "{wrong}");
        }
    }
}
