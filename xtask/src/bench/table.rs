//! The table, and the same as JSON.

use serde::Serialize;

/// Whether a target was kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Less than this, in the row's unit.
    Under(f64),
    /// This or less.
    AtMost(f64),
    /// There is none: the row is there to compare.
    None,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// kubestrap's figure.
    pub ours: f64,
    /// The shell loop's; `None` when there is nothing to compare with.
    pub shell_loop: Option<f64>,
    /// `ms`, `MiB`, `requests/h`.
    pub unit: &'static str,
    /// The target.
    pub target: Target,
    /// Whether it was kept; `None` without a target.
    pub met: Option<bool>,
}

impl Row {
    /// A line; the verdict is made here.
    pub fn new(what: &str, ours: f64, shell_loop: Option<f64>, unit: &'static str, target: Target) -> Row {
        let met = match target {
            Target::Under(limit) => Some(ours < limit),
            Target::AtMost(limit) => Some(ours <= limit),
            Target::None => None,
        };
        Row { what: what.to_owned(), ours, shell_loop, unit, target, met }
    }

    fn cells(&self) -> [String; 6] {
        let figure = |value: f64| match self.unit {
            "requests/h" => format!("{value:.0}"),
            "ms" if value >= 100.0 => format!("{value:.0} ms"),
            unit => format!("{value:.1} {unit}"),
        };
        let ratio = self.shell_loop.filter(|_| self.ours > 0.0).map(|other| format!("{:.1}x", other / self.ours));
        let target = match self.target {
            Target::Under(limit) => format!("< {}", figure(limit)),
            Target::AtMost(limit) => format!("<= {}", figure(limit)),
            Target::None => String::new(),
        };
        let met = self.met.map_or("", |met| if met { "yes" } else { "NO" });
        let other = self.shell_loop.map_or_else(|| "-".to_owned(), figure);
        [self.what.clone(), figure(self.ours), other, ratio.unwrap_or_else(|| "-".to_owned()), target, met.to_owned()]
    }
}

/// The lines as a table; what stands below a headline is indented.
pub fn render(rows: &[Row]) -> String {
    let head = ["", "kubestrap", "shell loop", "ratio", "target", "met"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_ratios() {
        assert_eq!(Row::new("x", 49.9, None, "ms", Target::Under(50.0)).met, Some(true));
        assert_eq!(Row::new("x", 50.0, None, "ms", Target::Under(50.0)).met, Some(false));
        assert_eq!(Row::new("x", 12.0, None, "MiB", Target::AtMost(12.0)).met, Some(true));
        let rows = [
            Row::new("until kubeadm runs", 400.0, Some(3000.0), "ms", Target::Under(1000.0)),
            Row::new("worker", 21.0, None, "requests/h", Target::AtMost(20.0)),
        ];
        let text = render(&rows);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(lines[1], "until kubeadm runs 400 ms 3000 ms 7.5x < 1000 ms yes");
        assert_eq!(lines[2], "worker 21 - - <= 20 NO");
    }
}
