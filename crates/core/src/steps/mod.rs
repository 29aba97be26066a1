//! How a machine becomes a node: the steps, in the order they are carried out. This is the place to begin reading.

mod addons;
mod claim;
mod commit;
mod complete;
mod confirm;
mod endpoint;
mod init;
mod join;
mod join_control_plane;
mod preflight;
mod publish;
mod registry;
mod seal_pki;

pub use claim::{follows, holder};
pub use endpoint::refuse_own as refuse_own_endpoint;
pub(crate) use preflight::runtime_socket;

use crate::config::settings::Settings;
use crate::engine::Step;
use crate::journal::Journal;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::model::identity::Role;
use crate::node::Node;
use std::time::Duration;

/// The steps that these settings ask for.
pub fn of(settings: &Settings) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> =
        vec![Box::new(preflight::Preflight), Box::<registry::RegistryCredentials>::default()];
    match settings.role {
        Role::Master => {
            steps.push(Box::<claim::ClaimRegister>::default());
            if settings.pki.is_some() {
                steps.push(Box::new(seal_pki::SealPki));
            }
            steps.push(Box::new(init::KubeadmInit));
            steps.push(Box::new(commit::CommitRegister));
            // Without a key for the PKI no other machine can join, and nothing of it is asked.
            if settings.pki.is_some() {
                steps.push(Box::<join_control_plane::JoinControlPlane>::default());
            }
            steps.push(Box::new(publish::PublishBundle));
            steps.push(Box::new(addons::ApplyAddons));
        }
        Role::Worker => steps.push(Box::<join::JoinCluster>::default()),
    }
    steps.push(Box::new(confirm::ConfirmNode));
    steps.push(Box::new(complete::Complete));
    steps
}

/// The steps that `skip` and `only` leave. Both may name optional steps alone; anything else is a usage error.
pub fn selected(steps: Vec<Box<dyn Step>>, only: &[String], skip: &[String]) -> Outcome<Vec<Box<dyn Step>>> {
    let optional: Vec<&str> = steps.iter().filter(|step| step.optional()).map(|step| step.name()).collect();
    if let Some(wrong) = only.iter().chain(skip).find(|name| !optional.contains(&name.as_str())) {
        let why = format!("{wrong:?} is not an optional step; those are: {}", optional.join(", "));
        return Err(Failure::new(Cause::Usage, "select the steps", why));
    }
    let keep = |step: &dyn Step| {
        let name = step.name().to_owned();
        !step.optional() || (!skip.contains(&name) && (only.is_empty() || only.contains(&name)))
    };
    Ok(steps.into_iter().filter(|step| keep(&**step)).collect())
}

/// The journal of this machine.
pub(crate) fn journal(node: &Node) -> Journal {
    Journal::new(node.world.files.clone(), node.world.time.clone())
}

/// Patience of steps that wait for something that takes minutes at most (an API server that starts, a store that is
/// back soon).
pub(crate) const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn names(steps: &[Box<dyn Step>]) -> Vec<&'static str> {
        steps.iter().map(|step| step.name()).collect()
    }

    #[test]
    fn only_optional_steps_can_be_left_out() {
        let all = of(&testing::settings("role: master"));
        assert!(names(&all).contains(&"apply-addons"));
        let rest = selected(all, &[], &["apply-addons".to_owned()]).expect("optional");
        assert!(!names(&rest).contains(&"apply-addons"));
        let failure = selected(of(&testing::settings("role: master")), &[], &["kubeadm-init".to_owned()])
            .map(|_| ())
            .expect_err("needed");
        assert_eq!(failure.cause, Cause::Usage);
    }

    #[test]
    fn names_are_unique_and_kebab_case() {
        for role in ["role: master", "role: worker"] {
            let steps = of(&testing::settings(role));
            let unique: std::collections::BTreeSet<_> = names(&steps).into_iter().collect();
            assert_eq!(unique.len(), steps.len());
            assert!(unique.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
        }
    }
}
