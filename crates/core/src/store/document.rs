//! What every object of the protocol must be before a field of it is believed: small, JSON, of a known schema.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::register::SCHEMA;
use crate::model::secret::redact;
use crate::ports::MAX_OBJECT;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An object that is not what it must be.
pub(super) fn rejected(key: &str, why: impl Into<String>) -> Failure {
    Failure::new(Cause::ObjectRejected, format!("read {key}"), why)
}

/// The fields of an object of at most 64 KiB with a schema this program reads. No error repeats content.
pub(super) fn fields(key: &str, body: &[u8]) -> Outcome<Map<String, Value>> {
    if body.len() > MAX_OBJECT {
        return Err(rejected(key, format!("it has more than {MAX_OBJECT} bytes")));
    }
    if body.is_empty() {
        return Err(rejected(key, "it is empty"));
    }
    // Into `Value` only syntax can be wrong, and serde_json's texts for that name a place, never the content.
    let value = serde_json::from_slice(body).map_err(|error| rejected(key, format!("it is not JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(rejected(key, "it is not a JSON object"));
    };
    match fields.get("schema").and_then(Value::as_u64) {
        Some(schema) if (1..=u64::from(SCHEMA)).contains(&schema) => Ok(fields),
        Some(schema) if schema > u64::from(SCHEMA) => {
            let why = format!("its schema is {schema}, and this kubestrap reads up to {SCHEMA}");
            Err(rejected(key, why).advise("install the kubestrap release that the rest of the cluster runs"))
        }
        _ => Err(rejected(key, "it has no schema number")),
    }
}

/// A whole document without secrets, for errors repeat what was wrong in it (capped, redacted).
pub(super) fn decode<T: DeserializeOwned>(key: &str, body: &[u8]) -> Outcome<T> {
    const SHOWN: usize = 200;
    serde_json::from_value(Value::Object(fields(key, body)?)).map_err(|error| {
        // Without control characters first: one in the middle of a token would hide it.
        let text: String = error.to_string().chars().filter(|c| !c.is_control()).collect();
        let text: String = redact(&text).chars().take(SHOWN).collect();
        rejected(key, format!("it is not of the expected form: {text}"))
    })
}

/// The bytes to write.
pub(super) fn encode<T: Serialize>(key: &str, document: &T) -> Outcome<Vec<u8>> {
    let failed = |why: String| Failure::new(Cause::Internal, format!("write {key}"), why);
    let body = serde_json::to_vec(document).map_err(|error| failed(error.to_string()))?;
    if body.len() > MAX_OBJECT {
        return Err(failed(format!("it would have {} bytes, and at most {MAX_OBJECT} are allowed", body.len())));
    }
    Ok(body)
}

/// Whether a text from the store can be shown to people: one line, not absurdly long.
pub(super) fn is_line(text: &str) -> bool {
    text.len() <= 512 && !text.chars().any(char::is_control)
}
