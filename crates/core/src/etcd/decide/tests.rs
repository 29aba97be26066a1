use super::*;

fn member(id: u64, learner: bool) -> Member {
    let url = |port: u16| vec![format!("https://10.0.0.{id}:{port}")];
    Member { id, name: format!("cp-{id}"), peers: url(2380), clients: url(2379), learner }
}

fn healthy(id: u64) -> Fact {
    Fact { member: member(id, false), health: Health::Healthy { leader: id == 1, applied: 9 }, fate: Fate::Lives }
}

fn dead(id: u64) -> Fact {
    let fate = Fate::Gone(MachineGone::for_test(&format!("i-{id}")));
    Fact { health: Health::Silent("no answer".to_owned()), fate, ..healthy(id) }
}

fn silent(id: u64) -> Fact {
    Fact { fate: Fate::Unknown("EC2 says that it is running".to_owned()), ..dead(id) }
}

fn unstarted(id: u64, learner: bool) -> Fact {
    let member = Member { name: String::new(), clients: Vec::new(), ..member(id, learner) };
    Fact { member, ..silent(id) }
}

/// Which one goes next, and whether something is waited for.
fn decided(facts: &[Fact], lock: &Lock) -> (Option<u64>, bool) {
    let todos = judge(facts, lock);
    (next(&todos).map(Removable::id), waits(&todos).is_some())
}

#[test]
fn members_that_are_gone_go_one_at_a_time_as_long_as_the_rest_has_a_quorum() {
    let table: [(&str, Vec<Fact>, Option<u64>); 11] = [
        ("one healthy", vec![healthy(1)], None),
        ("one dead", vec![dead(1)], None),
        ("two, one dead", vec![healthy(1), dead(2)], Some(2)),
        ("three, one dead", vec![healthy(1), healthy(2), dead(3)], Some(3)),
        ("three, two dead", vec![healthy(1), dead(2), dead(3)], None),
        ("three, one dead and one silent", vec![healthy(1), silent(2), dead(3)], None),
        ("four, one dead and one silent", vec![healthy(1), healthy(2), silent(3), dead(4)], Some(4)),
        ("five, two dead", vec![healthy(1), healthy(2), healthy(3), dead(4), dead(5)], Some(4)),
        ("five, three dead", vec![healthy(1), healthy(2), dead(3), dead(4), dead(5)], None),
        ("silent", vec![healthy(1), healthy(2), silent(3)], None),
        ("a dead learner", vec![healthy(1), Fact { member: member(2, true), ..dead(2) }], Some(2)),
    ];
    for (what, facts, expected) in table {
        assert_eq!(decided(&facts, &Lock::Free).0, expected, "{what}");
    }
}

#[test]
fn whatever_goes_leaves_a_healthy_quorum_and_is_not_healthy() {
    for shape in 0..3_usize.pow(5) {
        let kinds: Vec<usize> = (0..5_u32).map(|n| shape / 3_usize.pow(n) % 3).collect();
        for voters in 1..=5 {
            let make = |(n, kind): (usize, &usize)| match kind {
                0 => healthy(n as u64 + 1),
                1 => dead(n as u64 + 1),
                _ => silent(n as u64 + 1),
            };
            let facts: Vec<Fact> = kinds.iter().take(voters).enumerate().map(make).collect();
            let Some(gone) = decided(&facts, &Lock::Free).0 else { continue };
            let rest: Vec<&Fact> = facts.iter().filter(|fact| fact.member.id != gone).collect();
            let alive = rest.iter().filter(|fact| fact.is_healthy()).count();
            assert!(alive >= quorum(rest.len()), "{kinds:?} of {voters}: {gone}");
            assert!(facts.iter().any(|fact| fact.member.id == gone && matches!(fact.fate, Fate::Gone(_))));
        }
    }
}

#[test]
fn learners_that_never_started_go_unless_somebody_joins() {
    let facts = [healthy(1), unstarted(2, true)];
    for (lock, expected) in [
        (Lock::Free, (Some(2), false)),
        (Lock::Ours, (Some(2), false)),
        (Lock::Gone, (Some(2), false)),
        (Lock::Living("cp-2".to_owned()), (None, true)),
    ] {
        assert_eq!(decided(&facts, &lock), expected, "{lock:?}");
    }
    // It goes before a voter: it stands in the way of every join.
    assert_eq!(decided(&[healthy(1), healthy(2), dead(3), unstarted(4, true)], &Lock::Free), (Some(4), false));
    // One with a vote is judged by its machine, like all that have one.
    assert_eq!(decided(&[healthy(1), healthy(2), unstarted(3, false)], &Lock::Free), (None, true));
    // One that catches up is let be.
    let learner = Fact { member: member(2, true), ..healthy(2) };
    assert_eq!(decided(&[healthy(1), learner], &Lock::Free), (None, true));
}

#[test]
fn the_own_member_is_found_by_its_name_or_before_it_has_one_by_its_address() {
    let at = |id: u64| format!("10.0.0.{id}").parse::<IpAddr>().expect("address");
    let of = |facts: &[Fact]| {
        let members: Vec<Member> = facts.iter().map(|fact| fact.member.clone()).collect();
        (own(&members, "cp-2", at(2)), own_learner(&members, "cp-2", at(2)).map(|which| which.id()))
    };
    assert_eq!(of(&[healthy(1)]), (Own::Absent, None));
    assert_eq!(of(&[healthy(1), healthy(2)]), (Own::Voter, None));
    assert_eq!(of(&[healthy(1), unstarted(2, true)]), (Own::UnstartedLearner(2), Some(2)));
    assert_eq!(of(&[healthy(1), unstarted(3, true)]), (Own::Absent, None));
    assert_eq!(of(&[healthy(1), unstarted(2, false)]), (Own::Voter, None), "a vote is never taken back");
    assert_eq!(of(&[healthy(1), Fact { member: member(2, true), ..healthy(2) }]), (Own::StartedLearner, None));
    let renamed = Fact { member: Member { name: "cp-9".to_owned(), ..member(2, false) }, ..healthy(2) };
    assert_eq!(of(&[healthy(1), renamed]), (Own::Absent, None), "a started member is known by its name");
}

#[test]
fn leaving_and_an_operators_word_keep_the_quorum() {
    let all = [healthy(1), healthy(2), healthy(3)];
    assert_eq!(leaving(&all, &all[0]).map(|which| which.id()), Ok(1));
    assert_eq!(leaving(&all[..1], &all[0]).map(|which| which.id()), Err(Needed::LastVoter));
    let two = [healthy(1), silent(2)];
    let why = leaving(&two, &two[0]).expect_err("one answers");
    assert_eq!(why.to_string(), "without it 0 of 1 voters would be healthy, and 1 are needed");
    let word = || Some(MachineGone::by_operator("cp-2"));
    assert_eq!(by_operator(&all, &all[1], word()).map(|which| which.id()), Err(Refusal::Healthy));
    assert_eq!(by_operator(&two, &two[1], word()).map(|which| which.id()), Ok(2));
    assert!(matches!(by_operator(&two, &two[1], None), Err(Refusal::Alive(_))));
    let lost = [silent(1), silent(2), healthy(3)];
    assert!(matches!(
        by_operator(&lost, &lost[0], word()),
        Err(Refusal::Needed(Needed::ByQuorum { healthy: 1, voters: 2 }))
    ));
    let gone = [healthy(1), healthy(2), dead(3)];
    assert!(by_operator(&gone, &gone[2], None).is_ok_and(|which| which.gone().is_some()));
}
