//! What every object of the protocol must be before a field of it is believed: small, JSON, of a known schema.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::plain::is_plain;
use crate::model::register::SCHEMA;
use crate::model::secret::redact;
use crate::ports::MAX_OBJECT;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::{Map, Value};
use std::fmt;

/// An object that is not what it must be.
pub(super) fn rejected(key: &str, why: impl Into<String>) -> Failure {
    Failure::new(Cause::ObjectRejected, format!("read {key}"), why)
}

/// The fields of an object of at most 64 KiB with a schema this program reads. No error repeats content.
pub(crate) fn fields(key: &str, body: &[u8]) -> Outcome<Map<String, Value>> {
    fields_within(key, body, MAX_OBJECT)
}

/// The same for what may be larger, because it is no object of the store.
pub(crate) fn fields_within(key: &str, body: &[u8], limit: usize) -> Outcome<Map<String, Value>> {
    if body.len() > limit {
        return Err(rejected(key, format!("it has more than {limit} bytes")));
    }
    if body.is_empty() {
        return Err(rejected(key, "it is empty"));
    }
    // Only syntax can be wrong here, and serde_json's texts for that name a place, never the content.
    let value = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => rejected(key, format!("it can be read in two ways: {error}")),
        _ => rejected(key, format!("it is not JSON: {error}")),
    })?;
    let Unambiguous(Value::Object(fields)) = value else {
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

/// A JSON value in which no object names a field twice. Of two, serde_json takes the last and others the first: what was
/// looked at by one program would not be what another one uses.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Unambiguous)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Unambiguous(value))) = entries.next_entry::<String, Unambiguous>()? {
            if map.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a field is there twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// A whole document without secrets, for errors repeat what was wrong in it (capped, redacted).
pub(super) fn decode<T: DeserializeOwned>(key: &str, body: &[u8]) -> Outcome<T> {
    const SHOWN: usize = 200;
    serde_json::from_value(Value::Object(fields(key, body)?)).map_err(|error| {
        // Without control characters first: one in the middle of a token would hide it.
        let text: String = error.to_string().chars().filter(|c| is_plain(*c)).collect();
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
    text.len() <= 512 && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_and_the_rest_is_what_serde_json_reads() {
        let good = r#"{"schema":1,"a":[null,true,-1,18446744073709551615,1.5,"x",{"schema":2}],"b":{"a":{}}}"#;
        let expected: Value = serde_json::from_str(good).expect("JSON");
        assert_eq!(fields("k", good.as_bytes()).map(Value::Object), Ok(expected));
        for bad in [r#"{"schema":1,"schema":1}"#, r#"{"schema":1,"a":[{"b":{"secret":1,"secret":2}}]}"#] {
            let failure = fields("k", bad.as_bytes()).expect_err(bad);
            assert_eq!(failure.cause, Cause::ObjectRejected);
            assert!(failure.detail.contains("twice") && !failure.detail.contains("secret"), "{failure}");
        }
        // An escape is another spelling of the same name.
        assert!(fields("k", br#"{"schema":1,"\u0061":1,"a":2}"#).is_err());
    }
}
