//! Texts of others that are shown to people: on terminals, in logs, in reports.

/// Whether a character shows what it is: no control character, and none that makes a line read otherwise than it is
/// (Unicode's direction overrides, characters without width).
pub fn is_plain(c: char) -> bool {
    let misleads =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !misleads
}

/// One line of plain characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { ' ' }).collect()
}

/// Like [`plain`], but lines stay lines: for failures, which carry the last lines of a tool.
pub fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_it_is() {
        assert_eq!(plain("a\x1b[31mb\nc"), "a [31mb c");
        assert_eq!(plain("ready\u{202e}deliaf\u{200b}"), "ready deliaf ");
        assert_eq!(plain("h\u{e4}user, \u{5bb6}"), "h\u{e4}user, \u{5bb6}");
        assert_eq!(plain_lines("a\x07\n  b\r\n"), "a \n  b \n");
    }
}
