//! A joining master and etcd: that nobody has its name or address, and that a failed join left nothing that etcd counts on.

use super::api::{Credentials, Member};
use super::decide::Own;
use super::survey::{own_member, remove_own_learner};
use crate::kube::Api;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Identity;
use crate::node::Node;

/// A proof that etcd has no member on this machine: made only here, demanded by the reset of a half-joined master (safety
/// rule 5).
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfEtcd(());

impl OutOfEtcd {
    /// For tests of what demands the proof.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        OutOfEtcd(())
    }
}

/// Removes this machine's own member when it never started; the proof that there is none, or `None` when one has
/// started.
pub async fn out_of_etcd(node: &Node, api: &Api, with: &Credentials) -> Outcome<Option<OutOfEtcd>> {
    if matches!(own_member(node, api, with).await?, Own::UnstartedLearner(_)) {
        remove_own_learner(node, api, with).await?;
    }
    let own = own_member(node, api, with).await?;
    Ok((own == Own::Absent).then_some(OutOfEtcd(())))
}

/// Refuses (`DuplicateNode`) a machine that is not in etcd and whose name or address a started member has.
pub fn refuse_twin(members: &[Member], own: &Identity) -> Outcome<()> {
    let (name, address) = (&own.node_name, own.address);
    let twin = members.iter().filter(|member| member.is_started());
    let mut same = twin.filter_map(|member| match (member.name == *name, member.is_at(address)) {
        (true, true) => Some((member, "this machine's name and address".to_owned())),
        (true, false) => Some((member, format!("this machine's name, at {}", member.peers.join(", ")))),
        (false, true) => Some((member, format!("this machine's address {address}"))),
        (false, false) => None,
    });
    let Some((member, what)) = same.next() else { return Ok(()) };
    let why = format!("the member {} ({}) of etcd has {what}", member.name, member.hex());
    Err(Failure::new(Cause::DuplicateNode, "join the control plane", why).advise(format!(
        "give this machine another name or address; if it stands in the place of one that is gone, `kubestrap member remove {}`",
        member.name
    )))
}

/// What is said of an even number of masters; `None` for an odd one. It is allowed.
pub fn even_masters(masters: usize) -> Option<String> {
    (masters > 0 && masters.is_multiple_of(2)).then(|| {
        let survives = (masters - 1) / 2;
        format!(
            "{masters} masters survive the loss of {survives}, as {} do: an odd number is better (docs/ha.md)",
            masters - 1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_number_of_masters_is_warned_of() {
        assert_eq!([0, 1, 3, 5].map(even_masters), [const { None }; 4]);
        assert!(even_masters(2).is_some_and(|text| text.starts_with("2 masters survive the loss of 0, as 1 do")));
        assert!(even_masters(4).is_some_and(|text| text.starts_with("4 masters survive the loss of 1, as 3 do")));
    }

    #[test]
    fn a_name_and_an_address_belong_to_one_machine() {
        let own = crate::testing::identity("m2");
        let member = |name: &str, address: &str| Member {
            id: 7,
            name: name.to_owned(),
            peers: vec![format!("https://{address}:2380")],
            clients: Vec::new(),
            learner: false,
        };
        assert_eq!(own.address.to_string(), "10.0.0.1");
        assert_eq!(refuse_twin(&[member("m1", "10.0.0.2"), member("", "10.0.0.1")], &own), Ok(()));
        for (twin, word) in [
            (member("m2", "10.0.0.2"), "name, at https://10.0.0.2:2380"),
            (member("m1", "10.0.0.1"), "address 10.0.0.1"),
            (member("m2", "10.0.0.1"), "name and address"),
        ] {
            let failure = refuse_twin(&[member("m3", "10.0.0.3"), twin.clone()], &own).expect_err("refused");
            assert_eq!(failure.cause, Cause::DuplicateNode);
            assert!(failure.detail.contains(word), "{failure}");
            assert!(failure.fix().contains(&format!("member remove {}", twin.name)), "{failure}");
        }
    }
}
