//! Every corpus is replayed, and mutated for a moment. Longer: `cargo xtask fuzz --seconds 600`.

use kubestrap_fuzz::{Session, TARGETS, Target};
use std::path::Path;
use std::time::Duration;

#[test]
fn every_corpus_is_handled_and_so_are_its_mutations() {
    let share = Duration::from_secs(5) / u32::try_from(TARGETS.len()).expect("few");
    for target in TARGETS {
        let mut session = Session::new(target, 1).expect("corpus");
        let result = session.replay().and_then(|()| session.mutate_for(share));
        if let Err(finding) = result {
            panic!("{}: {}\n{:?}", finding.target, finding.why, String::from_utf8_lossy(&finding.input));
        }
        assert!(session.executions > 10, "{}: {} executions", target.name, session.executions);
    }
}

#[test]
fn every_target_can_be_guided_by_coverage() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_else(|why| panic!("{file}: {why}"));
    let manifest = read("Cargo.toml");
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len(), "binaries");
    for Target { name, .. } in TARGETS {
        let file = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{file}\"\n")), "{name} has no binary");
        assert!(read(&file).contains(&format!("run(\"{name}\", data)")), "{file} runs another target");
    }
}
