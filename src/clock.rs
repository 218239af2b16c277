//! The only caller of the system clock, and the one type for a point in time.
//!
//! Approvals carry RFC 3339 in UTC with whole seconds, as in `2024-01-15T15:30:45Z`, and what is measured from carries
//! milliseconds: see [`precisely`]. What others
//! write may carry fractions and a numeric offset; both are understood.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// The time now. A clock before 1970 reads as 1970.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The monotonic clock, for deadlines inside this process.
pub fn tick() -> Instant {
    Instant::now()
}

/// How long ago that was.
pub fn since(tick: Instant) -> Duration {
    self::tick().saturating_duration_since(tick)
}

/// How old something is, whatever becomes of the system's clock from now on.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    then: Duration,
    since: Instant,
}

impl Age {
    /// Of what has just come to be.
    pub fn zero() -> Self {
        Self {
            then: Duration::ZERO,
            since: tick(),
        }
    }

    /// Of what was made at that time. What is yet to come was made under another clock, so nobody knows how old it
    /// is: it counts as that far away.
    pub fn since(time: Timestamp) -> Self {
        let now = now();
        Self {
            then: now.since(time).max(time.since(now)),
            since: tick(),
        }
    }

    /// As of now.
    pub fn now(self) -> Duration {
        self.then + tick().duration_since(self.since)
    }
}

impl Timestamp {
    /// 9999-12-31T23:59:59Z, the last second that RFC 3339 can say.
    const LAST: Self = Self(253_402_300_799_000);

    /// Reads RFC 3339: `2024-01-15T15:30:45Z`, `…45.123Z`, `…45+02:00`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let utc = |text: &str| humantime::parse_rfc3339(text).ok().map(Self::from);
        if text.ends_with('Z') {
            return utc(text);
        }
        let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
        let (hours, minutes) = offset.get(1..)?.split_once(':')?;
        if hours.len() != 2
            || !(hours.to_owned() + minutes)
                .bytes()
                .all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let shift = Duration::from_secs(hours * 3600 + minutes * 60);
        let local = utc(&format!("{local}Z"))?;
        match offset.as_bytes().first()? {
            b'+' => local.0.checked_sub(millis(shift)).map(Self),
            b'-' => Some(local + shift),
            _ => None,
        }
    }

    /// From seconds since 1970, as Slack writes them.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000)).min(Self::LAST)
    }

    /// Whole seconds since 1970.
    pub fn unix(self) -> u64 {
        self.0 / 1000
    }

    /// The next whole second, or this one: what a file says then is never earlier than what is meant.
    #[must_use]
    pub fn rounded_up(self) -> Self {
        Self(self.0.div_ceil(1000) * 1000)
    }

    /// How long ago `earlier` was; zero when it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `2024-01-15 15:30:45 UTC`, for people.
    pub fn for_people(self) -> String {
        let text = self.to_string();
        format!("{} {} UTC", &text[..10], &text[11..19])
    }

    /// `15:30:45` in UTC, for log lines.
    pub fn time_of_day(self) -> String {
        self.to_string()[11..19].to_owned()
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span))).min(Self::LAST)
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, millis)).min(Self::LAST)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds((*self).into()).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not an RFC 3339 time"))
    }
}

/// Writes a time with its milliseconds, for what is measured from it.
///
/// # Errors
/// Those of the serializer.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it like this"
)]
pub fn precisely<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    let time = UNIX_EPOCH + Duration::from_millis(time.0);
    serializer.collect_str(&humantime::format_rfc3339_millis(time))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_other_languages_write() {
        let expected = Timestamp::from_unix(1_705_332_645);
        for text in [
            "2024-01-15T15:30:45Z",
            "2024-01-15T15:30:45+00:00",
            "2024-01-15T17:30:45+02:00",
            "2024-01-15T10:00:45-05:30",
        ] {
            assert_eq!(Timestamp::parse(text), Some(expected), "{text}");
        }
        let fraction = Timestamp::parse("2024-01-15T15:30:45.123456+00:00").unwrap();
        assert_eq!(fraction.since(expected), Duration::from_millis(123));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "tomorrow",
            "2024-01-15",
            "2024-01-15T15:30:45",
            "2024-01-15T15:30:45+2:00",
            "2024-01-15T15:30:45+24:00",
            "2024-01-15T15:30:45-02:60",
            "é+00:00",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn writes_what_the_files_and_messages_show() {
        let time = Timestamp::from_unix(1_705_332_645);
        assert_eq!(time.to_string(), "2024-01-15T15:30:45Z");
        assert_eq!(time.for_people(), "2024-01-15 15:30:45 UTC");
        assert_eq!(time.time_of_day(), "15:30:45");
    }

    #[test]
    fn what_is_yet_to_come_is_as_old_as_it_is_far_away() {
        let (hour, now) = (Duration::from_secs(3600), now());
        for made in [now - hour, now + hour] {
            let age = Age::since(made).now();
            assert!(age.abs_diff(hour) < Duration::from_secs(60), "{age:?}");
        }
        assert!(Age::zero().now() < Duration::from_secs(60));
    }

    #[test]
    fn no_arithmetic_leaves_the_calendar() {
        let end = Timestamp::from_unix(u64::MAX) + Duration::from_secs(u64::MAX);
        assert_eq!(end.to_string(), "9999-12-31T23:59:59Z");
    }
}
