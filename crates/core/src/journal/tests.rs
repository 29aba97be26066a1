use super::*;
use crate::store::fake::{Lab, OneFile};

fn line(attempt: u128, entry: Entry) -> Line {
    Line { schema: 1, at: Timestamp::UNIX_EPOCH, attempt: Uuid::from_u128(attempt), entry }
}

fn began(id: u128) -> Line {
    line(id, Entry::Began { kind: AttemptKind::Init, uid: Uuid::from_u128(9), machine_was_clean: true })
}

fn body(lines: &[Line]) -> Vec<u8> {
    lines.iter().flat_map(|l| format!("\n{}\n", serde_json::to_string(l).expect("json")).into_bytes()).collect()
}

#[test]
fn the_last_attempt_counts_and_lines_of_others_do_not_touch_it() {
    let ca = CaHash::from_digest(&[1; 32]);
    let lines = [began(1), line(1, Entry::CommitAttempted), began(2), line(1, Entry::Committed { ca })];
    let attempt = last_attempt(&lines).expect("an attempt");
    assert_eq!((attempt.id, attempt.commit_attempted, attempt.committed), (Uuid::from_u128(2), false, None));
}

#[test]
fn a_reset_forgets_what_was_made_but_never_a_commit() {
    let ca = CaHash::from_digest(&[1; 32]);
    let lines =
        [began(1), line(1, Entry::Initialised { ca }), line(1, Entry::CommitAttempted), line(1, Entry::ResetDone)];
    let attempt = last_attempt(&lines).expect("an attempt");
    assert_eq!((attempt.initialised, attempt.commit_attempted), (None, true));
}

#[test]
fn every_torn_length_of_the_last_line_is_ignored_and_healed() {
    // A brace in a text: torn behind it, the line looks whole at first sight.
    let step = Entry::StepBegan { step: "join".into(), why: "{\"a\":\"&{x}\"} é".into() };
    let lines = [began(1), line(1, step)];
    let whole = body(&lines);
    let first = body(&lines[..1]).len();
    for cut in first..whole.len() - 1 {
        let mut torn = whole[..cut].to_vec();
        let read = parse(&torn).expect("torn");
        assert!(!read.is_empty() && read[0] == lines[0], "cut at {cut}");
        torn.extend(body(&[line(1, Entry::Completed)]));
        let healed = parse(&torn).expect("healed");
        assert_eq!(healed.last(), Some(&line(1, Entry::Completed)), "cut at {cut}");
    }
}

#[test]
fn a_damaged_line_in_the_middle_and_a_newer_schema_are_refused() {
    let mut bad = body(&[began(1)]);
    bad.extend(b"\n{\"schema\":1,\"what\":1}\n");
    bad.extend(body(&[line(1, Entry::Completed)]));
    assert_eq!(parse(&bad).map_err(|f| f.cause), Err(Cause::ForeignState));
    let newer = body(&[Line { schema: 2, ..began(1) }]);
    assert_eq!(parse(&newer).map_err(|f| f.cause), Err(Cause::ForeignState));
}

#[test]
fn years_of_failures_leave_a_journal_that_says_the_same_and_can_be_read() {
    let lab = Lab::new();
    let file = Rc::new(OneFile::default());
    let journal = Journal::new(file.clone(), lab.time.clone());
    let size = || file.read(Path::new(JOURNAL), 0).expect("a disk").map_or(0, |body| body.len());
    let ca = |n| CaHash::from_digest(&[n; 32]);
    journal.begin(Uuid::from_u128(1), AttemptKind::Join, Uuid::from_u128(9), false).expect("begun");
    journal.note(Entry::Joined { ca: ca(1) }).expect("noted");
    journal.begin(Uuid::from_u128(2), AttemptKind::Init, Uuid::from_u128(9), true).expect("begun");
    let newer = line(2, Entry::Unknown);
    let newer = serde_json::to_string(&newer).expect("json").replace("unknown", "something-new");
    file.append(Path::new(JOURNAL), format!("{newer}\n").as_bytes(), 0o600).expect("appended");
    let (mut largest, mut rewritten) = (0, 0);
    for round in 0..160_u32 {
        let before = (size(), journal.attempt().expect("readable"));
        let fact = match round % 4 {
            0 => Entry::Initialised { ca: ca(1) },
            1 => Entry::ResetBegan,
            2 => Entry::ResetDone,
            _ => Entry::Initialised { ca: ca(2) },
        };
        journal.note(Entry::StepBegan { step: "join".into(), why: round.to_string() }).expect("noted");
        assert_eq!(journal.attempt().expect("readable"), before.1, "round {round}");
        journal.note(fact).expect("noted");
        let failure = Some(("tool-failed".into(), "x".repeat(20_000)));
        journal.note(Entry::StepEnded { step: "join".into(), took_ms: 1, failure }).expect("noted");
        largest = largest.max(size());
        rewritten += u32::from(size() < before.0);
    }
    assert!(largest < THIN_OUT_AT + 30_000 && rewritten > 1, "{largest} bytes, {rewritten} times");
    let attempt = journal.attempt().expect("readable").expect("an attempt");
    assert_eq!((attempt.id, attempt.initialised), (Uuid::from_u128(2), Some(ca(2))));
    let text = String::from_utf8(file.read(Path::new(JOURNAL), 0).expect("a disk").expect("there")).expect("UTF-8");
    assert!(text.contains("something-new") && text.contains("\"why\":\"159\"") && !text.contains("\"why\":\"0\""));
    assert!(!text.contains("\"joined\""), "a fact of an attempt that is over was kept");
}

#[test]
fn entries_of_a_later_minor_are_kept_apart() {
    let text = b"{\"schema\":1,\"at\":\"2026-11-21T00:00:00Z\",\"attempt\":\"00000000-0000-0000-0000-000000000001\",\"entry\":\"something-new\"}\n";
    assert_eq!(parse(text).map(|lines| lines[0].entry.clone()), Ok(Entry::Unknown));
}

/// Whatever a line is, the short way reads it as the general one does.
#[test]
fn lines_about_steps_are_read_as_every_other_line() {
    let failure = Some(("tool-failed".to_owned(), "a \"text\"\n of two lines \u{e9}".to_owned()));
    let lines = [
        line(1, Entry::StepBegan { step: "join".into(), why: "\"entry\":\"step-ended\"".into() }),
        line(1, Entry::StepEnded { step: "join".into(), took_ms: 7, failure }),
        line(1, Entry::StepEnded { step: "join".into(), took_ms: u64::MAX, failure: None }),
        began(1),
        line(1, Entry::AddonsApplied { digest: "\"entry\":\"step-began\"".into() }),
    ];
    let head = r#""schema":1,"at":"2026-11-21T00:00:00Z","attempt":"00000000-0000-0000-0000-000000000001""#;
    let odd = [
        r#""entry":"step-began","step":"join","why":"x","new":{"a":[1]}"#,
        r#""entry":"step-began","step":"join","why":null"#,
        r#""entry":"step-began","step":"join""#,
        r#""entry":"step-began","step":"join","why":"x","took_ms":"none of its business""#,
        r#""entry":"step-ended","step":"join","took_ms":1,"failure":null"#,
        r#""entry":"step-ended","step":"join","took_ms":-1"#,
        r#""entry":"step-ended","step":"join","took_ms":1,"took_ms":2"#,
        r#""entry":"step-skipped","step":"join""#,
        r#""entry":"step-began","entry":"completed","step":"join","why":"x""#,
    ];
    let whole = lines.iter().map(|line| serde_json::to_string(line).expect("json"));
    for text in whole.chain(odd.iter().map(|rest| format!("{{{head},{rest}}}"))) {
        let (short, general) = (parse_line(&text), serde_json::from_str::<Line>(&text));
        assert_eq!(short.map_err(|e| e.to_string()), general.map_err(|e| e.to_string()), "{text}");
    }
}
