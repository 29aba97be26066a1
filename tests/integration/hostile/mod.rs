//! Hostile input: what somebody can do who is not supposed to have a say, one file per attacker.
//!
//! A case is a row of a table, and each shows three things. **Refused**: the exit code of the README's table, or it goes
//! on waiting. **Named**: the cause, and a text that tells the person on call what was wrong, where, and what to do.
//! **Nothing changed**: every file of the machine, of the store and of whoever stands by is what it was, and kubeadm was
//! not started. The list of all cases is a snapshot: `hostile/snapshots`.
//!
//! What other files of this folder show already is not repeated: the fields of a bundle (`bundles.rs`), somebody else's
//! control plane and cloned disks (`foreign.rs`), a register that vanished (`masters.rs`), writable configuration
//! (`configuration.rs`), a metadata service that fails (`ec2.rs`), secrets (`secrets.rs`).

mod bucket_reader;
mod bucket_writer;
mod ecr;
mod folder;
mod kubeadm;
mod machine;
mod metadata;
mod names;
mod picture;
mod rogue;
mod s3_server;
mod scene;
mod tls;

use crate::process::{Agent, PATIENCE, finish};
use scene::Scene;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many cases run side by side: each waits for its agent most of the time.
const AT_A_TIME: usize = 4;
/// The shortest fix that is one.
const WORDS: usize = 12;

/// Somebody without a say, and what was tried.
pub struct Attacker {
    /// Who it is: what they can do, and nothing else.
    pub who: &'static str,
    /// The victim before anything was done to it.
    pub scene: fn() -> Scene,
    /// What is done.
    pub cases: &'static [Case],
}

/// One attack.
pub struct Case {
    /// What was done, for people.
    pub name: &'static str,
    /// Does it.
    pub prepare: fn(&mut Scene),
    /// How the agent answers.
    pub answer: Answer,
    /// The label of the cause.
    pub cause: &'static str,
    /// What must be said of it: what, and where.
    pub says: &'static [&'static str],
}

/// How an agent answers an attack.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// It ends with this code.
    Ends(i32),
    /// It goes on waiting for something better, and says for what.
    Waits,
}
use Answer::{Ends, Waits};

const ATTACKERS: &[&Attacker] = &[
    &bucket_writer::OF_A_WORKER,
    &bucket_writer::OF_A_MASTER,
    &folder::ATTACKER,
    &machine::ATTACKER,
    &names::ATTACKER,
    &metadata::ATTACKER,
    &s3_server::ATTACKER,
    &tls::ATTACKER,
    &kubeadm::ATTACKER,
];

/// Runs every case of an attacker; tells all that failed, each with its own panic above.
fn withstands(attacker: &Attacker) {
    let next = AtomicUsize::new(0);
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while let Some(case) = attacker.cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let thread = std::thread::Builder::new().name(case.name.to_owned());
                let outcome = thread.spawn_scoped(scope, || refused((attacker.scene)(), case)).expect("thread").join();
                failed.extend(outcome.is_err().then_some(case.name));
            }
            failed
        };
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("worker")).collect()
    });
    assert!(failed.is_empty(), "{}: {} of {} cases: {failed:#?}", attacker.who, failed.len(), attacker.cases.len());
}

/// Refused, named, nothing changed.
fn refused(mut scene: Scene, case: &Case) {
    (case.prepare)(&mut scene);
    let (before, begun) = (picture::take(&scene), scene.victim.events());
    let said = match case.answer {
        Ends(code) => ended(&scene, code, case.cause),
        Waits => waited(&scene, case),
    };
    for text in case.says {
        assert!(said.contains(text), "{text:?} was not said:\n{said}");
    }
    assert!(!said.contains('\u{1b}') && !said.contains('\u{202e}'), "it commands a terminal: {said:?}");
    assert_eq!(scene.victim.events(), begun, "kubeadm was started");
    picture::is_unchanged(&scene, &before);
    scene.nobody_else_was_asked();
}

/// What was said by an agent that ended.
fn ended(scene: &Scene, code: i32, cause: &str) -> String {
    let said = finish(&mut scene.command()).expect(code).said();
    let word = format!("cause: {cause} (exit code {code})");
    assert!(said.contains(&word), "{word:?} was not said:\n{said}");
    let fix = said.lines().find_map(|line| line.trim().strip_prefix("fix:")).unwrap_or_default();
    assert!(fix.trim().len() >= WORDS, "it does not say what to do:\n{said}");
    said
}

/// What was said by an agent that waits, in its log and in its last word.
fn waited(scene: &Scene, case: &Case) -> String {
    let mut agent = Agent::start(&mut scene.command());
    let (log, label) = (agent.news(), format!("[{}]", case.cause));
    let said = || format!("{}\n{}", log(), last_word(scene).unwrap_or_default());
    let named = |text: &str| text.contains(&label) && case.says.iter().all(|words| text.contains(words));
    // Before the agent knows who it is there is no last word.
    let told = |word: Option<String>| word.is_none_or(|word| fix_of(&word, &label).len() >= WORDS);
    agent.until(&format!("{label} and {:?} are said", case.says), || named(&said()) && told(last_word(scene)));
    assert!(agent.runs(), "it ended:\n{}", said());
    let said = said();
    agent.terminate();
    agent.finished(PATIENCE).expect(0);
    said
}

/// The error in the agent's last word, as `kubestrap status` tells it.
fn last_word(scene: &Scene) -> Option<String> {
    let text = std::fs::read_to_string(scene.victim.path("/var/lib/kubestrap/agent.json")).ok()?;
    let word: Value = serde_json::from_str(&text).ok()?;
    Some(word["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// What to do, in a failure that was told in one line.
fn fix_of<'a>(word: &'a str, label: &str) -> &'a str {
    word.split_once(label).map_or("", |(_, fix)| fix.trim_start_matches([';', ' ']))
}

#[test]
fn cases() {
    let mut page = String::new();
    for attacker in ATTACKERS {
        page.push_str(&format!("{}\n", attacker.who));
        for case in attacker.cases {
            let answer = match case.answer {
                Ends(code) => format!("exit {code}"),
                Waits => "waits".to_owned(),
            };
            page.push_str(&format!("  {answer:8}{:22}{}\n", case.cause, case.name));
            let same = |other: &&&Attacker| other.cases.iter().any(|c| std::ptr::eq(c, case));
            assert_eq!(ATTACKERS.iter().filter(same).count(), 1, "{} is listed twice", case.name);
        }
    }
    insta::assert_snapshot!(page);
}
