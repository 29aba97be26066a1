//! A login of ECR by the shortest way: the cache, somebody else's answer, or ECR itself.

use super::trust;
use crate::adapters::aws::Aws;
use crate::adapters::cloud::{AwsCloud, Endpoints};
use crate::adapters::imds;
use crate::adapters::net::Names;
use crate::adapters::time::SystemTime;
use crate::adapters::token_cache::{TokenCache, Turn};
use jiff::Timestamp;
use kubestrap_core::ecr::cache::{Entry, Key, Way, way};
use kubestrap_core::ecr::fetch;
use kubestrap_core::ecr::token::Login;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::TokenRequest;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long ECR is asked, with repetitions.
const ASK: Duration = Duration::from_secs(9);
/// How long another process may take that asks for the same.
const WAIT: Duration = Duration::from_secs(9);
/// How often is looked whether it has an answer.
const LOOK: Duration = Duration::from_millis(10);
/// What of the environment decides who is asked, and as whom. Access keys are not among them: they change and the
/// login they got lives on.
const SURROUNDINGS: &[&str] = &[
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ECR",
    "AWS_ENDPOINT_URL_ECR_PUBLIC",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// A login, and where it came from.
#[derive(Debug)]
pub struct Found {
    /// The login.
    pub login: Login,
    /// Where it came from.
    pub source: Source,
}

/// Where a login came from.
#[derive(Debug)]
pub enum Source {
    /// The cache.
    Cache,
    /// ECR, asked by this process or by one it waited for.
    Ecr,
    /// The cache, for ECR could not be asked.
    Spared(Failure),
}

/// Finds a login for a request. With a cache in `folder`, at most one process asks ECR at a time; without, or when it
/// cannot be used, which is said on standard error, this one asks.
///
/// # Errors
/// As ECR's answer, when there is no login that lives.
pub fn find(folder: Option<&Path>, request: &TokenRequest) -> Outcome<Found> {
    let Some(folder) = folder else { return ask(request).map(from_ecr) };
    let cache = TokenCache::new(folder, trust::own_uid());
    let result = find_with(&cache, request);
    cache.count(match &result {
        Ok(Found { source: Source::Cache, .. }) => "hit",
        Ok(Found { source: Source::Ecr, .. }) => "asked",
        Ok(Found { source: Source::Spared(_), .. }) => "spared",
        Err(_) => "failed",
    });
    result
}

fn from_ecr(login: Login) -> Found {
    Found { login, source: Source::Ecr }
}

fn find_with(cache: &TokenCache, request: &TokenRequest) -> Outcome<Found> {
    let began = Timestamp::now();
    let key = Key::of(request, &surroundings())?;
    if let Some(decision) = decided(cache, &key, began) {
        return decision;
    }
    let turn = match cache.prepare().and_then(|()| await_turn(cache, &key, began)) {
        Ok(Waited::Answer(decision)) => return decision,
        Ok(Waited::Turn(turn)) => Some(turn),
        Ok(Waited::InVain) => None,
        Err(failure) => {
            eprintln!("kubestrap: going on without a cache: failed to {failure}");
            return ask(request).map(from_ecr);
        }
    };
    let result = ask(request);
    let entry = Entry::after(cache.read(&key), &result, Timestamp::now());
    if let Some(Err(failure)) = turn.map(|_turn| cache.write(&key, &entry)) {
        eprintln!("kubestrap: the login is not kept: failed to {failure}");
    }
    match (result, entry.living(Timestamp::now())) {
        (Ok(login), _) => Ok(from_ecr(login)),
        (Err(failure), Some(login)) => Ok(Found { login: login.clone(), source: Source::Spared(failure) }),
        (Err(failure), None) => Err(failure),
    }
}

/// What the cache decides by itself.
fn decided(cache: &TokenCache, key: &Key, began: Timestamp) -> Option<Outcome<Found>> {
    let entry = cache.read(key)?;
    let found = |login: &Login, source| Some(Ok(Found { login: login.clone(), source }));
    match way(Some(&entry), began, Timestamp::now()) {
        Way::Answer(login) => found(login, Source::Cache),
        Way::Spare(login, failure) => found(login, Source::Spared(failure.clone())),
        Way::Share(failure) => Some(Err(failure.clone())),
        Way::Ask => None,
    }
}

enum Waited {
    /// It is ours to ask.
    Turn(Turn),
    /// Somebody else's answer.
    Answer(Outcome<Found>),
    /// Somebody has the turn and gets nothing: it hangs, for an attempt has an end.
    InVain,
}

/// Waits for the turn, or for an answer that makes it needless.
fn await_turn(cache: &TokenCache, key: &Key, began: Timestamp) -> Outcome<Waited> {
    let until = Instant::now() + WAIT;
    loop {
        let turn = cache.turn(key)?;
        // Looked at again with the turn in hand: whoever had it may have written before it gave it back.
        if let Some(decision) = decided(cache, key, began) {
            return Ok(Waited::Answer(decision));
        }
        match turn {
            Some(turn) => return Ok(Waited::Turn(turn)),
            None if Instant::now() >= until => return Ok(Waited::InVain),
            None => std::thread::sleep(LOOK),
        }
    }
}

/// Asks ECR, with the credentials and endpoints of the environment, the profile, or the instance.
fn ask(request: &TokenRequest) -> Outcome<Login> {
    let failed = |why: String| Failure::new(Cause::Internal, "start the runtime", why);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let aws = Aws::in_region(Names::default(), imds::base_url(None), request.api.region());
    let cloud = AwsCloud::new(Rc::new(aws), Endpoints::default());
    let result = runtime.block_on(async {
        match tokio::time::timeout(ASK, fetch::login(&cloud, &SystemTime, request, ASK)).await {
            Ok(result) => result,
            Err(_) => {
                let why = format!("there was no answer within {} s", ASK.as_secs());
                Err(Failure::new(Cause::Deadline, format!("get a token of {}", request.api), why))
            }
        }
    });
    // A name that is being resolved in another thread must not keep us.
    runtime.shutdown_background();
    result
}

fn surroundings() -> Vec<(String, String)> {
    SURROUNDINGS.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}
