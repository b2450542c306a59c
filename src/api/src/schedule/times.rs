//! When a schedule is due. Pure: cron text, a time zone and instants.
//!
//! # Daylight saving
//! croner's rules (its README, section on daylight saving), which are Vixie cron's; the table is tested:
//!
//! | the clock | a fixed time (`30 2 * * *`) | an interval (`*/30 * * * *`, `0 * * * *`) |
//! | --- | --- | --- |
//! | goes forward over it | fires once, right behind the gap | what falls into the gap is skipped |
//! | goes back over it | fires once, at its first occurrence | fires at both occurrences |

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// Due instants that are counted one by one; further ones are not told apart.
const MOST_COUNTED: u64 = 10_000;

/// When a schedule is due.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// Why a text is no timetable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// Not cron.
    #[error("`{text}` is not a valid cron expression: {why}")]
    Cron {
        /// The text, short.
        text: String,
        /// The rule.
        why: String,
    },
    /// It never fires.
    #[error("`{0}` never fires")]
    Never(String),
    /// No such zone.
    #[error("`{0}` is not a known time zone; zones are called like `Europe/Berlin`")]
    Zone(String),
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The latest instant, if it may still start.
    pub fire: Option<Timestamp>,
    /// The latest instant, late or not.
    pub latest: Timestamp,
    /// Instants that don't start.
    pub missed: u64,
}

impl Timetable {
    /// Reads cron text of five fields and the name of a zone; UTC without one.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, TimetableError> {
        let short = |text: &str| diagbot_wire::text::quotable(text, 90);
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(text).map_err(|error| TimetableError::Cron {
            text: short(text),
            why: short(&error.to_string()),
        })?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| TimetableError::Zone(short(name)))?,
        };
        let table = Self { cron, zone };
        // Whatever fires at all fires within 29 February's eight years around a century.
        if table.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(TimetableError::Never(short(text)));
        }
        Ok(table)
    }

    /// The first instant behind `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(next.timestamp())
    }

    /// The next `count` instants behind `after`.
    pub fn upcoming(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next(after), |last| self.next(*last))
            .take(count)
            .collect()
    }

    /// What became due behind `after`, up to and with `now`: only the latest may start, and only within the deadline.
    pub fn due(&self, after: Timestamp, now: Timestamp, deadline: Option<SignedDuration>) -> Option<Due> {
        let mut count = 0;
        let mut latest = None;
        let mut from = after;
        while let Some(next) = self.next(from).filter(|next| *next <= now) {
            count += 1;
            latest = Some(next);
            from = next;
            if count >= MOST_COUNTED {
                latest = self.latest(now).or(latest);
                break;
            }
        }
        let latest = latest?;
        let late = now.duration_since(latest);
        let fire = Some(latest).filter(|_| deadline.is_none_or(|deadline| late <= deadline));
        Some(Due {
            fire,
            latest,
            missed: count - u64::from(fire.is_some()),
        })
    }

    /// The zone's name.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        let latest = self.cron.find_previous_occurrence(&now, true).ok()?;
        Some(latest.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn local(table: &Timetable, instants: &[Timestamp]) -> Vec<String> {
        let show = |at: &Timestamp| at.to_zoned(table.zone.clone()).strftime("%m-%d %H:%M %z").to_string();
        instants.iter().map(show).collect()
    }

    #[test]
    fn daylight_saving_follows_the_documented_table() {
        // 2026-03-29 02:00 CET is 03:00 CEST; 2026-10-25 03:00 CEST is 02:00 CET again.
        let cases: [(&str, &str, &str, &[&str]); 8] = [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                &["03-29 03:00 +0200", "03-30 02:30 +0200"],
            ),
            (
                "0 * * * *",
                "Europe/Berlin",
                "2026-03-29T00:30:00Z",
                &["03-29 03:00 +0200", "03-29 04:00 +0200"],
            ),
            (
                "*/30 * * * *",
                "Europe/Berlin",
                "2026-03-29T00:10:00Z",
                &["03-29 01:30 +0100", "03-29 03:00 +0200"],
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-24T12:00:00Z",
                &["10-25 02:30 +0200", "10-26 02:30 +0100"],
            ),
            (
                "30 * * * *",
                "Europe/Berlin",
                "2026-10-25T00:00:00Z",
                &["10-25 02:30 +0200", "10-25 02:30 +0100"],
            ),
            (
                "30 2 * * *",
                "America/New_York",
                "2026-03-07T12:00:00Z",
                &["03-08 03:00 -0400", "03-09 02:30 -0400"],
            ),
            (
                "30 1 * * *",
                "America/New_York",
                "2026-10-31T12:00:00Z",
                &["11-01 01:30 -0400", "11-02 01:30 -0500"],
            ),
            (
                "30 2 * * *",
                "UTC",
                "2026-03-28T12:00:00Z",
                &["03-29 02:30 +0000", "03-30 02:30 +0000"],
            ),
        ];
        for (cron, zone, after, wanted) in cases {
            let table = Timetable::parse(cron, Some(zone)).expect(cron);
            assert_eq!(local(&table, &table.upcoming(at(after), 2)), wanted, "{cron} in {zone}");
        }
    }

    #[test]
    fn texts_that_are_no_timetable_are_told_apart() {
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            assert_eq!(
                Timetable::parse(never, None).err(),
                Some(TimetableError::Never(never.into()))
            );
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "every day",
            "@reboot",
            "TZ=UTC 0 0 * * *",
        ] {
            let error = Timetable::parse(bad, None).err();
            assert!(matches!(error, Some(TimetableError::Cron { .. })), "{bad}: {error:?}");
        }
        let zone = Timetable::parse("0 0 * * *", Some("Mars/Olympus")).err();
        assert_eq!(zone, Some(TimetableError::Zone("Mars/Olympus".into())));
        assert!(Timetable::parse("0 0 29 2 *", None).is_ok(), "a leap day comes");
        assert!(Timetable::parse("@daily", None).is_ok());
    }

    #[test]
    fn only_the_latest_missed_time_starts_and_only_within_the_deadline() {
        let table = Timetable::parse("0 * * * *", None).unwrap();
        let minutes = |minutes| Some(SignedDuration::from_mins(minutes));
        let (after, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T05:10:00Z"));
        let due = |deadline| table.due(after, now, deadline).unwrap();
        let latest = at("2026-01-01T05:00:00Z");
        assert_eq!(
            due(None),
            Due {
                fire: Some(latest),
                latest,
                missed: 4
            }
        );
        assert_eq!(
            due(minutes(10)),
            Due {
                fire: Some(latest),
                latest,
                missed: 4
            }
        );
        assert_eq!(
            due(minutes(9)),
            Due {
                fire: None,
                latest,
                missed: 5
            }
        );
        assert_eq!(table.due(latest, now, None), None);
    }
}
