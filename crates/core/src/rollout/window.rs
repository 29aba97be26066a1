//! When a node may begin: windows of the week, in UTC, for a time zone with summer time has hours that come twice.

use crate::config::settings::Window;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Whether a window is open; without windows it always is.
pub fn is_open(windows: &[Window], now: Timestamp) -> bool {
    let now = now.to_zoned(TimeZone::UTC).datetime();
    windows.is_empty() || windows.iter().any(|window| is_within(window, now))
}

/// When the next window opens; `None` when none ever does.
pub fn next(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    let today = now.to_zoned(TimeZone::UTC).date();
    // A day of the week comes again after seven days.
    let days = (0..=7).filter_map(|ahead: i64| today.checked_add(ahead.days()).ok());
    let openings =
        days.flat_map(|day| windows.iter().filter(move |w| opens_on(w, day)).map(move |w| day.to_datetime(w.from)));
    let openings = openings.filter_map(|at| at.to_zoned(TimeZone::UTC).ok()).map(|at| at.timestamp());
    openings.filter(|at| *at > now).min()
}

fn opens_on(window: &Window, day: Date) -> bool {
    window.days.is_empty() || window.days.contains(&day.weekday())
}

/// A window that ends at or before its beginning ends on the next day; the day that counts is the one it opens on.
fn is_within(window: &Window, now: DateTime) -> bool {
    let (day, time) = (now.date(), now.time());
    if window.from < window.to {
        return opens_on(window, day) && window.from <= time && time < window.to;
    }
    let yesterday = day.yesterday().is_ok_and(|yesterday| opens_on(window, yesterday));
    (opens_on(window, day) && window.from <= time) || (yesterday && time < window.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Time, Weekday, time};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn window(days: &[Weekday], from: Time, to: Time) -> Window {
        Window { days: days.to_vec(), from, to }
    }

    #[test]
    fn windows_are_half_open_in_utc() {
        assert!(is_open(&[], at("2026-11-21T03:00:00Z")));
        let nights = [window(&[], time(2, 0, 0, 0), time(4, 30, 0, 0))];
        for (text, open) in [
            ("2026-11-21T01:59:59Z", false),
            ("2026-11-21T02:00:00Z", true),
            ("2026-11-21T04:29:59Z", true),
            ("2026-11-21T04:30:00Z", false),
            ("2026-11-21T04:00:00+02:00", true),
        ] {
            assert_eq!(is_open(&nights, at(text)), open, "{text}");
        }
    }

    #[test]
    fn past_midnight_the_day_is_that_of_the_opening() {
        // 21 November 2026 is a Saturday.
        let window = [window(&[Weekday::Friday], time(22, 0, 0, 0), time(3, 0, 0, 0))];
        for (text, open) in [
            ("2026-11-20T21:59:00Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T02:59:00Z", true),
            ("2026-11-21T03:00:00Z", false),
            ("2026-11-21T22:30:00Z", false),
            ("2026-11-20T02:00:00Z", false),
        ] {
            assert_eq!(is_open(&window, at(text)), open, "{text}");
        }
        assert_eq!(next(&window, at("2026-11-20T22:00:00Z")), Some(at("2026-11-27T22:00:00Z")));
        assert_eq!(next(&window, at("2026-11-20T21:00:00Z")), Some(at("2026-11-20T22:00:00Z")));
    }

    #[test]
    fn the_same_time_twice_is_a_whole_day() {
        let sunday = [window(&[Weekday::Sunday], time(6, 0, 0, 0), time(6, 0, 0, 0))];
        assert!(is_open(&sunday, at("2026-11-22T06:00:00Z")) && is_open(&sunday, at("2026-11-23T05:59:00Z")));
        assert!(!is_open(&sunday, at("2026-11-22T05:59:00Z")) && !is_open(&sunday, at("2026-11-23T06:00:00Z")));
    }

    #[test]
    fn what_opens_next_was_closed_just_before_and_is_open_then() {
        let all = [
            window(&[Weekday::Monday, Weekday::Thursday], time(23, 0, 0, 0), time(1, 0, 0, 0)),
            window(&[Weekday::Wednesday], time(4, 0, 0, 0), time(5, 0, 0, 0)),
        ];
        let begin = at("2026-11-21T00:00:00Z");
        for minutes in 0..7 * 24 * 4 {
            let now = begin + (minutes * 15).minutes();
            let opening = next(&all, now).expect("it opens");
            assert!(opening > now && is_open(&all, opening) && !is_open(&all, opening - 1.second()), "{now}");
            let mut between = now + 15.minutes();
            while between < opening && !is_open(&all, now) {
                assert!(!is_open(&all, between), "{now}: {between} before {opening}");
                between += 15.minutes();
            }
        }
        assert_eq!(next(&[], begin), None);
    }
}
