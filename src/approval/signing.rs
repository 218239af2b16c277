//! Signed decisions: an Ed25519 signature over what a decision means, so that whoever may write the
//! file still cannot approve. Votes that wait for others are signed as well, for they become part of a
//! decision.

use std::fmt;

use base16ct::{lower, mixed};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::canonical::{Sorted, canonical};
use super::{Approval, Status, Vote};

/// The key that decisions are signed with.
pub struct SignKey {
    pair: Ed25519KeyPair,
    public: VerifyKey,
}

/// The key that tells whether a decision was signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyKey([u8; 32]);

/// Bytes of a seed, which is the secret.
pub const SEED: usize = 32;
/// PKCS#8 (RFC 8410) of an Ed25519 seed: what stands before it.
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// A public key as X.509 has it (RFC 8410): what stands before it.
const SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// What signed bytes begin with, so that none can stand for the other.
const DECISION: &str = "runbook-decision-v1\n";
const VOTE: &str = "runbook-vote-v1\n";
const BALLOT: &str = "runbook-ballot-v1\n";

/// What a signature covers beside the request's digest.
const SIGNED: [&str; 10] = [
    "id",
    "description",
    "estimatedImpact",
    "investigationId",
    "requestedAt",
    "expiresAt",
    "decidedAt",
    "decidedBy",
    "decisions",
    "reason",
];

impl SignKey {
    /// From PKCS#8 (DER), as `openssl genpkey -algorithm ed25519` makes it; `None` for anything else.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let public = VerifyKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// PKCS#8 (DER) of a seed.
    pub fn pkcs8(seed: [u8; SEED]) -> Vec<u8> {
        [&PKCS8[..], &seed].concat()
    }

    pub fn verify_key(&self) -> VerifyKey {
        self.public
    }

    fn sign(&self, context: &str, value: &Value) -> String {
        lower::encode_string(self.pair.sign(&message(context, value)).as_ref())
    }

    /// Signs a click that is to be decided later.
    pub fn sign_ballot(&self, ballot: &Value) -> String {
        self.sign(BALLOT, ballot)
    }
}

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignKey(..)")
    }
}

impl VerifyKey {
    /// From a `SubjectPublicKeyInfo` (DER); `None` for anything else.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI)?.try_into().ok().map(Self)
    }

    /// As a `SubjectPublicKeyInfo` (DER).
    pub fn to_spki(self) -> Vec<u8> {
        [&SPKI[..], &self.0].concat()
    }

    /// Its name in documents: 16 hex digits of its SHA-256.
    pub fn name(self) -> String {
        lower::encode_string(&Sha256::digest(self.0)[..8])
    }

    fn holds(self, context: &str, value: &Value, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        let signature = mixed::decode_vec(signature);
        signature.is_ok_and(|signature| key.verify(&message(context, value), &signature).is_ok())
    }

    /// Whether a click that waited is as it was when it was signed.
    pub fn holds_for_ballot(self, ballot: &Value, signature: &str) -> bool {
        self.holds(BALLOT, ballot, signature)
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({})", self.name())
    }
}

/// How far an approval had come before it was changed.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    status: Status,
    votes: usize,
}

impl Progress {
    /// Before there was anything.
    pub const NONE: Self = Self {
        status: Status::Pending,
        votes: 0,
    };
}

impl Approval {
    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress {
            status: self.status(),
            votes: self.votes().len(),
        }
    }

    /// Signs what has come about since then: votes, and the decision.
    pub fn sign(&mut self, key: &SignKey, before: Progress) {
        for index in before.votes..self.votes().len() {
            let signature = key.sign(VOTE, &self.vote_meaning(&self.votes()[index]));
            self.sign_vote(index, signature);
        }
        if before.status == Status::Pending && self.status() != Status::Pending {
            let value = key.sign(DECISION, &self.decision_meaning());
            let key = key.public.name();
            self.put(
                "signature",
                json!({ "algorithm": "Ed25519", "key": key, "value": value }),
            );
        }
    }

    /// Whether what it says was decided by whoever has the other half of this key.
    pub fn is_signed_by(&self, key: VerifyKey) -> bool {
        let signature = self.value("signature");
        let signature = signature.and_then(|signature| signature.get("value")?.as_str());
        signature.is_some_and(|signature| key.holds(DECISION, &self.decision_meaning(), signature))
    }

    /// Lets only those votes count that were signed, and say what they saw.
    pub fn distrust_unsigned_votes(&mut self, key: VerifyKey) {
        let is_signed = |vote: &Vote| {
            let signature = vote.signature.as_deref();
            let holds = |signature: &str| key.holds(VOTE, &self.vote_meaning(vote), signature);
            vote.seen.is_some() && signature.is_some_and(holds)
        };
        let trusted: Vec<bool> = self.votes().iter().map(is_signed).collect();
        self.trust_votes(&trusted);
    }

    fn vote_meaning(&self, vote: &Vote) -> Value {
        let mut vote = json!(vote);
        if let Some(vote) = vote.as_object_mut() {
            vote.remove("signature");
        }
        json!({ "id": self.id(), "vote": vote })
    }

    fn decision_meaning(&self) -> Value {
        let mut meaning = Map::new();
        meaning.insert("digest".into(), json!(self.digest()));
        meaning.insert("status".into(), json!(self.status()));
        for key in SIGNED {
            if let Some(value) = self.value(key).filter(|value| !value.is_null()) {
                meaning.insert(key.into(), value.clone());
            }
        }
        Value::Object(meaning)
    }
}

fn message(context: &str, value: &Value) -> Vec<u8> {
    canonical(context, &Sorted(value))
}

#[cfg(test)]
mod tests {
    use super::super::ApprovalId;
    use super::*;

    fn key(seed: u8) -> SignKey {
        SignKey::from_pkcs8(&SignKey::pkcs8([seed; SEED])).unwrap()
    }

    fn approval(document: &Value) -> Approval {
        let id = ApprovalId::parse(document["id"].as_str().unwrap()).unwrap();
        Approval::parse(&id, document.to_string().as_bytes()).unwrap()
    }

    fn decided() -> Value {
        let by = json!({ "id": "UA", "username": "alice", "name": "Alice" });
        json!({ "id": "apr-1", "operation": "scale", "riskLevel": "high", "status": "approved",
            "decidedAt": "2024-01-15T15:30:45Z", "decidedBy": by, "decisions": [{ "decision": "approve",
            "by": by, "at": "2024-01-15T15:30:45Z", "seen": "0".repeat(64) }] })
    }

    #[test]
    fn a_signature_covers_what_was_asked_and_what_was_decided() {
        let mut signed = approval(&decided());
        signed.sign(&key(1), Progress::NONE);
        let public = key(1).verify_key();
        assert!(signed.is_signed_by(public));
        assert!(!signed.is_signed_by(key(2).verify_key()));
        assert!(!approval(&decided()).is_signed_by(public));
        let document = Value::Object(signed.fields().clone());
        let with = |key: &str, value: Value| {
            let mut changed = document.clone();
            changed[key] = value;
            approval(&changed).is_signed_by(public)
        };
        assert!(with("agentNotifiedAt", json!("2024-01-15T15:30:46Z")));
        for (key, value) in [
            ("operation", json!("drop")),
            ("args", json!({ "a": 1 })),
            ("command", json!(["rm"])),
            ("riskLevel", json!("low")),
            ("status", json!("denied")),
            ("decidedAt", json!("2024-01-15T15:30:46Z")),
            (
                "decidedBy",
                json!({ "id": "UB", "username": "bob", "name": "Bob" }),
            ),
            ("reason", json!("because")),
            ("requestedAt", json!("2024-01-15T15:30:46Z")),
            ("decisions", json!([])),
        ] {
            assert!(!with(key, value), "{key}");
        }
    }

    #[test]
    fn only_signed_votes_count() {
        let mut pending = decided();
        pending["status"] = json!("pending");
        let mut voted = approval(&pending);
        let meaning = voted.digest();
        pending["decisions"][0]["seen"] = json!(meaning);
        voted = approval(&pending);
        voted.sign(&key(1), Progress::NONE);
        let public = key(1).verify_key();
        let supporters = |document: &Approval| {
            let mut read = approval(&Value::Object(document.fields().clone()));
            read.distrust_unsigned_votes(public);
            read.approvers().count()
        };
        assert_eq!(supporters(&voted), 1);
        assert_eq!(supporters(&approval(&pending)), 0);
        let mut other = Value::Object(voted.fields().clone());
        other["decisions"][0]["by"]["id"] = json!("UB");
        assert_eq!(supporters(&approval(&other)), 0);
    }

    #[test]
    fn keys_are_written_as_openssl_reads_them() {
        let public = key(7).verify_key();
        assert_eq!(VerifyKey::from_spki(&public.to_spki()), Some(public));
        assert_eq!(VerifyKey::from_spki(&public.to_spki()[1..]), None);
    }
}
