//! Requests: authentication, authorization, then the verb.

use super::auth::{self, User};
use super::resources::{self, Resource, Target};
use super::state::State;
use super::{Shared, apply, eviction, status};
use crate::etcd::UNUSABLE;
use crate::http::{Answer, Handler, Request, pause, respond};
use crate::kubeadm::documents;
use crate::script::seconds;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io;

/// When an object was made, to the microsecond: delays of controllers are shorter than a creationTimestamp's second.
pub(super) const CREATED_AT: &str = "standin.kubestrap.dev/created-at";

type Reply = (u16, Value);

impl Handler for Shared {
    async fn handle(&self, request: Request) -> Answer {
        let fault = self.fault(&request);
        if let Some((status_code, delay)) = fault {
            pause(seconds(delay)).await;
            if status_code == 0 {
                let _ = self.answer(&request);
                return Answer::Close;
            }
            if status_code != 200 {
                let (code, body) = status(status_code, "InternalError", "the stand-in was told to fail here");
                return Answer::Response(Box::new(respond(code, "application/json", body.to_string())));
            }
        }
        if self.etcd.as_ref().is_some_and(|etcd| !etcd.is_usable()) {
            return self.without_etcd(&request).await;
        }
        let (code, body) = self.answer(&request);
        let content_type = if body.is_string() { "text/plain; charset=utf-8" } else { "application/json" };
        let text = body.as_str().map_or_else(|| body.to_string(), ToOwned::to_owned);
        Answer::Response(Box::new(respond(code, content_type, text)))
    }
}

impl Shared {
    /// What an API server says whose etcd does not answer: it lives, and that is all.
    async fn without_etcd(&self, request: &Request) -> Answer {
        if ["/healthz", "/livez", "/readyz"].contains(&request.path.as_str()) {
            let check = request.path.trim_start_matches('/');
            let text = format!("[+]ping ok\n[-]etcd failed: reason withheld\n{check} check failed\n");
            return Answer::Response(Box::new(respond(500, "text/plain; charset=utf-8", text)));
        }
        pause(seconds(self.script.etcd.timeout_seconds)).await;
        let (code, body) = status(500, "InternalError", UNUSABLE);
        Answer::Response(Box::new(respond(code, "application/json", body.to_string())))
    }

    fn fault(&self, request: &Request) -> Option<(u16, f64)> {
        let mut used = self.faults_used.lock().ok()?;
        for (fault, used) in self.script.api.faults.iter().zip(used.iter_mut()) {
            let method = fault.method.as_deref().is_none_or(|method| method == request.method);
            if method && request.path.contains(&fault.path) && fault.times.is_none_or(|times| *used < times) {
                *used += 1;
                return Some((fault.status, fault.seconds));
            }
        }
        None
    }

    fn answer(&self, request: &Request) -> Reply {
        let mut entered = match self.enter() {
            Ok(entered) => entered,
            Err(error) => return status(500, "InternalError", &error.to_string()),
        };
        let state = &mut *entered.state;
        let Some(user) = auth::authenticate(request, state) else {
            return status(401, "Unauthorized", "Unauthorized");
        };
        match request.path.as_str() {
            "/healthz" | "/livez" | "/readyz" => return (200, json!("ok")),
            "/version" => return (200, self.version(state)),
            _ => {}
        }
        let resources = resources::all(state);
        if let Some(document) = resources::discovery(&request.path, &resources) {
            return if user.name == "system:anonymous" {
                forbidden(&user, "get", &request.path)
            } else {
                (200, document)
            };
        }
        let Some(target) = resources::parse(&request.path, &resources) else {
            return status(404, "NotFound", "the server could not find the requested resource");
        };
        let verb = match (request.method.as_str(), &target.name) {
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => {
                return status(
                    405,
                    "MethodNotAllowed",
                    "the server does not allow this method on the requested resource",
                );
            }
        };
        if !auth::may(&user, verb, &target, state) {
            return forbidden_on(&user, verb, &target);
        }
        dispatch(state, request, &user, verb, &target)
            .unwrap_or_else(|error| status(500, "InternalError", &error.to_string()))
    }

    /// What the cluster was made with, which need not be kubeadm's own version.
    fn version(&self, state: &State) -> Value {
        let version = kubernetes_version(state).unwrap_or_else(|| self.manifest_version());
        let (major, minor) = version.trim_start_matches('v').split_once('.').unwrap_or_default();
        let minor = minor.split('.').next().unwrap_or_default();
        json!({"major": major, "minor": minor, "gitVersion": version, "platform": "linux/amd64"})
    }

    /// The version of the API server's image in its manifest.
    fn manifest_version(&self) -> String {
        let path = crate::files::under(&self.root, "/etc/kubernetes/manifests/kube-apiserver.yaml");
        let pod: Value =
            crate::files::read_text(&path).ok().and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default();
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        let version = image.rsplit_once(':').map(|(_, version)| version.to_owned());
        version.unwrap_or_else(|| self.script.kubeadm_version.clone())
    }
}

fn kubernetes_version(state: &State) -> Option<String> {
    let map = state.objects.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")?;
    let cluster: documents::ClusterConfiguration =
        serde_saphyr::from_str(map["data"]["ClusterConfiguration"].as_str()?).ok()?;
    Some(cluster.kubernetes_version).filter(|version| !version.is_empty())
}

fn forbidden(user: &User, verb: &str, path: &str) -> Reply {
    status(403, "Forbidden", &format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name))
}

fn forbidden_on(user: &User, verb: &str, target: &Target) -> Reply {
    let Resource { group, plural, .. } = &target.resource;
    let what = target.resource.qualified();
    let name = target.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    let place = match &target.namespace {
        Some(namespace) => format!(" in the namespace {namespace:?}"),
        None => " at the cluster scope".to_owned(),
    };
    let who = &user.name;
    status(
        403,
        "Forbidden",
        &format!(
            "{what}{name} is forbidden: User {who:?} cannot {verb} resource {plural:?} in API group {group:?}{place}"
        ),
    )
}

fn not_found(target: &Target) -> Reply {
    let name = target.name.as_deref().unwrap_or_default();
    status(404, "NotFound", &format!("{} {name:?} not found", target.resource.qualified()))
}

fn dispatch(state: &mut State, request: &Request, user: &User, verb: &str, target: &Target) -> io::Result<Reply> {
    let path = target.path();
    match verb {
        "get" => Ok(state.objects.get(&path).map_or_else(|| not_found(target), |object| (200, object.clone()))),
        "list" => Ok((200, list(state, request, target))),
        "create" if target.subresource.as_deref() == Some("eviction") => match parse(&request.body) {
            Ok(body) => eviction::evict(state, target, user.node(), &body),
            Err(reply) => Ok(reply),
        },
        "create" => create(state, request, user, target),
        "update" => update(state, request, user, target),
        "patch" => patch(state, request, user, target),
        _ => delete(state, request, target),
    }
}

fn parse(body: &[u8]) -> Result<Value, Reply> {
    let text = String::from_utf8_lossy(body);
    serde_saphyr::from_str::<Value>(&text)
        .map_err(|e| status(400, "BadRequest", &format!("the object provided is unrecognized: {e}")))
}

/// What is wrong with an object at this place; `None` when nothing is.
fn check(object: &Value, target: &Target) -> Option<Reply> {
    let expected = (target.resource.api_version(), target.resource.kind.as_str());
    let found = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    if (expected.0.as_str(), expected.1) != found {
        let message = format!(
            "the object ({}, {}) does not match the expected ({}, {})",
            found.0, found.1, expected.0, expected.1
        );
        return Some(status(400, "BadRequest", &message));
    }
    let namespace = object["metadata"]["namespace"].as_str();
    if namespace.is_some() && namespace != target.namespace.as_deref() {
        return Some(status(
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    None
}

/// What the API server does to every object it stores.
fn admit(object: &mut Value, target: &Target, user: &User) {
    if let Some(namespace) = &target.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if target.resource.plural == "secrets"
        && let Some(plain) = object.as_object_mut().and_then(|map| map.remove("stringData"))
    {
        let mut data = object["data"].as_object().cloned().unwrap_or_default();
        for (key, value) in plain.as_object().into_iter().flatten() {
            data.insert(key.clone(), json!(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
        object["data"] = Value::Object(data);
    }
    if target.resource.plural == "certificatesigningrequests" {
        object["spec"]["username"] = json!(user.name);
        object["spec"]["groups"] = json!(user.groups);
    }
}

fn stamp(object: &mut Value) {
    object["metadata"]["annotations"][CREATED_AT] = json!(Timestamp::now().to_string());
}

fn create(state: &mut State, request: &Request, user: &User, target: &Target) -> io::Result<Reply> {
    let mut object = match parse(&request.body) {
        Ok(object) => object,
        Err(reply) => return Ok(reply),
    };
    if let Some(refused) = check(&object, target) {
        return Ok(refused);
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Ok(status(422, "Invalid", "metadata.name: Required value: name or generateName is required"));
    }
    let target = &Target { name: Some(name.clone()), ..target.clone() };
    let path = target.path();
    if state.objects.contains_key(&path) {
        return Ok(status(409, "AlreadyExists", &format!("{} {name:?} already exists", target.resource.qualified())));
    }
    if let Some(refused) = missing_namespace(state, target) {
        return Ok(refused);
    }
    if target.resource.plural == "nodes"
        && let Some(why) = auth::node_restriction(user, &name, None, &object)
    {
        return Ok(status(403, "Forbidden", &format!("nodes {name:?} is forbidden: {why}")));
    }
    admit(&mut object, target, user);
    stamp(&mut object);
    Ok((201, state.put(&path, object)?))
}

fn missing_namespace(state: &State, target: &Target) -> Option<Reply> {
    let namespace = target.namespace.as_ref()?;
    let exists = state.objects.contains_key(&format!("/api/v1/namespaces/{namespace}"));
    (!exists).then(|| status(404, "NotFound", &format!("namespaces {namespace:?} not found")))
}

/// Stores a changed object after the checks all changes have in common.
fn store(state: &mut State, user: &User, target: &Target, mut object: Value) -> io::Result<Reply> {
    let path = target.path();
    let Some(before) = state.objects.get(&path).cloned() else { return Ok(not_found(target)) };
    let name = target.name.as_deref().unwrap_or_default();
    let version = object["metadata"]["resourceVersion"].as_str();
    if version.is_some_and(|version| Some(version) != before["metadata"]["resourceVersion"].as_str()) {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Ok(status(
            409,
            "Conflict",
            &format!("Operation cannot be fulfilled on {} {name:?}: {why}", target.resource.qualified()),
        ));
    }
    if target.resource.plural == "nodes"
        && let Some(why) = auth::node_restriction(user, name, Some(&before), &object)
    {
        return Ok(status(403, "Forbidden", &format!("nodes {name:?} is forbidden: {why}")));
    }
    admit(&mut object, target, user);
    object["metadata"]["name"] = json!(name);
    if let Some(at) = before["metadata"]["annotations"][CREATED_AT].as_str() {
        object["metadata"]["annotations"][CREATED_AT] = json!(at);
    }
    Ok((200, state.put(&path, object)?))
}

fn update(state: &mut State, request: &Request, user: &User, target: &Target) -> io::Result<Reply> {
    let object = match parse(&request.body) {
        Ok(object) => object,
        Err(reply) => return Ok(reply),
    };
    match check(&object, target) {
        Some(refused) => Ok(refused),
        None => store(state, user, target, object),
    }
}

fn patch(state: &mut State, request: &Request, user: &User, target: &Target) -> io::Result<Reply> {
    let content_type = request.header("content-type").unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let patch = match parse(&request.body) {
        Ok(patch) => patch,
        Err(reply) => return Ok(reply),
    };
    match content_type {
        // A strategic merge differs in lists with merge keys; for the maps that are patched here it is the same.
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            let Some(mut object) = state.objects.get(&target.path()).cloned() else { return Ok(not_found(target)) };
            apply::merge(&mut object, &patch);
            store(state, user, target, object)
        }
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            apply_patch(state, request, user, target, &patch)
        }
        other => Ok(status(
            415,
            "UnsupportedMediaType",
            &format!(
                "the body of the request was in an unknown format - accepted media types include: application/merge-patch+json, application/apply-patch+yaml; got {other}"
            ),
        )),
    }
}

fn apply_patch(
    state: &mut State,
    request: &Request,
    user: &User,
    target: &Target,
    wanted: &Value,
) -> io::Result<Reply> {
    let Some(manager) = request.parameter("fieldManager").filter(|manager| !manager.is_empty()) else {
        return Ok(status(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    };
    if let Some(refused) = check(wanted, target).or_else(|| missing_namespace(state, target)) {
        return Ok(refused);
    }
    if !wanted["metadata"]["managedFields"].is_null() {
        return Ok(status(400, "BadRequest", "metadata.managedFields must be nil"));
    }
    let path = target.path();
    let force = request.parameter("force").as_deref() == Some("true");
    let created = !state.objects.contains_key(&path);
    match apply::apply(state, &path, &manager, wanted, force) {
        Err(conflicts) => {
            let list: Vec<String> = conflicts
                .iter()
                .map(|c| format!("conflict with {:?}: {}", c.manager, c.field.replace('/', ".")))
                .collect();
            let plural = if list.len() == 1 { "conflict" } else { "conflicts" };
            Ok(status(409, "Conflict", &format!("Apply failed with {} {plural}: {}", list.len(), list.join(", "))))
        }
        Ok(mut object) if created => {
            admit(&mut object, target, user);
            object["metadata"]["name"] = json!(target.name);
            stamp(&mut object);
            Ok((201, state.put(&path, object)?))
        }
        Ok(object) => store(state, user, target, object),
    }
}

fn delete(state: &mut State, request: &Request, target: &Target) -> io::Result<Reply> {
    let Some(object) = state.objects.get(&target.path()) else { return Ok(not_found(target)) };
    let options = parse(&request.body).unwrap_or_default();
    for name in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][name];
        if wanted.is_string() && *wanted != object["metadata"][name] {
            return Ok(status(409, "Conflict", &format!("Precondition failed: {name} in precondition: {wanted}")));
        }
    }
    if target.resource.plural == "pods" && target.subresource.is_none() {
        let grace = request.parameter("gracePeriodSeconds").and_then(|text| text.parse::<i64>().ok());
        let pod = object.clone();
        return eviction::delete(state, &target.path(), pod, grace.or(options["gracePeriodSeconds"].as_i64()));
    }
    state.remove(&target.path())?;
    Ok((200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})))
}

fn list(state: &State, request: &Request, target: &Target) -> Value {
    let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
    let prefix = format!("{}/", target.resource.prefix());
    // A continuation is the place at which the next page begins; it does not expire here.
    let number = |name| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let (limit, from) = (number("limit").filter(|limit| *limit > 0), number("continue").unwrap_or_default());
    let all: Vec<&Value> = state
        .objects
        .iter()
        .filter(|(path, object)| {
            let Some(rest) = path.strip_prefix(&prefix) else { return false };
            let words: Vec<&str> = rest.split('/').collect();
            let here = match words.as_slice() {
                ["namespaces", namespace, plural, _] => {
                    *plural == target.resource.plural
                        && target.namespace.as_deref().is_none_or(|wanted| wanted == *namespace)
                }
                [plural, _] => *plural == target.resource.plural && !target.resource.namespaced,
                _ => false,
            };
            here && selected(labels.as_deref(), |key| object["metadata"]["labels"].get(key).and_then(Value::as_str))
                && selected(fields.as_deref(), |key| {
                    object.pointer(&format!("/{}", key.replace('.', "/"))).and_then(Value::as_str)
                })
        })
        .map(|(_, object)| object)
        .collect();
    let items: Vec<&Value> = all.iter().skip(from).take(limit.unwrap_or(usize::MAX)).copied().collect();
    let mut metadata = json!({"resourceVersion": state.revision.to_string()});
    if from + items.len() < all.len() {
        metadata["continue"] = json!((from + items.len()).to_string());
    }
    json!({
        "kind": format!("{}List", target.resource.kind), "apiVersion": target.resource.api_version(),
        "metadata": metadata, "items": items,
    })
}

/// Selectors with `a=b`, `a==b`, `a!=b`, `a` and `!a`, joined by commas.
fn selected<'a>(selector: Option<&str>, get: impl Fn(&str) -> Option<&'a str>) -> bool {
    selector.unwrap_or_default().split(',').filter(|term| !term.is_empty()).all(|term| {
        if let Some((key, value)) = term.split_once("!=") {
            get(key) != Some(value)
        } else if let Some((key, value)) = term.split_once('=') {
            get(key) == Some(value.trim_start_matches('='))
        } else if let Some(key) = term.strip_prefix('!') {
            get(key).is_none()
        } else {
            get(term).is_some()
        }
    })
}
