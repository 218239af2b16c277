//! How fast something is posted to one channel: Slack grants one a second, and short bursts.
//!
//! Source: <https://docs.slack.dev/apis/web-api/rate-limits>

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::live::hold;

/// One post a second in the long run.
const SPACING: Duration = Duration::from_secs(1);
/// How many may come at once after a while of silence.
const BURST: u32 = 5;

/// By channel, when all that was posted there is worn off.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// Whether a channel has had its fill, so that one more would have to wait.
    pub(super) fn is_spent(&self, channel: &str, now: Instant) -> bool {
        let channels = hold(&self.0);
        let worn_off = channels.get(channel);
        worn_off.is_some_and(|worn_off| *worn_off + SPACING > now + SPACING * BURST)
    }

    /// Counts what was posted by another one's leave.
    pub(super) fn charge(&self, channel: &str, now: Instant) {
        let mut channels = hold(&self.0);
        let worn_off = channels.entry(channel.to_owned()).or_insert(now);
        *worn_off = now.max(*worn_off) + SPACING;
    }

    /// Takes leave to post now, or says how long to wait before asking again.
    pub(super) fn take(&self, channel: &str, now: Instant) -> Option<Duration> {
        let mut channels = hold(&self.0);
        channels.retain(|_, worn_off| *worn_off > now);
        let worn_off = channels.entry(channel.to_owned()).or_insert(now);
        let next = *worn_off + SPACING;
        let pause = next.saturating_duration_since(now + SPACING * BURST);
        if pause.is_zero() {
            *worn_off = next;
            return None;
        }
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_one_a_second_and_channel() {
        let (pace, start) = (Pace::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(pace.take("C1", start), None);
        }
        assert_eq!(pace.take("C1", start), Some(SPACING));
        assert!(pace.is_spent("C1", start) && !pace.is_spent("C1", start + SPACING));
        assert_eq!(pace.take("C2", start), None);
        assert!(!pace.is_spent("C2", start));
        let half = start + SPACING / 2;
        assert_eq!(pace.take("C1", half), Some(SPACING / 2));
        assert_eq!(pace.take("C1", start + SPACING), None);
        assert_eq!(pace.take("C1", start + SPACING), Some(SPACING));
        for _ in 0..BURST {
            pace.charge("C3", start);
        }
        assert_eq!(pace.take("C3", start), Some(SPACING));
    }
}
