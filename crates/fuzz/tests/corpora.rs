//! Every corpus is replayed, and mutated for a moment. Longer: `cargo xtask fuzz --seconds 600`.

use kubestrap_fuzz::{Session, TARGETS};
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
