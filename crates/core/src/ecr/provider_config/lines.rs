//! Our entry as lines of a file: between two marks, so that it is found again and nothing else is touched.

use serde_json::Value;

const BEGIN: &str = "# kubestrap: from here on, up to the next mark, written by kubestrap (`ecr` of its configuration)";
const END: &str = "# kubestrap: end";
/// What both marks begin with, whatever a version writes behind it.
const MARKS: [&str; 2] = ["# kubestrap: from here on", END];

/// A new file with our entry alone.
pub(super) fn fresh(entry: &Value) -> String {
    let head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n";
    format!("{head}{}", block(entry, 0))
}

/// The text without our lines.
pub(super) fn cut(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut ours = String::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if !inside && trimmed.starts_with(MARKS[0]) {
            inside = true;
        }
        if inside {
            ours.push_str(line)
        } else {
            kept.push_str(line)
        }
        if inside && trimmed == MARKS[1] {
            inside = false;
            ours.clear();
        }
    }
    // Without an end it is not our block any more: nothing is taken out.
    kept.push_str(&ours);
    kept
}

/// The text with our lines behind the last item of a `providers` in block style; `None` where there is no such list.
pub(super) fn put(text: &str, entry: &Value) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let key = lines.iter().position(|line| is_key(line))?;
    let first = lines[key + 1..].iter().find(|line| is_content(line));
    let depth = first.filter(|line| line.trim_start().starts_with("- ")).map_or(0, |line| indent(line));
    let is_inside = |line: &str| indent(line) > depth || (indent(line) == depth && line.trim_start().starts_with('-'));
    let mut last = lines.iter().enumerate().skip(key + 1).filter(|(_, line)| is_content(line));
    let end = last.find(|(_, line)| !is_inside(line)).map_or(lines.len(), |(at, _)| at);
    // Comments above the next key belong to that key.
    let end = (key + 1..end).rev().find(|at| is_content(lines[*at])).map_or(end, |at| at + 1);
    let mut out: String = lines[..end].concat();
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(&block(entry, depth));
    out.push_str(&lines[end..].concat());
    Some(out)
}

fn is_key(line: &str) -> bool {
    let rest = line.strip_prefix("providers:").map(str::trim);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

fn is_content(line: &str) -> bool {
    let trimmed = line.trim();
    !trimmed.is_empty() && !trimmed.starts_with('#')
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// An item of a list with its marks. Scalars are JSON, which YAML 1.1 and 1.2 read alike.
fn block(entry: &Value, depth: usize) -> String {
    let pad = " ".repeat(depth);
    let body: String = item(entry).iter().map(|line| format!("{pad}{line}\n")).collect();
    format!("{pad}{BEGIN}\n{body}{pad}{END}\n")
}

/// The lines of an item of a list.
fn item(value: &Value) -> Vec<String> {
    let Value::Object(_) = value else { return vec![format!("- {value}")] };
    let with_dash =
        |(number, line): (usize, String)| if number == 0 { format!("- {line}") } else { format!("  {line}") };
    map(value).into_iter().enumerate().map(with_dash).collect()
}

/// The lines of a map; its name comes first.
fn map(value: &Value) -> Vec<String> {
    let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| (*key != "name", *key));
    let mut lines = Vec::new();
    for (key, value) in entries {
        match value {
            Value::Object(_) => {
                lines.push(format!("{key}:"));
                lines.extend(map(value).iter().map(|line| format!("  {line}")));
            }
            Value::Array(items) => {
                lines.push(format!("{key}:"));
                lines.extend(items.iter().flat_map(item));
            }
            scalar => lines.push(format!("{key}: {scalar}")),
        }
    }
    lines
}
