//! The fingerprint of what a request means, which binds a click to what was seen.

use std::fmt;

use base16ct::lower;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;

use super::Approval;
use super::canonical::{Sorted, canonical};

/// The SHA-256 of a request's meaning: id, operation, arguments, command and its directory, risk,
/// resource, rollback and who asked. Displays as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// The fields that count, in the order of their bytes.
pub(super) const MEANT: [&str; 9] = [
    "args",
    "command",
    "directory",
    "id",
    "operation",
    "requestedBy",
    "resource",
    RISK,
    "rollbackCommand",
];
/// Taken by its meaning, absent or not; the others are taken as they are.
const RISK: &str = "riskLevel";

impl Digest {
    /// 64 hex digits in lower case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let decoded = lower::decode(text, &mut bytes).ok()?.len();
        (decoded == bytes.len()).then_some(Self(bytes))
    }
}

impl Approval {
    /// What this request means. The order of keys and absent fields do not matter; how a number is
    /// written does.
    pub fn digest(&self) -> Digest {
        self.digest_or(|| {
            Digest(<Sha256 as sha2::Digest>::digest(canonical("", &Meaning(self))).into())
        })
    }
}

struct Meaning<'a>(&'a Approval);

impl Serialize for Meaning<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for key in MEANT {
            if key == RISK {
                map.serialize_entry(key, self.0.risk().word())?;
            } else if let Some(value) = self.0.value(key).filter(|value| !value.is_null()) {
                map.serialize_entry(key, &Sorted(value))?;
            }
        }
        map.end()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        f.write_str(lower::encode_str(&self.0, &mut digits).map_err(|_| fmt::Error)?)
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
    use serde_json::{Value, json};

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
