//! docs/reliability.md promises; this checks that each promise names what shows it, and that it exists.

use kubestrap_lab::scenarios;
use kubestrap_sim::{killpoints, scenario};
use std::io;
use std::path::Path;

/// The page.
const PAGE: &str = "docs/reliability.md";
/// Its tables have what shows a line in the last column.
const FEWEST_LINES: usize = 20;

/// Checks the page of the workspace; the error lists every line that shows nothing, or something that is not there.
///
/// # Errors
/// See above.
pub fn check(workspace: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(workspace.join(PAGE))?;
    let rows: Vec<&str> = rows(&text).collect();
    let mut problems: Vec<String> = rows.iter().flat_map(|row| problems(workspace, row)).collect();
    if rows.len() < FEWEST_LINES {
        problems.push(format!("there are {} lines in its tables; they are not found any more", rows.len()));
    }
    if problems.is_empty() {
        println!("{PAGE}: {} promises, each with what shows it", rows.len());
        return Ok(());
    }
    Err(io::Error::other(format!("{PAGE}:\n  {}", problems.join("\n  "))))
}

/// The lines of tables, without their heads.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---") || line.starts_with("| ---");
    (0..lines.len()).filter_map(move |at| {
        let head = lines.get(at + 1).is_some_and(|next| is_rule(next));
        (lines[at].starts_with('|') && !is_rule(lines[at]) && !head).then(|| lines[at])
    })
}

fn problems(workspace: &Path, row: &str) -> Vec<String> {
    let last = row.trim_end().trim_end_matches('|').rsplit(" | ").next().unwrap_or_default();
    let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
    let what = row.trim_start_matches('|').split('|').next().unwrap_or_default().trim();
    if named.is_empty() {
        return vec![format!("{what}: nothing shows it")];
    }
    named
        .into_iter()
        .filter(|name| !exists(workspace, name))
        .map(|name| format!("{what}: there is no `{name}`"))
        .collect()
}

/// `file.rs::test`, `lab NAME`, `simulate NAME`, `kill points: STORY`.
fn exists(workspace: &Path, name: &str) -> bool {
    if let Some((file, test)) = name.split_once("::") {
        let text = std::fs::read_to_string(workspace.join(file)).unwrap_or_default();
        return has_test(&text, test);
    }
    match name.split_once(' ') {
        Some(("lab", name)) => scenarios::SCENARIOS.iter().any(|family| family.iter().any(|one| one.name == name)),
        Some(("simulate", name)) => scenario::by_name(name).is_some(),
        Some(("kill", story)) => {
            let story = story.trim_start_matches("points: ");
            killpoints::stories().iter().any(|known| known.name == story)
        }
        _ => false,
    }
}

/// A function of this name with `#[test]` or `#[tokio::test]` before it, other attributes and comments in between.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().filter(|(_, line)| line.trim_start_matches("async ").starts_with(&head)).any(|(at, _)| {
        let before = lines[..at].iter().rev();
        before
            .take_while(|line| line.starts_with('#') || line.starts_with("//"))
            .any(|line| ["#[test]", "#[tokio::test]"].contains(line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_proof_or_with_one_that_is_not_there_is_a_problem() {
        let workspace = crate::process::workspace();
        let problems = |row: &str| problems(&workspace, row);
        assert!(problems("| power loss | converges | `lab power-cut-init`, `simulate kills` |").is_empty());
        assert_eq!(problems("| a | b | trust us |"), ["a: nothing shows it"]);
        assert_eq!(problems("| a | `b` | `lab moon` |"), ["a: there is no `lab moon`"]);
        let missing = "`tests/integration/crashes.rs::no_such_test`";
        assert_eq!(problems(&format!("| a | b | {missing} |")).len(), 1);
        let helper = "`tests/integration/crashes.rs::init_dies`";
        assert_eq!(problems(&format!("| a | b | {helper} |")).len(), 1, "a function that is no test");
        let test = "`tests/integration/crashes.rs::kubeadm_dies_before_certs`";
        assert!(problems(&format!("| a | b | {test} |")).is_empty());
        let on_a_runtime = "`crates/install/src/download/tests.rs::a_server_in_trouble_is_asked_again`";
        assert!(problems(&format!("| a | b | {on_a_runtime} |")).is_empty());
    }

    #[test]
    fn heads_and_rules_of_tables_are_no_lines() {
        let text = "text\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n";
        assert_eq!(rows(text).collect::<Vec<_>>(), ["| 1 | 2 |", "| 3 | 4 |"]);
    }
}
