//! The fingerprint of what a request means, which binds a click to what was seen.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::Approval;

/// The SHA-256 of a request's meaning: id, operation, arguments, command and its directory, risk,
/// resource, rollback and who asked. Displays as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// The fields that are taken as they are; `riskLevel` is taken by its meaning.
const MEANT: [&str; 7] = [
    "operation",
    "args",
    "command",
    "directory",
    "resource",
    "rollbackCommand",
    "requestedBy",
];

impl Digest {
    /// 64 hex digits in lower case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        (text.len() == 64).then_some(())?;
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl Approval {
    /// What this request means. The order of keys and absent fields do not matter; how a number is
    /// written does.
    pub fn digest(&self) -> Digest {
        let mut meaning = Map::new();
        meaning.insert("id".into(), self.id().as_str().into());
        meaning.insert("riskLevel".into(), self.risk().word().into());
        for key in MEANT {
            if let Some(value) = self.value(key).filter(|value| !value.is_null()) {
                meaning.insert(key.into(), sorted(value));
            }
        }
        let text = sorted(&Value::Object(meaning)).to_string();
        Digest(<Sha256 as sha2::Digest>::digest(text).into())
    }
}

/// The same value with the keys of its objects in order.
pub(super) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries
                .into_iter()
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a SHA-256 in hex"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ApprovalId;
    use super::*;

    fn digest(document: &Value) -> Digest {
        let id = ApprovalId::parse(document["id"].as_str().unwrap()).unwrap();
        Approval::parse(&id, document.to_string().as_bytes())
            .unwrap()
            .digest()
    }

    fn request() -> Value {
        json!({ "id": "apr-1", "operation": "scale", "args": { "a": 1, "b": { "c": 2, "d": [3] } },
            "riskLevel": "high", "status": "pending" })
    }

    #[test]
    fn what_is_meant_counts_and_what_happens_to_it_does_not() {
        let same = [
            ("/status", json!("approved")),
            ("/expiresAt", json!("2024-01-15T15:30:45Z")),
            ("/description", json!("Scale it")),
            ("/slackMessageTs", json!("1.2")),
            ("/args", json!({ "b": { "d": [3], "c": 2 }, "a": 1 })),
            ("/riskLevel", json!("HIGH")),
            ("/resource", Value::Null),
        ];
        let other = [
            ("/id", json!("apr-2")),
            ("/operation", json!("scale ")),
            ("/args", json!({ "a": 1, "b": { "c": 2, "d": [4] } })),
            ("/args", json!({ "a": "1", "b": { "c": 2, "d": [3] } })),
            ("/args", Value::Null),
            ("/command", json!(["rm", "-rf", "/"])),
            ("/directory", json!("/")),
            ("/riskLevel", json!("low")),
            ("/resource", json!("db")),
            ("/rollbackCommand", json!("true")),
            ("/requestedBy", json!("eve")),
        ];
        let with = |pointer: &str, value: &Value| {
            let mut changed = request();
            changed[pointer.trim_start_matches('/')] = value.clone();
            digest(&changed)
        };
        for (pointer, value) in &same {
            assert_eq!(with(pointer, value), digest(&request()), "{pointer}");
        }
        for (pointer, value) in &other {
            assert_ne!(with(pointer, value), digest(&request()), "{pointer}");
        }
    }

    #[test]
    fn it_reads_what_it_writes_and_nothing_else() {
        let digest = digest(&request());
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        for bad in ["", "00", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
