//! The identity of an EC2 instance.

use super::Imds;
use crate::config::settings::NodeSettings;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::{Ec2, Identity, Origin};
use crate::model::names::is_dns_name;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `dynamic/instance-identity/document` (AWS "Instance identity documents").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    account_id: String,
    availability_zone: String,
    image_id: String,
    instance_id: String,
    instance_type: String,
    #[serde(default)]
    private_ip: Option<String>,
    region: String,
}

const DOCUMENT: &str = "dynamic/instance-identity/document";
const HOSTNAME: &str = "meta-data/local-hostname";

pub(super) async fn discover(imds: &Imds, node: &NodeSettings) -> Outcome<Identity> {
    let document = parse(&imds.required(DOCUMENT).await?)?;
    let partition = imds.optional("meta-data/services/partition").await?;
    let node_name = match &node.name {
        Some(name) => name.clone(),
        None => node_name(&imds.required(HOSTNAME).await?)?,
    };
    let address = match node.address {
        Some(address) => address,
        None => address(imds, &document).await?,
    };
    let provider_id = format!("aws:///{}/{}", document.availability_zone, document.instance_id);
    let labels = BTreeMap::from([
        ("topology.kubernetes.io/region".to_owned(), document.region.clone()),
        ("topology.kubernetes.io/zone".to_owned(), document.availability_zone.clone()),
        ("node.kubernetes.io/instance-type".to_owned(), document.instance_type.clone()),
    ]);
    let origin = Origin::Ec2(Ec2 {
        partition: partition.filter(|p| is_word(p)).unwrap_or_else(|| partition_of(&document.region).to_owned()),
        instance_id: document.instance_id,
        account: document.account_id,
        region: document.region,
        zone: document.availability_zone,
        instance_type: document.instance_type,
        image_id: document.image_id,
    });
    Ok(Identity { origin, node_name, address, provider_id: Some(provider_id), labels })
}

/// The document's fields become object keys, labels and flags, so each must have its own form.
fn parse(text: &str) -> Outcome<Document> {
    let wrong =
        |why: String| Failure::new(Cause::MetadataUnavailable, format!("read {DOCUMENT} of the metadata service"), why);
    let document: Document = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let checks = [
        ("instanceId", &document.instance_id, document.instance_id.starts_with("i-") && is_word(&document.instance_id)),
        ("imageId", &document.image_id, document.image_id.starts_with("ami-") && is_word(&document.image_id)),
        (
            "accountId",
            &document.account_id,
            document.account_id.len() == 12 && document.account_id.chars().all(|c| c.is_ascii_digit()),
        ),
        ("region", &document.region, is_word(&document.region)),
        ("availabilityZone", &document.availability_zone, is_word(&document.availability_zone)),
        ("instanceType", &document.instance_type, document.instance_type.split('.').all(is_word)),
    ];
    match checks.iter().find(|(_, _, good)| !good) {
        None => Ok(document),
        Some((name, value, _)) => Err(wrong(format!("{name} is {value:?}"))),
    }
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(plain)
}

/// For the few places where `services/partition` is missing.
fn partition_of(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// DHCP options with several domains give several names in one line; the first is the one EC2 resolves.
fn node_name(text: &str) -> Outcome<String> {
    let name = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if is_dns_name(&name) {
        return Ok(name);
    }
    // EC2 gives no such names: somebody else answered (a proxy's page), and may not the next time.
    let shown: String = name.chars().take(60).collect();
    let why = format!("{shown:?} is not a DNS name");
    Err(Failure::new(Cause::MetadataUnavailable, format!("read {HOSTNAME} of the metadata service"), why)
        .advise("find out who answers at the metadata address, or set `node.name`"))
}

/// The primary private IPv4 address; IPv6 in subnets without IPv4.
async fn address(imds: &Imds, document: &Document) -> Outcome<IpAddr> {
    let named = document.private_ip.clone();
    let text = match named.filter(|text| !text.is_empty()) {
        Some(text) => text,
        None => imds.required("meta-data/ipv6").await?,
    };
    text.parse().map_err(|_| {
        Failure::new(Cause::MetadataUnavailable, "find this machine's address", format!("{text:?} is not an address"))
            .advise("set `node.address`")
    })
}

#[cfg(test)]
mod tests {
    use super::super::imds::tests::{Scripted, imds, now};
    use super::*;

    const GOOD: &str = r#"{"accountId":"123456789012","availabilityZone":"eu-west-1a","imageId":"ami-0abc",
        "instanceId":"i-0123456789abcdef0","instanceType":"m7g.large","privateIp":"10.0.0.7","region":"eu-west-1","version":"2017-09-30"}"#;

    #[test]
    fn everything_follows_from_the_document_and_the_private_dns_name() {
        let metadata = Scripted::new(&[
            (DOCUMENT, &[(200, GOOD)]),
            ("meta-data/local-hostname", &[(200, "ip-10-0-0-7.eu-west-1.compute.internal corp.example.com")]),
        ]);
        let found = now(discover(&imds(&metadata).0, &NodeSettings::default())).expect("identity");
        assert_eq!(found.node_name, "ip-10-0-0-7.eu-west-1.compute.internal");
        assert_eq!(found.provider_id.as_deref(), Some("aws:///eu-west-1a/i-0123456789abcdef0"));
        assert_eq!(found.key(), "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0");
        assert_eq!(found.address.to_string(), "10.0.0.7");
        assert_eq!(found.labels.get("topology.kubernetes.io/zone").map(String::as_str), Some("eu-west-1a"));
    }

    #[test]
    fn what_is_configured_comes_first() {
        let metadata =
            Scripted::new(&[(DOCUMENT, &[(200, GOOD)]), ("meta-data/services/partition", &[(200, "aws-cn")])]);
        let node =
            NodeSettings { name: Some("w1".into()), address: "10.9.9.9".parse().ok(), ..NodeSettings::default() };
        let found = now(discover(&imds(&metadata).0, &node)).expect("identity");
        assert_eq!((found.node_name.as_str(), found.address.to_string().as_str()), ("w1", "10.9.9.9"));
        assert!(found.key().starts_with("arn:aws-cn:"));
    }

    #[test]
    fn a_subnet_without_ipv4_gives_the_ipv6_address() {
        let document = GOOD.replace("\"privateIp\":\"10.0.0.7\",", "");
        let metadata = Scripted::new(&[
            (DOCUMENT, &[(200, Box::leak(document.into_boxed_str()))]),
            ("meta-data/local-hostname", &[(200, "i-0.eu-west-1.compute.internal")]),
            ("meta-data/ipv6", &[(200, "2001:db8::7")]),
        ]);
        let found = now(discover(&imds(&metadata).0, &NodeSettings::default())).expect("identity");
        assert_eq!(found.address.to_string(), "2001:db8::7");
    }

    #[test]
    fn a_page_of_somebody_else_is_no_name_and_no_wrong_configuration() {
        for page in ["<html><body>Log in</body></html>", "../../x", "a\u{1b}[31mb", "-a"] {
            let failure = node_name(page).expect_err(page);
            assert_eq!(failure.cause, Cause::MetadataUnavailable);
            assert!(!failure.to_string().chars().any(char::is_control), "{failure}");
        }
    }

    #[test]
    fn garbage_is_refused_with_the_field() {
        for (from, to, word) in [
            ("i-0123456789abcdef0", "i-../../x", "instanceId"),
            ("123456789012", "12345", "accountId"),
            ("\"eu-west-1\"", "\"eu west\"", "region"),
            ("m7g.large", "m7g,large=x", "instanceType"),
            ("ami-0abc", "0abc", "imageId"),
        ] {
            let failure = parse(&GOOD.replace(from, to)).expect_err(word);
            assert!(failure.to_string().contains(word), "{failure}");
        }
        for text in ["", "<html>", "{}", "[]"] {
            assert_eq!(parse(text).expect_err(text).cause, Cause::MetadataUnavailable);
        }
    }
}
