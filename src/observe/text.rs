//! How durations, times and tables look to a person. Pure functions.

use jiff::Timestamp;
use std::time::Duration;

/// A duration as a person says it: `230 ms`, `4.2 s`, `3 m 05 s`, `2 h 10 m`, `4 d 3 h`.
pub fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0 => format!("{} ms", value.as_millis()),
        1..=59 => format!("{:.1} s", value.as_secs_f64().min(59.9)),
        60..=3599 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A running time for a line that is redrawn each second: `0:07`, `12:30`, `1:02:03`.
pub fn clock(value: Duration) -> String {
    let seconds = value.as_secs();
    if seconds < 3600 {
        format!("{}:{:02}", seconds / 60, seconds % 60)
    } else {
        format!("{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60)
    }
}

/// How long ago `then` was, seen from `now`; clocks of other machines may be ahead.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match seconds {
        0..=1 => "now".to_owned(),
        2.. => format!("{} ago", whole(seconds.unsigned_abs())),
        _ => format!("in {}", whole(seconds.unsigned_abs())),
    }
}

/// How far `then` is ahead of `now`: `in 3 h`, or `expired 2 m ago`.
pub fn expiry(now: Timestamp, then: Timestamp) -> String {
    let seconds = then.as_second() - now.as_second();
    if seconds >= 0 { format!("in {}", whole(seconds.unsigned_abs())) } else { format!("EXPIRED {}", ago(now, then)) }
}

/// Seconds in the largest unit that is at least one.
fn whole(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} m", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Rows in aligned columns, two spaces apart; the last column is not padded. The first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = if column + 1 == row.len() { 0 } else { widths[column] + 2 - cell.chars().count() };
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', pad));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `text` folded to lines of at most `width` characters at spaces, every line but the first indented by `indent`.
pub fn fold(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1500, "1.5 s"),
            (59_990, "59.9 s"),
            (65_000, "1 m 05 s"),
            (7_800_000, "2 h 10 m"),
            (356_400_000, "4 d 3 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(clock(Duration::from_secs(7)), "0:07");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn times_are_told_from_now() {
        let now = Timestamp::from_second(1_000_000).expect("time");
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("time");
        assert_eq!(ago(now, at(-30)), "30 s ago");
        assert_eq!(ago(now, at(-3600 * 5)), "5 h ago");
        assert_eq!(ago(now, at(300)), "in 5 m");
        assert_eq!(expiry(now, at(1800)), "in 30 m");
        assert_eq!(expiry(now, at(-1800)), "EXPIRED 30 m ago");
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_spaces() {
        let rows = [["NODE", "PHASE"], ["a", "ready"], ["long-name", ""]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        assert_eq!(table(&rows), "NODE       PHASE\na          ready\nlong-name\n");
    }

    #[test]
    fn text_is_folded_at_spaces() {
        assert_eq!(fold("one two three four", 10, 2), "one two\n  three\n  four");
    }
}
