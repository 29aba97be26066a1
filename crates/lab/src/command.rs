//! Programs that are run to their end.

use crate::{Result, attempted, fail};
use std::process::{Command, Stdio};

/// How many lines of a failed program's last words are repeated.
const TAIL: usize = 12;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The output of a program that ended well.
    ///
    /// # Errors
    /// With the last lines it said when it did not.
    pub fn success(self, what: impl std::fmt::Display) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        let words = format!("{}\n{}", self.stdout.trim(), self.stderr.trim());
        fail(format!("failed to {what}: {code}: {}", tail(words.trim(), TAIL)))
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a program; nothing is read from the terminal.
///
/// # Errors
/// When it cannot be started.
pub fn finish(command: &mut Command) -> Result<Finished> {
    let name = command.get_program().display().to_string();
    let output = attempted(command.stdin(Stdio::null()).output(), format!("start {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// Runs a program that must end well; what it printed.
///
/// # Errors
/// When it cannot be started or fails, with its last words.
pub fn run(command: &mut Command) -> Result<String> {
    let shown: Vec<String> = command.get_args().map(|arg| arg.display().to_string()).collect();
    let what = format!("run `{} {}`", command.get_program().display(), shown.join(" "));
    finish(command)?.success(what)
}

/// A program with arguments.
pub fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_program_and_repeats_its_last_words() {
        assert_eq!(run(&mut program("echo", &["a"])).expect("echo"), "a\n");
        let error = run(&mut program("sh", &["-c", "echo out; echo err >&2; exit 3"])).expect_err("exit 3").to_string();
        assert_eq!(error, "failed to run `sh -c echo out; echo err >&2; exit 3`: exit code 3: out\nerr");
        let error = run(&mut program("/nowhere", &[])).expect_err("missing").to_string();
        assert!(error.starts_with("failed to start /nowhere"), "{error}");
    }

    #[test]
    fn a_tail_has_the_last_lines() {
        assert_eq!((tail("a\nb\nc", 2), tail("a", 2), tail("", 2)), ("b\nc".to_owned(), "a".to_owned(), String::new()));
    }
}
