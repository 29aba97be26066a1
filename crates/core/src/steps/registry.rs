//! `registry-credentials`: the kubelet of this node is told of our plugin, before it starts for the first time.

use super::journal;
use crate::ecr::wiring::{self, Wish};
use crate::engine::{Step, Verdict};
use crate::kubeadm::machine::Machine;
use crate::model::cause::Outcome;
use crate::node::{Event, Node};
use async_trait::async_trait;
use std::cell::RefCell;
use std::time::Duration;

/// What fails here is a file system, or a person's file.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes the kubelet's CredentialProviderConfig, and takes it out again where credentials are switched off.
#[derive(Default)]
pub struct RegistryCredentials {
    /// Why it failed on a machine that is a node already: that must not end its agent.
    gave_up: RefCell<Option<String>>,
}

#[async_trait(?Send)]
impl Step for RegistryCredentials {
    fn name(&self) -> &'static str {
        "registry-credentials"
    }

    fn describe(&self) -> &'static str {
        "tell the kubelet of the plugin that gets logins of ECR"
    }

    fn optional(&self) -> bool {
        true
    }

    fn patience(&self, _node: &Node) -> Duration {
        PATIENCE
    }

    async fn check(&self, node: &Node) -> Outcome<Verdict> {
        if let Some(why) = &*self.gave_up.borrow() {
            return Ok(Verdict::Done(why.clone()));
        }
        match verdict(node).await {
            // A node works without it; `doctor` says what is wrong and how to mend it.
            Err(failure) if is_node(node)? => Ok(Verdict::Done(format!("left as it is: {failure}"))),
            other => other,
        }
    }

    async fn apply(&self, node: &Node) -> Outcome<()> {
        match carry_out(node).await {
            Err(failure) if is_node(node)? => {
                let why = format!("left as it is: {failure}");
                node.tell(&Event::Note(&format!("the kubelet's credential providers are {why}")));
                self.gave_up.replace(Some(why));
                Ok(())
            }
            other => other,
        }
    }
}

fn is_node(node: &Node) -> Outcome<bool> {
    Ok(journal(node).attempt()?.is_some_and(|attempt| attempt.completed))
}

/// Whose state the machine carries, when it is not ours: such a machine is refused by a later step, and not changed.
fn foreign(node: &Node) -> Outcome<Option<String>> {
    let machine = Machine::look(&*node.world.files)?;
    let refused = machine.refuse_foreign(journal(node).attempt()?.as_ref(), "use this machine");
    Ok(refused.err().map(|failure| failure.detail))
}

async fn verdict(node: &Node) -> Outcome<Verdict> {
    if let Some(why) = foreign(node)? {
        return Ok(Verdict::Done(format!("left alone: {why}")));
    }
    if !node.settings.ecr.is_on(&node.identity) {
        return switched_off(node);
    }
    Ok(match wiring::compare(node).await? {
        Wish::LeftAlone(why) => Verdict::Done(format!("left alone: {why}")),
        Wish::Write { place, .. } => Verdict::Wanted(format!("{} does not name kubestrap", place.file.display())),
        Wish::Done(place, rivals) => {
            let missing = wiring::missing_flags(node, &place.flags)?;
            Verdict::Done(if !missing.is_empty() {
                format!(
                    "{} is ready; the kubelet was started without its flags (see `kubestrap doctor`)",
                    place.file.display()
                )
            } else if let Some(rival) = rivals.first() {
                format!("{} names kubestrap, behind {rival}", place.file.display())
            } else {
                format!("{} names kubestrap", place.file.display())
            })
        }
    })
}

/// A file that the kubelet would not start without stays until its flags are gone.
fn switched_off(node: &Node) -> Outcome<Verdict> {
    let mut stays = None;
    for leftover in wiring::leftovers(node)? {
        let file = leftover.file.display();
        if must_stay(node, &leftover)? {
            stays = Some(format!("switched off; {file} stays while the kubelet's flags name it"));
        } else {
            return Ok(Verdict::Wanted(format!("it is switched off, and {file} names kubestrap")));
        }
    }
    Ok(Verdict::Done(stays.unwrap_or_else(|| "switched off".to_owned())))
}

fn must_stay(node: &Node, leftover: &wiring::Leftover) -> Outcome<bool> {
    Ok(leftover.rest == crate::ecr::provider_config::Rest::Nothing && wiring::is_named(node, &leftover.file)?)
}

async fn carry_out(node: &Node) -> Outcome<()> {
    if !node.settings.ecr.is_on(&node.identity) {
        for leftover in wiring::leftovers(node)? {
            if !must_stay(node, &leftover)? {
                wiring::take_out(node, &leftover)?;
            }
        }
        return Ok(());
    }
    let Wish::Write { place, text, mode, rivals } = wiring::compare(node).await? else { return Ok(()) };
    node.world.files.write(&place.file, text.as_bytes(), mode)?;
    if let Some(rival) = rivals.first() {
        let note = format!("the kubelet asks the provider {rival} for ECR's hosts before it asks kubestrap");
        node.tell(&Event::Note(&note));
    }
    if is_node(node)? {
        let note = format!("{} has changed; the kubelet reads it when it starts", place.file.display());
        node.tell(&Event::Note(&note));
    }
    Ok(())
}
