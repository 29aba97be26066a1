//! Reading an object of any length in parts, for what is no part of the store protocol: the SDKs' client takes no
//! answer of more than 4 MiB.

use super::{S3Store, Witness, is_elsewhere};
use crate::adapters::aws::refusal;
use crate::adapters::net;
use crate::adapters::objects::check_key;
use bytes::Bytes;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::ports::ETag;

/// The length of a part, in bytes.
const LENGTH: u64 = 2 * 1024 * 1024;

/// A piece of an object.
#[derive(Debug)]
pub struct Part {
    /// Its bytes.
    pub bytes: Bytes,
    /// The length of the whole object.
    pub total: u64,
    /// The version that it is a part of.
    pub etag: ETag,
}

impl S3Store {
    /// The part of an object from byte `start` on; `None` when there is no such object. With `version` the object must
    /// still be that one.
    pub async fn part(&self, key: &str, start: u64, version: Option<&ETag>) -> Outcome<Option<Part>> {
        check_key(key)?;
        let range = format!("bytes={start}-{}", start + LENGTH - 1);
        let version = version.map(|etag| etag.0.clone());
        let (answer, _) = send!(self, client => client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .range(&range)
            .set_if_match(version.clone())
            .set_expected_bucket_owner(self.owner()));
        let unclear = |why: String| Failure::new(Cause::StoreUnavailable, format!("read {}", self.url(key)), why);
        let answer = match answer {
            Ok(answer) => answer,
            Err(refused) => match (refused.status, refused.code.as_deref()) {
                (Some(404), Some("NoSuchKey")) => return Ok(None),
                (Some(412), _) => return Err(unclear("it was replaced while it was read".to_owned())),
                _ => return Err(self.failure("read", key, "s3:GetObject", &refused)),
            },
        };
        let etag = answer.e_tag().ok_or_else(|| unclear("the answer has no ETag".to_owned()))?.to_owned();
        let total = answer.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let whole = answer.content_length().and_then(|length| u64::try_from(length).ok());
        // A server that knows no ranges sends all of it.
        let total =
            total.or(whole.filter(|_| start == 0)).ok_or_else(|| unclear("the answer has no length".to_owned()))?;
        let bytes = answer.body.collect().await.map_err(|error| unclear(net::explain(&error).detail))?.into_bytes();
        if bytes.len() as u64 != LENGTH.min(total.saturating_sub(start)) && bytes.len() as u64 != total {
            return Err(unclear("the connection ended before the object did".to_owned()));
        }
        Ok(Some(Part { bytes, total, etag: ETag(etag) }))
    }
}
