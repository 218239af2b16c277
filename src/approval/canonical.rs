//! JSON in the one spelling that is hashed and signed: keys in order, no space between.

use serde::{Serialize, Serializer};
use serde_json::Value;

/// A value with the keys of its objects in the order of their bytes.
pub(super) struct Sorted<'a>(pub(super) &'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                serializer.collect_map(entries.into_iter().map(|(key, value)| (key, Self(value))))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            other => other.serialize(serializer),
        }
    }
}

/// What stands behind `prefix` is hashed or signed.
#[allow(clippy::expect_used, reason = "its keys are text")]
pub(super) fn canonical(prefix: &str, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    serde_json::to_writer(&mut bytes, value).expect("a map of JSON");
    bytes
}
