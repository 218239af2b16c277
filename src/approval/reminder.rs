//! When people are reminded of a request that nobody has decided.

use std::time::Duration;

use super::{Approval, Status};
use crate::clock::Timestamp;

/// The life of a pending request that people see and have not been reminded of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLife {
    /// Since when they see it.
    pub since: Timestamp,
    /// When it expires.
    pub until: Timestamp,
}

impl OpenLife {
    /// Whether a reminder is due that comes so long before the end. A life that is no longer than
    /// that has none: it would come with the request. What is asked for is rounded up to a second.
    pub fn calls_for_reminder(&self, before: Duration, now: Timestamp) -> bool {
        let due = self.until - before;
        self.since + Duration::from_secs(1) <= due && due <= now && now < self.until
    }
}

impl Approval {
    /// Its life, as long as a reminder may become due.
    pub fn open_life(&self) -> Option<OpenLife> {
        if self.status() != Status::Pending || self.text("remindedAt").is_some() {
            return None;
        }
        let (_, ts) = self.message()?;
        let seconds = ts.split('.').next().and_then(|text| text.parse().ok());
        // What stands behind the point is left out, so it was posted within the second after that.
        let posted = seconds.map(|seconds| Timestamp::from_unix(seconds) + Duration::from_secs(1));
        Some(OpenLife {
            since: posted.max(self.requested_at())?,
            until: self.expires_at()?,
        })
    }

    /// Notes that people are reminded, which is not to happen again.
    pub fn note_reminder(&mut self, at: Timestamp) {
        self.put("remindedAt", at.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::approval::ApprovalId;

    #[test]
    fn a_reminder_is_due_in_the_last_stretch_of_a_life_that_is_longer() {
        let life = OpenLife {
            since: Timestamp::from_unix(1000),
            until: Timestamp::from_unix(1300),
        };
        for (before, now, due) in [
            (60, 1000, false),
            (60, 1239, false),
            (60, 1240, true),
            (60, 1299, true),
            (60, 1300, false),
            (299, 1001, true),
            (300, 1000, false),
            (300, 1299, false),
            (2000, 1200, false),
            (0, 1300, false),
        ] {
            let (before, now) = (Duration::from_secs(before), Timestamp::from_unix(now));
            assert_eq!(
                life.calls_for_reminder(before, now),
                due,
                "{before:?} {now}"
            );
        }
    }

    #[test]
    fn a_life_begins_when_people_see_the_request() {
        let id = ApprovalId::parse("a").unwrap();
        let base = json!({ "id": "a", "operation": "x", "status": "pending",
            "slackChannel": "C1", "slackMessageTs": "1705332600.000100",
            "expiresAt": "2024-01-15T15:35:00Z" });
        let since = |key: &str, value: &str| {
            let mut document = base.clone();
            document[key] = value.into();
            let approval = Approval::parse(&id, document.to_string().as_bytes()).unwrap();
            approval.open_life().map(|life| life.since.to_string())
        };
        for (key, value, expected) in [
            (
                "requestedAt",
                "2024-01-15T15:00:00Z",
                Some("2024-01-15T15:30:01Z"),
            ),
            (
                "requestedAt",
                "2024-01-15T15:34:00Z",
                Some("2024-01-15T15:34:00Z"),
            ),
            ("slackMessageTs", "soon", None),
            ("slackMessageTs", "", None),
            ("remindedAt", "2024-01-15T15:34:00Z", None),
        ] {
            assert_eq!(since(key, value).as_deref(), expected, "{key} {value}");
        }
    }
}
