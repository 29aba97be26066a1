//! The policy documents and their page: what moto does not evaluate (conditions), and that the tables of `iam/README.md`
//! say of every action what the tests show.

use super::removals::{CASES, UNSEEN};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The documents, by their names in `iam/`.
const DOCUMENTS: &[&str] = &[
    "master",
    "worker",
    "operator",
    "reader",
    "optional/doctor",
    "optional/drift",
    "optional/replace",
    "optional/archive",
    "optional/ecr-public",
    "optional/kms",
    "optional/pki",
];
/// What one node's own report ends with: the variable is the whole ARN of the instance that asks.
const OWN_REPORT: &str = "/PREFIX/CLUSTER/nodes/${ec2:SourceInstanceARN}/report.json";
/// Every key of a cluster.
const CLUSTER: &str = "arn:aws:s3:::BUCKET/PREFIX/CLUSTER/";
/// Actions for which AWS knows no resource (service authorization reference, "Resource types").
const WITHOUT_RESOURCE: &[&str] = &[
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeAutoScalingInstances",
    "autoscaling:DescribeLaunchConfigurations",
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ecr-public:GetAuthorizationToken",
    "ecr:GetAuthorizationToken",
    "sts:GetServiceBearerToken",
];

/// Every Auto Scaling group of the account; a condition confines it.
const GROUPS: &str = "arn:aws:autoscaling:REGION:ACCOUNT:autoScalingGroup:*:autoScalingGroupName/*";
/// AWS's parameters, and those of a cluster.
const PARAMETERS: [&str; 2] =
    ["arn:aws:ssm:REGION::parameter/aws/service/*", "arn:aws:ssm:REGION:ACCOUNT:parameter/kubestrap/CLUSTER/*"];

/// A statement of a document.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The feature it is for.
    pub sid: String,
    /// What it allows.
    pub actions: Vec<String>,
    /// On what.
    pub resources: Vec<String>,
    /// Under which condition; null for none.
    pub condition: Value,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("iam")
}

/// The text of a document, with its placeholders.
pub fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        other => other.as_array().expect("a list").iter().map(|text| text.as_str().expect("text").to_owned()).collect(),
    }
}

fn statements(name: &str) -> Vec<Statement> {
    let document: Value = serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let fields: Vec<&String> = document.as_object().expect("an object").keys().collect();
    assert_eq!(
        (fields, &document["Version"]),
        (vec![&"Statement".to_owned(), &"Version".to_owned()], &"2012-10-17".into())
    );
    let list = document["Statement"].as_array().expect("statements");
    list.iter()
        .map(|statement| {
            // No NotAction, NotResource or Deny: what is allowed is what is written.
            let known = ["Action", "Condition", "Effect", "Resource", "Sid"];
            assert!(
                statement.as_object().expect("an object").keys().all(|key| known.contains(&key.as_str())),
                "{statement}"
            );
            assert_eq!(statement["Effect"], "Allow", "{name}: {statement}");
            Statement {
                sid: statement["Sid"].as_str().expect("a Sid").to_owned(),
                actions: strings(&statement["Action"]),
                resources: strings(&statement["Resource"]),
                condition: statement["Condition"].clone(),
            }
        })
        .collect()
}

fn each(mut look: impl FnMut(&str, &Statement)) {
    for name in DOCUMENTS {
        statements(name).iter().for_each(|statement| look(name, statement));
    }
}

#[test]
fn every_document_is_listed_and_every_part_has_a_name_of_its_own() {
    let mut found = Vec::new();
    for (prefix, folder) in [("", folder()), ("optional/", folder().join("optional"))] {
        for entry in std::fs::read_dir(folder).expect("folder").flatten() {
            let file = entry.file_name().into_string().expect("a name");
            found.extend(file.strip_suffix(".json").map(|name| format!("{prefix}{name}")));
        }
    }
    found.sort_unstable();
    let mut listed = DOCUMENTS.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
    for name in DOCUMENTS {
        let mut sids: Vec<String> = statements(name).into_iter().map(|statement| statement.sid).collect();
        // IAM takes letters and digits.
        assert!(sids.iter().all(|sid| sid.chars().all(|c| c.is_ascii_alphanumeric())), "{name}: {sids:?}");
        let count = sids.len();
        sids.sort_unstable();
        sids.dedup();
        assert_eq!(sids.len(), count, "{name}");
    }
}

#[test]
fn actions_are_named_in_full_and_resources_too_where_aws_knows_them() {
    each(|name, statement| {
        for action in &statement.actions {
            let known = WITHOUT_RESOURCE.contains(&action.as_str());
            assert!(action.contains(':') && !action.contains('*'), "{name}: {action}");
            assert_eq!(known, statement.resources == ["*"], "{name} {}: {action}", statement.sid);
        }
        for resource in statement.resources.iter().filter(|resource| *resource != "*") {
            let place = match resource.split(':').nth(2) {
                Some("s3") => ["arn:aws:s3:::BUCKET", CLUSTER].iter().any(|start| resource.starts_with(start)),
                Some("ecr") => resource == "arn:aws:ecr:REGION:ACCOUNT:repository/*",
                Some("kms") => resource == "arn:aws:kms:REGION:ACCOUNT:key/KEY",
                Some("ssm") => PARAMETERS.contains(&resource.as_str()),
                Some("autoscaling") => resource == GROUPS,
                _ => false,
            };
            // A star in the middle would reach into another node's folder.
            let stars = resource != GROUPS && resource.trim_end_matches('*').contains('*');
            assert!(place && !stars && *resource != "arn:aws:s3:::BUCKET/*", "{name}: {resource}");
        }
    });
}

#[test]
fn a_list_is_limited_to_the_clusters_prefix() {
    let mut seen = 0;
    each(|name, statement| {
        if !statement.actions.iter().any(|action| action == "s3:ListBucket") {
            return;
        }
        seen += 1;
        assert_eq!(
            (&statement.actions[..], &statement.resources[..]),
            (&["s3:ListBucket".to_owned()][..], &["arn:aws:s3:::BUCKET".to_owned()][..])
        );
        let operators = statement.condition.as_object().unwrap_or_else(|| panic!("{name}: a list without a condition"));
        for (operator, keys) in operators {
            // ...IfExists would let a list without a prefix pass.
            assert!(["StringLike", "StringEquals"].contains(&operator.as_str()), "{name}: {operator}");
            let keys = keys.as_object().expect("keys");
            assert!(keys.len() == 1 && keys.contains_key("s3:prefix"), "{name}: {keys:?}");
            for prefix in strings(&keys["s3:prefix"]) {
                assert!(prefix.starts_with("PREFIX/CLUSTER/"), "{name}: {prefix}");
                assert!(!prefix.trim_end_matches('*').contains('*'), "{name}: {prefix}");
                // S3 takes the key of a missing object for the prefix (see the page), so a star is needed behind it,
                // or the very keys; for a worker the latter: it has no business with other nodes' keys.
                assert_eq!(operator == "StringEquals", name == "worker", "{name}: {operator}");
            }
        }
    });
    assert_eq!(seen, 4);
}

#[test]
fn a_worker_reads_what_it_joins_with_and_writes_its_own_report_alone() {
    let mut allowed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for statement in statements("worker") {
        for action in statement.actions {
            allowed.entry(action).or_default().extend(statement.resources.clone());
        }
    }
    let actions: Vec<&str> = allowed.keys().map(String::as_str).collect();
    let expected = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    ];
    assert_eq!(actions, expected);
    let own = format!("arn:aws:s3:::BUCKET{OWN_REPORT}");
    assert_eq!(allowed["s3:PutObject"], std::slice::from_ref(&own));
    assert_eq!(allowed["s3:GetObject"], [format!("{CLUSTER}cluster.json"), format!("{CLUSTER}join/worker.json"), own]);
}

#[test]
fn a_report_is_confined_by_the_whole_instance_arn() {
    each(|name, statement| {
        let puts = statement.actions.iter().any(|action| action == "s3:PutObject");
        for resource in &statement.resources {
            // A part of an ARN, or a pattern around it, would match other instances too.
            let variable = resource.contains("${");
            assert!(!variable || resource.ends_with(OWN_REPORT), "{name}: {resource}");
            assert!(!puts || !resource.contains("/nodes/") || variable, "{name} writes reports of others: {resource}");
        }
    });
}

#[test]
fn nobody_but_the_operator_deletes_and_nobody_deletes_what_was_retired() {
    each(|name, statement| {
        for action in &statement.actions {
            assert!(!action.contains("Terminate") || name == "optional/replace", "{name}: {action}");
            assert!(!action.contains("PutBucket"), "{name}: {action}");
            // A master may be allowed to archive what a machine reported that is gone.
            let may = name == "operator"
                || (name == "optional/archive" && statement.resources == [format!("{CLUSTER}nodes/*")])
                // And one that joins gives its lock back.
                || (name == "optional/pki" && statement.resources == [format!("{CLUSTER}join/control-plane.lock")]);
            assert!(!action.contains("Delete") || may, "{name}: {action}");
            if action.contains("Delete") {
                let kept = ["retired", "selftest"].map(|part| format!("{CLUSTER}{part}"));
                let reaches =
                    |resource: &String| kept.iter().any(|key| key.starts_with(resource.trim_end_matches('*')));
                assert!(!statement.resources.iter().any(reaches), "{statement:?}");
            }
        }
    });
}

#[test]
fn what_changes_a_group_is_confined_to_the_clusters_own_groups() {
    let confined = serde_json::json!({ "StringEquals": { "autoscaling:ResourceTag/kubestrap:cluster": "CLUSTER" } });
    let mut seen = Vec::new();
    each(|name, statement| {
        let is_change = |action: &&String| action.starts_with("autoscaling:") && !action.contains(":Describe");
        let changes: Vec<&String> = statement.actions.iter().filter(is_change).collect();
        if changes.is_empty() {
            return;
        }
        assert_eq!((&statement.resources[..], &statement.condition), (&[GROUPS.to_owned()][..], &confined), "{name}");
        seen.extend(changes.into_iter().map(|action| format!("{name} {action}")));
    });
    let expected = [
        "optional/drift autoscaling:CompleteLifecycleAction",
        "optional/drift autoscaling:RecordLifecycleActionHeartbeat",
        "optional/replace autoscaling:TerminateInstanceInAutoScalingGroup",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn the_key_of_the_store_is_used_through_s3_alone() {
    let statements = statements("optional/kms");
    assert_eq!(statements.len(), 1);
    assert_eq!(
        statements[0].condition,
        serde_json::json!({ "StringEquals": { "kms:ViaService": "s3.REGION.amazonaws.com" } })
    );
}

/// Whoever reaches the sealed keys and may use their key is a master of every cluster whose key it is; and workers do not
/// even reach the object.
#[test]
fn the_key_of_the_sealed_keys_is_used_for_this_cluster_alone() {
    let of_cluster = serde_json::json!({ "StringEquals": { "kms:EncryptionContext:kubestrap-cluster": "CLUSTER" } });
    let keys: Vec<Statement> = statements("optional/pki").into_iter().filter(|s| s.sid == "SealKey").collect();
    assert_eq!(keys.iter().map(|s| &s.condition).collect::<Vec<_>>(), [&of_cluster]);
    let mut writers = Vec::new();
    each(|name, statement| {
        let pki = format!("{CLUSTER}pki/");
        if statement.actions.iter().any(|action| action == "s3:PutObject")
            && statement.resources.iter().any(|resource| resource.starts_with(&pki))
        {
            writers.push(name.to_owned());
        }
    });
    assert_eq!(writers, ["optional/pki"]);
}

/// A row of a table: part, action, on what, what breaks.
type Row = [String; 4];

/// The tables of the page, by the document in the heading above each (`## master.json`).
fn tables() -> BTreeMap<String, Vec<Row>> {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("iam/README.md");
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut document = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            document = heading.trim_matches('`').strip_suffix(".json").unwrap_or_default().to_owned();
        }
        let cells: Vec<String> =
            line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        let Ok(row) = Row::try_from(cells) else { continue };
        if !document.is_empty() && row[1].starts_with('`') {
            tables.entry(document.clone()).or_default().push(row);
        }
    }
    tables
}

/// As the page writes resources.
fn on(statement: &Statement) -> String {
    let short = |resource: &String| match resource.strip_prefix(CLUSTER) {
        Some(key) => format!("`{key}`"),
        None if resource == "arn:aws:s3:::BUCKET" => "the bucket".to_owned(),
        None => format!("`{}`", resource.rsplit(':').next().unwrap_or_default()),
    };
    statement.resources.iter().map(short).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_page_says_of_every_action_what_the_tests_show() {
    let tables = tables();
    let mut rows = 0;
    for name in DOCUMENTS {
        let expected: Vec<Row> = statements(name)
            .iter()
            .flat_map(|statement| {
                let row = |action: &String| {
                    let case = CASES.iter().filter(|case| {
                        (case.document, case.sid, case.action) == (*name, statement.sid.as_str(), action.as_str())
                    });
                    let unseen =
                        UNSEEN.iter().filter(|(place, _)| *place == (*name, statement.sid.as_str(), action.as_str()));
                    let says: Vec<&str> =
                        case.map(|case| case.breaks).chain(unseen.map(|(_, breaks)| *breaks)).collect();
                    assert_eq!(
                        says.len(),
                        1,
                        "{name} {} {action}: one case, or one reason why there is none",
                        statement.sid
                    );
                    [format!("`{}`", statement.sid), format!("`{action}`"), on(statement), says[0].to_owned()]
                };
                statement.actions.iter().map(row).collect::<Vec<_>>()
            })
            .collect();
        rows += expected.len();
        let found = tables.get(*name).cloned().unwrap_or_default();
        let print = |rows: &[Row]| rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect::<String>();
        assert_eq!(print(&found), print(&expected), "the table of {name}.json in iam/README.md");
    }
    assert_eq!(rows, CASES.len() + UNSEEN.len(), "a case is about an action that no document has");
}

/// The command of the page that fills the placeholders, run as it stands.
#[test]
fn the_command_of_the_page_fills_every_placeholder() {
    let page = std::fs::read_to_string(folder().join("README.md")).expect("iam/README.md");
    let block = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a command");
    assert!(block.contains("iam/worker.json"), "{block}");
    for name in DOCUMENTS {
        let block = block.replace("iam/worker.json", &format!("iam/{name}.json"));
        let output = std::process::Command::new("sh").args(["-ec", &block]).current_dir(folder().join("..")).output();
        let output = output.expect("sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let filled = String::from_utf8(output.stdout).expect("text");
        serde_json::from_str::<Value>(&filled).unwrap_or_else(|error| panic!("{name}: {error}: {filled}"));
        for placeholder in ["BUCKET", "PREFIX", "CLUSTER", "ACCOUNT", "REGION", "KEY"] {
            let left = filled.replace("ecr-public", "").contains(placeholder);
            assert!(!left, "{name}: {placeholder} is left:\n{filled}");
        }
        assert_eq!(filled.contains("${ec2:SourceInstanceARN}"), text(name).contains("${ec2:SourceInstanceARN}"));
    }
}
