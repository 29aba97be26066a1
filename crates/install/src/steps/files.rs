//! Files of one text: written when they are not there or are ours, kept when they are somebody else's.

use super::{Item, Job, State};
use crate::host::{Seen, digest_of};
use kubestrap_core::model::cause::{Cause, Failure, Outcome};

/// What is appended to the name of a file that was replaced by force, and a number from the second on.
const SAVED: &str = ".before-kubestrap";
/// How many texts of somebody else are kept of one file. Nobody has more; who has, looks first.
const MAX_SAVED: usize = 99;

/// A file with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it is.
    pub path: String,
    /// What is in it.
    pub body: String,
    /// Permission bits.
    pub mode: u32,
}

impl Text {
    /// A file that everybody may read.
    pub fn new(path: &str, body: String) -> Text {
        Text { path: path.to_owned(), body, mode: 0o644 }
    }

    /// SHA-256 of the text.
    pub fn sha256(&self) -> String {
        digest_of(&self.body)
    }
}

/// What is to become of one file; pure.
pub(super) fn judge(path: &str, seen: &Seen, wanted: (&str, u32), is_ours: bool, replace: bool) -> Item {
    let (sha256, mode) = wanted;
    let kept = |why: &str| Item::kept(path, format!("{why}; it stays as it is (--replace overwrites it)"));
    match seen {
        Seen::Absent => Item::wanted(path, "it is not there"),
        Seen::File { mode: has, sha256: is } if is == sha256 && *has == mode => Item::done(path, "in place"),
        Seen::File { mode: has, sha256: is } if is == sha256 && (is_ours || replace) => {
            Item::wanted(path, format!("its mode is {has:04o} and should be {mode:04o}"))
        }
        Seen::File { mode: has, sha256: is } if is == sha256 => {
            kept(&format!("the mode of this file is {has:04o} and not {mode:04o}"))
        }
        Seen::File { .. } if is_ours => Item::wanted(path, "it is of an earlier installation"),
        Seen::File { .. } if replace => Item::wanted(path, "it is somebody else's, and --replace was given"),
        Seen::File { .. } => kept("kubestrap did not put this file here, or it was changed since"),
        Seen::Link(target) if replace => Item::wanted(path, format!("it is a link to {}", target.display())),
        Seen::Link(target) => kept(&format!("it is a link to {}", target.display())),
        Seen::Other => kept("it is no regular file"),
    }
}

/// Checks each file.
pub(super) fn check(job: &Job<'_>, texts: &[Text]) -> Outcome<Vec<Item>> {
    texts.iter().map(|text| one(job, text, job.replace)).collect()
}

/// Checks one file; `replace` when what is there may be overwritten.
pub(super) fn one(job: &Job<'_>, text: &Text, replace: bool) -> Outcome<Item> {
    let seen = job.host.look(&text.path)?;
    let is_ours = matches!(&seen, Seen::File { sha256, .. } if job.ledger.borrow().is_ours(&text.path, sha256));
    let mut item = judge(&text.path, &seen, (&text.sha256(), text.mode), is_ours, replace);
    if item.state == State::Wanted
        && let Some(saved) = saved_as(job, text, &seen)?
    {
        item.why = format!("{}; what is there is kept as {saved}", item.why);
    }
    Ok(item)
}

/// Writes a file that is wanted. What somebody else had there is kept beside it.
pub(super) fn write(job: &Job<'_>, text: &Text) -> Outcome<()> {
    let seen = job.host.look(&text.path)?;
    if let Some(saved) = saved_as(job, text, &seen)?
        && !job.host.exists(&saved)?
    {
        match &seen {
            Seen::Link(target) => job.host.link(&target.to_string_lossy(), &saved)?,
            _ => job.host.keep_copy(&text.path, &saved)?,
        }
    }
    job.ledger.borrow_mut().announce(&job.host, &[(text.path.clone(), text.sha256())])?;
    job.host.write(&text.path, &text.body, text.mode)
}

/// Under which name somebody else's file is kept that our text replaces: the first that nothing has, or that has the same
/// already. `None` when what is there is ours, or says what ours says.
fn saved_as(job: &Job<'_>, text: &Text, seen: &Seen) -> Outcome<Option<String>> {
    let is_theirs = match seen {
        Seen::File { sha256, .. } => *sha256 != text.sha256() && !job.ledger.borrow().is_ours(&text.path, sha256),
        Seen::Link(_) => true,
        Seen::Absent | Seen::Other => false,
    };
    if !is_theirs {
        return Ok(None);
    }
    for number in 1..=MAX_SAVED {
        let more = if number == 1 { String::new() } else { format!(".{number}") };
        let name = format!("{}{SAVED}{more}", text.path);
        let there = job.host.look(&name)?;
        let is_the_same = match (seen, &there) {
            (Seen::File { sha256, .. }, Seen::File { sha256: kept, .. }) => sha256 == kept,
            _ => *seen == there,
        };
        if is_the_same || there == Seen::Absent {
            return Ok(Some(name));
        }
    }
    let why = format!("{MAX_SAVED} earlier ones are there, from {}{SAVED} on, and none is overwritten", text.path);
    let failure = Failure::new(Cause::FileAccess, format!("keep what is in {} before it is replaced", text.path), why);
    Err(failure.advise("move those that are needed to another place, and remove the others"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_or_was_given_up_is_overwritten() {
        let file = |sha256: &str, mode| Seen::File { mode, sha256: sha256.to_owned() };
        let link = Seen::Link("/elsewhere".into());
        let cases = [
            (Seen::Absent, false, false, State::Wanted),
            (file("new", 0o644), false, false, State::Done),
            (file("new", 0o600), false, false, State::Kept),
            (file("new", 0o600), true, false, State::Wanted),
            (file("old", 0o644), true, false, State::Wanted),
            (file("old", 0o644), false, false, State::Kept),
            (file("old", 0o644), false, true, State::Wanted),
            (link.clone(), false, false, State::Kept),
            (link, false, true, State::Wanted),
            (Seen::Other, true, true, State::Kept),
        ];
        for (seen, is_ours, replace, state) in cases {
            let item = judge("/f", &seen, ("new", 0o644), is_ours, replace);
            assert_eq!(item.state, state, "{seen:?} ours: {is_ours} replace: {replace}: {item:?}");
        }
    }
}
