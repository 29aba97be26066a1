//! How an installation looks to a person, and to a program.

use crate::observe::text::fold;
use kubestrap_core::drift::manifest::{self, Manifest};
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::model::plain::plain;
use kubestrap_core::model::register::SCHEMA;
use kubestrap_install::host::Host;
use kubestrap_install::steps::{Item, Row, State};
use serde_json::{Value, json};

/// The digest of the manifest's content, for the tag `kubestrap:content`; `None` where nothing was installed.
pub fn content(host: &Host) -> Outcome<Option<String>> {
    let text = host.read(manifest::PATH)?;
    text.map(|text| Manifest::parse(text.as_bytes()).map(|manifest| manifest.content())).transpose()
}

/// A step with what its check found; `wanted` is the word for what is changed.
pub fn row(row: &Row, wanted: &str) -> String {
    let (word, items) = match &row.found {
        Err(failure) => {
            let why = format!("{}; {}", failure.detail, failure.fix());
            return format!("{:8} {}\n{:9}{}\n", "failed", row.step, "", fold(&plain(&why), 100, 9));
        }
        Ok(items) => (if row.is_wanted() { wanted } else { "done" }, items),
    };
    let mut out = format!("{word:8} {}\n", row.step);
    for item in items {
        let line = format!("{:8} {}: {}", word_of(&item.state, wanted), item.what, item.why);
        out.push_str(&format!("{:9}{}\n", "", fold(&plain(&line), 110, 9 + 9)));
    }
    out
}

fn word_of<'a>(state: &State, wanted: &'a str) -> &'a str {
    match state {
        State::Done => "done",
        State::Wanted => wanted,
        State::Kept => "kept",
        State::Note => "note",
    }
}

fn count(rows: &[Row], state: State) -> usize {
    let items = rows.iter().flat_map(|row| row.found.iter().flatten());
    items.filter(|item: &&Item| item.state == state).count()
}

/// The last lines: how much was changed, what stayed, and the digest.
pub fn end(rows: &[Row], content: Option<&str>) -> String {
    let mut out = match count(rows, State::Wanted) {
        0 => "\nNothing was changed: everything is in place.\n".to_owned(),
        changed => format!("\n{changed} changes.\n"),
    };
    match count(rows, State::Kept) {
        0 => {}
        kept => out.push_str(&format!("{kept} things of somebody else stayed as they are: see `kept` above.\n")),
    }
    if let Some(content) = content {
        out.push_str(&format!("content {content} (for the image's tag kubestrap:content)\n"));
    }
    out
}

/// The same for programs.
pub fn json(rows: &[Row], content: Option<&str>) -> Value {
    let item = |item: &Item| json!({ "what": item.what, "state": word_of(&item.state, "wanted"), "why": item.why });
    let steps = rows.iter().map(|row| match &row.found {
        Ok(items) => {
            json!({ "step": row.step, "describe": row.describe, "items": items.iter().map(item).collect::<Vec<_>>() })
        }
        Err(failure) => json!({
            "step": row.step, "describe": row.describe, "items": [],
            "failure": { "cause": failure.cause.row().label, "message": failure.detail, "fix": failure.fix() },
        }),
    });
    json!({
        "schema": SCHEMA,
        "wanted": count(rows, State::Wanted),
        "kept": count(rows, State::Kept),
        "steps": steps.collect::<Vec<_>>(),
        "content": content,
    })
}
