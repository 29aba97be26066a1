//! A store in an S3 bucket, or in a server that speaks S3.

use super::{check_key, check_prefix, check_size, too_large};
use crate::adapters::aws::{Aws, Refusal, refusal};
use async_trait::async_trait;
use aws_config::Region;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::{LifecycleRule, ServerSideEncryption};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use jiff::Timestamp;
use kubestrap_core::config::settings::S3Settings;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::{
    Condition, Deleted, ETag, ExpiryRule, Fetched, KeyPage, MAX_OBJECT, Object, Objects, Reading, Written,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// A bucket and a prefix in it.
pub struct S3Store {
    aws: Rc<Aws>,
    bucket: String,
    prefix: String,
    settings: S3Settings,
    /// The client and the region it was made for; made again once the bucket has told its region.
    client: RefCell<Option<(Client, String)>>,
}

/// Headers of the last answer that the SDK does not hand out.
#[derive(Debug, Default, Clone)]
struct Seen {
    date: Option<Timestamp>,
    region: Option<String>,
}

#[derive(Debug, Default, Clone)]
struct Witness(Arc<Mutex<Seen>>);

impl Witness {
    fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "kubestrap-headers"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let date = headers.get("date").and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
        let region = headers.get("x-amz-bucket-region").filter(|region| is_region(region)).map(str::to_owned);
        let seen = Seen { date: date.and_then(timestamp), region };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }
}

/// It becomes part of a host name, so it is a label of one and nothing else.
fn is_region(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn timestamp(time: DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// Sends a request; when the bucket lives in another region than we thought, which S3 says without doing anything,
/// sends it there. Gives the answer and the headers that came with it.
macro_rules! send {
    ($store:expr, $client:ident => $request:expr) => {{
        let witness = Witness::default();
        let ($client, region) = $store.client().await?;
        let answer = $request.customize().interceptor(witness.clone()).send().await.map_err(refusal);
        match (&answer, witness.seen().region) {
            (Err(refused), Some(right)) if is_elsewhere(refused) && right != region => {
                $store.move_to(right).await?;
                let ($client, _) = $store.client().await?;
                let answer = $request.customize().interceptor(witness.clone()).send().await.map_err(refusal);
                (answer, witness.seen())
            }
            _ => (answer, witness.seen()),
        }
    }};
}

mod part;

/// PermanentRedirect, TemporaryRedirect, or a signature for the wrong region (AuthorizationHeaderMalformed).
fn is_elsewhere(refused: &Refusal) -> bool {
    matches!(refused.status, Some(301 | 307 | 400))
}

impl S3Store {
    /// The store at `s3://bucket/prefix`. Nothing is sent before the first call.
    pub fn new(aws: Rc<Aws>, bucket: String, prefix: String, settings: S3Settings) -> Self {
        S3Store { aws, bucket, prefix, settings, client: RefCell::new(None) }
    }

    async fn client(&self) -> Outcome<(Client, String)> {
        let made = self.client.borrow().clone();
        if let Some(client) = made {
            return Ok(client);
        }
        let own = self.aws.config().await?.region().map(ToString::to_string);
        self.move_to(self.settings.region.clone().or(own).unwrap_or_else(|| "us-east-1".to_owned())).await?;
        let made = self.client.borrow().clone();
        made.ok_or_else(|| Failure::new(Cause::Internal, "make an S3 client", "it is not there"))
    }

    async fn move_to(&self, region: String) -> Outcome<()> {
        let config = aws_sdk_s3::config::Builder::from(self.aws.config().await?)
            .region(Region::new(region.clone()))
            .force_path_style(self.settings.path_style)
            // Trailing checksums are sent in chunks with a signature each, which S3-compatible servers refuse.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let config = match &self.settings.endpoint {
            Some(endpoint) => config.endpoint_url(endpoint),
            None => config,
        };
        *self.client.borrow_mut() = Some((Client::from_conf(config.build()), region));
        Ok(())
    }

    fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    /// `s3://bucket/prefix/key`.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.full(key))
    }

    fn owner(&self) -> Option<String> {
        self.settings.expected_bucket_owner.clone()
    }

    /// The failure of a call that needs this right.
    fn failure(&self, verb: &str, key: &str, action: &str, refused: &Refusal) -> Failure {
        let failure = refused.failure(format!("{verb} {}", self.url(key)), Cause::StoreUnavailable);
        let on =
            if action == "s3:ListBucket" { self.bucket.clone() } else { format!("{}/{}", self.bucket, self.full(key)) };
        match failure.cause {
            Cause::AccessDenied => failure.advise(self.missing_right(action, &on, refused)),
            Cause::Configuration if is_elsewhere(refused) => {
                failure.advise("set `s3.region` to the bucket's region, and check `s3.endpoint`")
            }
            _ => failure,
        }
    }

    /// Which right to grant, on what: the one that S3 names, else the one that the call needs.
    fn missing_right(&self, action: &str, on: &str, refused: &Refusal) -> String {
        let bucket = &self.bucket;
        match refused.missing_action() {
            Some(named) if named.starts_with("kms:") => {
                let key = self.settings.kms_key_id.as_deref().unwrap_or("that encrypts the bucket");
                format!("grant {named} on the KMS key {key} to this machine's role, and check the key's policy")
            }
            Some("s3:ListBucket") => format!("grant s3:ListBucket on arn:aws:s3:::{bucket} to this machine's role"),
            _ if action == "s3:GetObject" => format!(
                "grant s3:GetObject on arn:aws:s3:::{on} and s3:ListBucket on arn:aws:s3:::{bucket} to this machine's \
                 role (without the latter S3 answers 403 for an object that is not there)"
            ),
            _ => format!("grant {action} on arn:aws:s3:::{on} to this machine's role"),
        }
    }

    async fn found(&self, key: &str, mut answer: GetObjectOutput) -> Outcome<Fetched> {
        let attempted = format!("read {}", self.url(key));
        let unclear = |why: String| Failure::new(Cause::StoreUnavailable, attempted.clone(), why);
        let etag = answer.e_tag().ok_or_else(|| unclear("the answer has no ETag".to_owned()))?.to_owned();
        let announced = answer.content_length().and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > MAX_OBJECT) {
            return Err(too_large(attempted));
        }
        let mut body = Vec::with_capacity(announced.unwrap_or_default());
        while let Some(chunk) = answer.body.next().await {
            let chunk = chunk.map_err(|error| unclear(crate::adapters::net::explain(&error).detail))?;
            if body.len() + chunk.len() > MAX_OBJECT {
                return Err(too_large(attempted));
            }
            body.extend_from_slice(&chunk);
        }
        if announced.is_some_and(|length| length != body.len()) {
            return Err(unclear("the connection ended before the object did".to_owned()));
        }
        let modified = answer.last_modified().copied().and_then(timestamp);
        Ok(Fetched::Found(Object { body, etag: ETag(etag), modified }))
    }
}

#[async_trait(?Send)]
impl Objects for S3Store {
    async fn get(&self, key: &str, known: Option<&ETag>) -> Outcome<Reading> {
        check_key(key)?;
        let known = known.map(|etag| etag.0.clone());
        let (answer, seen) = send!(self, client => client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_expected_bucket_owner(self.owner())
            .set_if_none_match(known.clone()));
        let fetched = match answer {
            Ok(answer) => match self.found(key, answer).await? {
                // Some S3-compatible servers know no conditional reads and send what the reader has once more.
                Fetched::Found(object) if known.as_ref() == Some(&object.etag.0) => Fetched::Unchanged,
                fetched => fetched,
            },
            Err(refused) => match (refused.status, refused.code.as_deref()) {
                (Some(304), _) if known.is_some() => Fetched::Unchanged,
                // Only these words say that the object is absent; a proxy's or a load balancer's 404 does not.
                (Some(404), Some("NoSuchKey")) => Fetched::Absent,
                _ => return Err(self.failure("read", key, "s3:GetObject", &refused)),
            },
        };
        Ok(Reading { fetched, served_at: seen.date })
    }

    async fn put(&self, key: &str, body: Vec<u8>, condition: Condition) -> Outcome<Written> {
        check_key(key)?;
        check_size(key, &body)?;
        let (create, replace) = match &condition {
            Condition::Absent => (Some("*".to_owned()), None),
            Condition::Matches(etag) => (None, Some(etag.0.clone())),
        };
        let kms = self.settings.kms_key_id.clone();
        let body = bytes::Bytes::from(body);
        let (answer, _) = send!(self, client => client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .content_type("application/json")
            .set_expected_bucket_owner(self.owner())
            .set_server_side_encryption(kms.is_some().then_some(ServerSideEncryption::AwsKms))
            .set_ssekms_key_id(kms.clone())
            .set_if_none_match(create.clone())
            .set_if_match(replace.clone())
            .body(body.clone().into()));
        let refused = match answer {
            Ok(answer) => {
                return Ok(match answer.e_tag {
                    Some(etag) => Written::Stored(ETag(etag)),
                    None => Written::Unknown(Failure::new(
                        Cause::StoreUnavailable,
                        format!("write {}", self.url(key)),
                        "the answer has no ETag",
                    )),
                });
            }
            Err(refused) => refused,
        };
        let missing = refused.code.as_deref() == Some("NoSuchBucket");
        match refused.status {
            Some(412) => Ok(Written::Refused),
            Some(404) if replace.is_some() && !missing => Ok(Written::Refused),
            Some(501) => Err(self.failure("write", key, "s3:PutObject", &refused)),
            _ if refused.certain => Err(self.failure("write", key, "s3:PutObject", &refused)),
            _ => Ok(Written::Unknown(self.failure("write", key, "s3:PutObject", &refused))),
        }
    }

    async fn delete(&self, key: &str, version: &ETag) -> Outcome<Deleted> {
        check_key(key)?;
        let (answer, _) = send!(self, client => client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_expected_bucket_owner(self.owner())
            .if_match(&version.0));
        let Err(refused) = answer else { return Ok(Deleted::Done) };
        match (refused.status, refused.code.as_deref()) {
            (Some(412), _) => Ok(Deleted::Refused),
            (Some(404), Some("NoSuchKey")) => Ok(Deleted::Done),
            _ if refused.certain => Err(self.failure("delete", key, "s3:DeleteObject", &refused)),
            _ => Ok(Deleted::Unknown(self.failure("delete", key, "s3:DeleteObject", &refused))),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Outcome<KeyPage> {
        check_prefix(prefix)?;
        let (answer, _) = send!(self, client => client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full(prefix))
            .set_expected_bucket_owner(self.owner())
            .set_start_after(after.map(|key| self.full(key))));
        let answer = answer.map_err(|refused| self.failure("list", prefix, "s3:ListBucket", &refused))?;
        let base = self.full("");
        let keys = answer.contents().iter().filter_map(|object| object.key()?.strip_prefix(&base).map(str::to_owned));
        Ok(KeyPage { keys: keys.collect(), more: answer.is_truncated().unwrap_or_default() })
    }

    async fn expiry_rules(&self) -> Outcome<Vec<ExpiryRule>> {
        let (answer, _) = send!(self, client => client
            .get_bucket_lifecycle_configuration()
            .bucket(&self.bucket)
            .set_expected_bucket_owner(self.owner()));
        match answer {
            Ok(answer) => Ok(answer.rules().iter().filter_map(expiry_rule).collect()),
            // A compatible server that knows no such rules applies none.
            Err(refused)
                if matches!(refused.code.as_deref(), Some("NoSuchLifecycleConfiguration" | "NotImplemented")) =>
            {
                Ok(Vec::new())
            }
            Err(refused) => {
                let attempted = format!("read the lifecycle rules of s3://{}", self.bucket);
                let failure = refused.failure(attempted, Cause::StoreUnavailable);
                Err(match failure.cause {
                    Cause::AccessDenied => failure.advise(format!(
                        "grant s3:GetLifecycleConfiguration on arn:aws:s3:::{} to this machine's role",
                        self.bucket
                    )),
                    _ => failure,
                })
            }
        }
    }
}

/// The rule, when it is on and deletes current objects.
fn expiry_rule(rule: &LifecycleRule) -> Option<ExpiryRule> {
    if rule.status().as_str() != "Enabled" {
        return None;
    }
    let expiration = rule.expiration()?;
    let days = expiration.days().and_then(|days| u32::try_from(days).ok());
    if days.is_none() && expiration.date().is_none() {
        return None;
    }
    let by_filter = rule.filter().and_then(|filter| filter.prefix().or_else(|| filter.and()?.prefix()));
    #[allow(deprecated, reason = "old rules carry their prefix outside the filter")]
    let prefix = by_filter.or_else(|| rule.prefix()).unwrap_or_default().to_owned();
    Some(ExpiryRule { id: rule.id().unwrap_or("without a name").to_owned(), prefix, days })
}
