//! Telling a person how far downloads are: bars on a terminal, a line for each beginning and end otherwise.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kubestrap_core::model::cause::Failure;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How a file came to be in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was there, and verified again.
    Cached,
    /// It was fetched and verified.
    Fetched,
}

/// What is told of downloads. `what` names the file, as [`crate::catalog::Artifact::title`] does.
pub trait Progress {
    /// An attempt begins; of how many bytes, when the source says.
    fn begin(&self, what: &str, total: Option<u64>);
    /// So many bytes of the attempt are there.
    fn advance(&self, what: &str, done: u64);
    /// The attempt failed, and the next comes after `wait`.
    fn again(&self, what: &str, why: &Failure, wait: Duration);
    /// The file is there and verified.
    fn end(&self, what: &str, how: Ended);
}

/// Bars when standard error is a terminal, else lines there.
pub fn on_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(Bars::default()) } else { Box::new(Lines::new(std::io::stderr())) }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn again(&self, _: &str, _: &Failure, _: Duration) {}
    fn end(&self, _: &str, _: Ended) {}
}

/// A line for each beginning, failure and end.
pub struct Lines<W: Write> {
    out: RefCell<W>,
    done: RefCell<HashMap<String, u64>>,
}

impl<W: Write> Lines<W> {
    /// Writes to `out`. What cannot be written is lost: progress is no result.
    pub fn new(out: W) -> Lines<W> {
        Lines { out: RefCell::new(out), done: RefCell::default() }
    }

    fn say(&self, line: &str) {
        let _ = writeln!(self.out.borrow_mut(), "{line}");
    }
}

impl<W: Write> Progress for Lines<W> {
    fn begin(&self, what: &str, total: Option<u64>) {
        self.done.borrow_mut().insert(what.to_owned(), 0);
        let size = total.map(|total| format!(", {}", megabytes(total))).unwrap_or_default();
        self.say(&format!("fetching {what}{size}"));
    }

    fn advance(&self, what: &str, done: u64) {
        self.done.borrow_mut().insert(what.to_owned(), done);
    }

    fn again(&self, what: &str, why: &Failure, wait: Duration) {
        self.say(&format!("{what}: {}; again in {:.1} s", why.detail, wait.as_secs_f32()));
    }

    fn end(&self, what: &str, how: Ended) {
        let done = self.done.borrow_mut().remove(what).unwrap_or_default();
        match how {
            Ended::Cached => self.say(&format!("{what}: in the cache, verified")),
            Ended::Fetched => self.say(&format!("{what}: {}, verified", megabytes(done))),
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// A bar for each file.
pub struct Bars {
    all: MultiProgress,
    bars: RefCell<HashMap<String, ProgressBar>>,
}

impl Default for Bars {
    fn default() -> Bars {
        Bars { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), bars: RefCell::default() }
    }
}

/// Both templates are constant; one that cannot be read leaves the library's own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Bars {
    fn bar(&self, what: &str) -> ProgressBar {
        let mut bars = self.bars.borrow_mut();
        let bar = bars.entry(what.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_prefix(what.to_owned());
            bar
        });
        bar.clone()
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, total: Option<u64>) {
        let bar = self.bar(what);
        bar.reset();
        match total {
            Some(total) => {
                bar.set_style(style("{prefix:32!} {bar:24} {bytes:>11} {bytes_per_sec:>13} {msg}"));
                bar.set_length(total);
            }
            None => bar.set_style(style("{prefix:32!} {spinner} {bytes:>11} {bytes_per_sec:>13} {msg}")),
        }
    }

    fn advance(&self, what: &str, done: u64) {
        self.bar(what).set_position(done);
    }

    fn again(&self, what: &str, why: &Failure, wait: Duration) {
        self.bar(what).set_message(format!("{}; again in {:.1} s", why.detail, wait.as_secs_f32()));
    }

    fn end(&self, what: &str, how: Ended) {
        let bar = self.bar(what);
        bar.set_style(style("{prefix:32!} {msg}"));
        bar.finish_with_message(match how {
            Ended::Cached => "in the cache, verified",
            Ended::Fetched => "verified",
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubestrap_core::model::cause::Cause;

    #[test]
    fn without_a_terminal_there_is_a_line_for_each_beginning_and_end() {
        let lines = Lines::new(Vec::new());
        lines.begin("runc 1.4.3 (amd64)", Some(12_345_678));
        lines.advance("runc 1.4.3 (amd64)", 1_000_000);
        let why = Failure::new(Cause::DownloadUnavailable, "download it", "the server answers 503");
        lines.again("runc 1.4.3 (amd64)", &why, Duration::from_millis(1500));
        lines.begin("runc 1.4.3 (amd64)", None);
        lines.advance("runc 1.4.3 (amd64)", 12_345_678);
        lines.end("runc 1.4.3 (amd64)", Ended::Fetched);
        lines.end("kubelet 1.36.4 (amd64)", Ended::Cached);
        let text = String::from_utf8(lines.out.into_inner()).expect("utf-8");
        let expected = "fetching runc 1.4.3 (amd64), 12.3 MB\nrunc 1.4.3 (amd64): the server answers 503; again in 1.5 s\n\
                        fetching runc 1.4.3 (amd64)\nrunc 1.4.3 (amd64): 12.3 MB, verified\n\
                        kubelet 1.36.4 (amd64): in the cache, verified\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_templates_of_the_bars_are_read() {
        for template in ["{prefix:32!} {bar:24} {bytes:>11} {bytes_per_sec:>13} {msg}", "{prefix:32!} {spinner} {msg}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
