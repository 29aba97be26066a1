//! The kubelet's CredentialProviderConfig (kubelet.config.k8s.io): our provider in it, beside those of other people.
//!
//! A file that is there is not written anew: our entry is a block of lines between two marks, put behind the last
//! provider, so that comments and order stay and taking it out gives back the same bytes. Where that cannot be done (JSON,
//! `providers` on one line) the document is written anew with the same content.

mod lines;
mod overlap;

use crate::config::settings::Settings;
use crate::ecr::host::MATCH_IMAGES;
use crate::ecr::plugin::{ROLE_ANNOTATION, VERB};
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::version::KubeVersion;
use serde_json::{Map, Value, json};

/// The largest file that is read; the kubelet has no limit.
pub const MAX: u64 = 1024 * 1024;
/// The group of the document, with its slash.
const GROUP: &str = "kubelet.config.k8s.io/";
const KIND: &str = "CredentialProviderConfig";
/// The first kubelet that passes service account tokens to plugins without a feature gate (KEP-4412).
const TOKENS_SINCE: u32 = 34;

/// Our entry in `providers`.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    name: String,
    entry: Value,
    match_images: Vec<String>,
    passes_tokens: bool,
}

impl Provider {
    /// The entry that follows from the settings; `name` is the file name of our program.
    pub fn new(name: &str, settings: &Settings) -> Provider {
        let ecr = &settings.ecr;
        let mirrors = ecr.mirrors.iter().map(|(host, of)| format!("--mirror={host}={}", of.host()));
        let args: Vec<String> = std::iter::once(VERB.to_owned()).chain(mirrors).collect();
        let match_images: Vec<String> =
            MATCH_IMAGES.iter().map(|glob| (*glob).to_owned()).chain(ecr.mirrors.keys().cloned()).collect();
        let mut entry = json!({
            "name": name,
            "matchImages": match_images,
            // What has no cacheDuration is nearly dead: it is not kept.
            "defaultCacheDuration": "0s",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "args": args,
        });
        let env = environment(settings);
        if !env.is_empty() {
            entry["env"] = json!(env);
        }
        if let Some(audience) = &ecr.audience {
            entry["tokenAttributes"] = json!({
                "serviceAccountTokenAudience": audience,
                // One role for all pods of a service account: its token may be shared among them.
                "cacheType": "ServiceAccount",
                // Static pods have none, and pull with the node's role.
                "requireServiceAccount": false,
                "optionalServiceAccountAnnotationKeys": [ROLE_ANNOTATION],
            });
        }
        Provider { name: name.to_owned(), entry, match_images, passes_tokens: ecr.audience.is_some() }
    }

    /// Refuses a kubelet that does not know what the entry says: it would not start.
    pub fn refuse_old(&self, kubelet: &KubeVersion) -> Outcome<()> {
        if !self.passes_tokens || kubelet.minor >= TOKENS_SINCE {
            return Ok(());
        }
        let why = format!("kubelet {kubelet} does not pass them to plugins; 1.{TOKENS_SINCE} and newer do");
        let failure = Failure::new(Cause::Configuration, "let pods pull by service account tokens", why);
        Err(failure.advise("install a newer kubelet, or remove `ecr.service_account_audience`"))
    }
}

/// Endpoints that are configured, for the plugin does not read our configuration.
fn environment(settings: &Settings) -> Vec<Value> {
    let endpoints = [
        ("AWS_ENDPOINT_URL_ECR", &settings.ecr_endpoint),
        ("AWS_ENDPOINT_URL_STS", &settings.sts_endpoint),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &settings.metadata_endpoint),
    ];
    let said = endpoints.iter().filter_map(|(name, value)| Some(json!({ "name": name, "value": value.as_ref()? })));
    said.collect()
}

/// A file with our entry in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The text of the whole file.
    pub text: String,
    /// Names of other providers that match hosts of ours too, in their order: the kubelet asks them first.
    pub rivals: Vec<String>,
}

/// The file with our entry, put in or replaced; `path` is for errors.
///
/// # Errors
/// `Configuration` when what is there cannot be read as a CredentialProviderConfig, or cannot say what ours says.
pub fn merge(path: &str, existing: Option<&str>, provider: &Provider) -> Outcome<Merged> {
    let fresh = lines::fresh(&provider.entry);
    // A file that says just this is what every look after the first one finds: nobody else is in it, nothing is to be read.
    let Some(existing) = existing.filter(|text| !text.trim().is_empty() && *text != fresh) else {
        return Ok(Merged { text: fresh, rivals: Vec::new() });
    };
    let before = parse(path, existing)?;
    if provider.passes_tokens && before.get("apiVersion") != Some(&json!(format!("{GROUP}v1"))) {
        let why = "`tokenAttributes` needs the apiVersion kubelet.config.k8s.io/v1, and the file has another one";
        let failure = Failure::new(Cause::Configuration, format!("add kubestrap's provider to {path}"), why);
        return Err(failure.advise("write that apiVersion there, or remove `ecr.service_account_audience`"));
    }
    let others: Vec<Value> = providers(&before).iter().filter(|other| name(other) != provider.name).cloned().collect();
    let mut after = before.clone();
    after.insert("providers".to_owned(), others.iter().chain([&provider.entry]).cloned().collect());
    let is_right = |text: &String| parse(path, text).is_ok_and(|read| read == after);
    let spliced = lines::put(&lines::cut(existing), &provider.entry).filter(is_right);
    let text = spliced.map_or_else(|| whole(existing, &after), Ok)?;
    Ok(Merged { text, rivals: rivals(&others, provider) })
}

/// What is left of a file without our entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// It has none of ours.
    Untouched,
    /// The file without it.
    Text(String),
    /// Nothing of anybody: the file goes.
    Nothing,
}

/// Takes our entry out; `name` is the file name of our program, `path` is for errors.
///
/// # Errors
/// `Configuration` when it cannot be read as a CredentialProviderConfig.
pub fn remove(path: &str, existing: &str, our_name: &str) -> Outcome<Rest> {
    let before = parse(path, existing)?;
    let all = providers(&before);
    let others: Vec<Value> = all.iter().filter(|other| name(other) != our_name).cloned().collect();
    let cut = lines::cut(existing);
    if others.len() == all.len() && cut == existing {
        return Ok(Rest::Untouched);
    }
    let known = |key: &String| matches!(key.as_str(), "apiVersion" | "kind" | "providers");
    if others.is_empty() && before.keys().all(known) {
        return Ok(Rest::Nothing);
    }
    let mut after = before.clone();
    after.insert("providers".to_owned(), Value::Array(others));
    let is_right = |text: &String| parse(path, text).is_ok_and(|read| providers(&read) == providers(&after));
    Some(cut).filter(is_right).map_or_else(|| whole(existing, &after), Ok).map(Rest::Text)
}

/// Whether the file has an entry of this name.
///
/// # Errors
/// `Configuration` when it cannot be read as a CredentialProviderConfig.
pub fn has(path: &str, existing: &str, our_name: &str) -> Outcome<bool> {
    Ok(providers(&parse(path, existing)?).iter().any(|provider| name(provider) == our_name))
}

/// The providers of a file that match hosts of ours too and come before ours; all such when ours is not in it.
///
/// # Errors
/// `Configuration` when it cannot be read as a CredentialProviderConfig.
pub fn earlier_rivals(path: &str, existing: &str, provider: &Provider) -> Outcome<Vec<String>> {
    let document = parse(path, existing)?;
    let earlier: Vec<Value> =
        providers(&document).iter().take_while(|other| name(other) != provider.name).cloned().collect();
    Ok(rivals(&earlier, provider))
}

fn rivals(others: &[Value], provider: &Provider) -> Vec<String> {
    let globs = |other: &Value| -> Vec<String> {
        let list = other.get("matchImages").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let is_rival = |other: &&Value| {
        globs(other).iter().any(|theirs| provider.match_images.iter().any(|ours| overlap::overlap(theirs, ours)))
    };
    others.iter().filter(is_rival).map(|other| name(other).to_owned()).collect()
}

fn name(provider: &Value) -> &str {
    provider.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn providers(document: &Map<String, Value>) -> &[Value] {
    document.get("providers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn parse(path: &str, text: &str) -> Outcome<Map<String, Value>> {
    let wrong = |why: String| {
        let attempted = format!("read the kubelet's {KIND} {path}");
        let failure = Failure::new(Cause::Configuration, attempted, why);
        failure.advise("correct the file, or say `ecr: {enabled: false}`; the kubelet would not start with it either")
    };
    let document: Value = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(map) = document else { return Err(wrong("it is not a map".to_owned())) };
    if map.get("kind") != Some(&json!(KIND)) {
        return Err(wrong(format!("its kind is not {KIND}")));
    }
    if !map.get("apiVersion").and_then(Value::as_str).is_some_and(|version| version.starts_with(GROUP)) {
        return Err(wrong(format!("its apiVersion is not of {}", GROUP.trim_end_matches('/'))));
    }
    match map.get("providers") {
        None | Some(Value::Null) => Ok(map),
        Some(Value::Array(list)) if list.iter().all(Value::is_object) => Ok(map),
        Some(_) => Err(wrong("`providers` is not a list of maps".to_owned())),
    }
}

/// The document written anew: JSON stays JSON, which the kubelet knows by its first character.
fn whole(existing: &str, document: &Map<String, Value>) -> Outcome<String> {
    let failed = |why: String| Failure::new(Cause::Internal, format!("write a {KIND}"), why);
    if existing.trim_start().starts_with('{') {
        let text = serde_json::to_string_pretty(document).map_err(|error| failed(error.to_string()))?;
        return Ok(format!("{text}\n"));
    }
    let text = serde_saphyr::to_string(document).map_err(|error| failed(error.to_string()))?;
    Ok(format!("{}\n", text.trim_end()))
}

#[cfg(test)]
mod tests;
