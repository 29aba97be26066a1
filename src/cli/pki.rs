//! `pki status|rewrap`: the sealed keys of the cluster's authorities, for people.

use super::compose;
use super::confirm::confirm;
use super::{Form, Global, Output, print, print_json};
use clap::{Args, Subcommand};
use kubestrap_core::gate::{Open, ReadOnly};
use kubestrap_core::model::cause::{Cause, ExitCode, Failure, Outcome};
use kubestrap_core::model::identity::Role;
use kubestrap_core::model::plain::plain;
use kubestrap_core::node::{Node, Silent};
use kubestrap_core::pki::{self, Standing};
use serde_json::json;
use std::rc::Rc;

/// Work with the sealed keys of the cluster's authorities, which further masters join with.
#[derive(Args)]
pub struct Pki {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show what the keys are sealed with, and whether this machine can open them. Changes nothing.
    #[command(after_help = "Exit code 21 when there are none, or they do not open with this machine's key.")]
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Seal the keys of this master anew with the key that is configured now. The CA stays the same.
    ///
    /// For a changed key (first give it to every master), for a bundle that was damaged, and for an encryption at rest
    /// that was given up.
    #[command(after_help = "Examples:
  kubestrap pki rewrap              shows what is replaced, and asks
  kubestrap pki rewrap --yes prod   without a terminal")]
    Rewrap {
        /// Confirm with the name of the cluster instead of typing it.
        #[arg(long, value_name = "CLUSTER")]
        yes: Option<String>,
    },
}

impl Pki {
    /// Shows, or seals after confirmation.
    pub async fn run(self, global: &Global) -> Outcome<ExitCode> {
        match self.what {
            What::Status { output } => status(global, output.output).await,
            What::Rewrap { yes } => rewrap(global, yes.as_deref()).await,
        }
    }
}

async fn status(global: &Global, form: Form) -> Outcome<ExitCode> {
    let node = compose::node(global, Rc::new(ReadOnly), Rc::new(Silent)).await?;
    let standing = pki::stand(&node).await?;
    match form {
        Form::Human => print(&told(&standing))?,
        Form::Json => print_json(&as_json(&standing))?,
    }
    Ok(if matches!(standing.opened, Some(Ok(_))) { ExitCode::Done } else { ExitCode::CheckFailed })
}

async fn rewrap(global: &Global, yes: Option<&str>) -> Outcome<ExitCode> {
    const REWRAP: &str = "seal the keys of the cluster anew";
    let node = compose::node(global, Rc::new(Open), Rc::new(Silent)).await?;
    if node.settings.role != Role::Master {
        let why = "this machine is a worker; only a master has the keys";
        return Err(Failure::new(Cause::Usage, REWRAP, why).advise("run it on a master"));
    }
    let standing = pki::stand(&node).await?;
    let Some(register) = &standing.register else {
        let why = "there is no cluster.json";
        return Err(Failure::new(Cause::RegisterMissing, REWRAP, why));
    };
    confirm(REWRAP, &warning(&node, &standing), node.settings.cluster.as_str(), yes)?;
    let sealed = pki::rewrap(&node, register, standing.seen.as_ref()).await?;
    print(&format!("Sealed anew: cluster {}, CA {}.\n", sealed.uid, sealed.ca))?;
    Ok(ExitCode::Done)
}

fn warning(node: &Node, standing: &Standing) -> String {
    let own = node.settings.pki.as_ref().map_or_else(|| "no key".to_owned(), |key| format!("{key}"));
    format!(
        "{}\nIt is replaced by the keys of this machine, sealed with {own}. Masters that do not have that key cannot \
         join any more.",
        told(standing)
    )
}

/// A name of the store may be in it.
fn told(standing: &Standing) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| out.push_str(&format!("{name:<12}{}\n", plain(&text)));
    match &standing.register {
        Some(register) => {
            let ca = register.ca().map_or_else(|| "not established yet".to_owned(), |ca| format!("CA {ca}"));
            line("cluster", format!("{} {}, {ca}", register.cluster, register.uid));
        }
        None => line("cluster", "there is no cluster.json".to_owned()),
    }
    match standing.seen.as_ref().map(|seen| &seen.bundle) {
        None => line("sealed", "no: there is no pki/bundle; a master with `pki` configured makes it".to_owned()),
        Some(Err(failure)) => line("sealed", format!("unreadable: {}", failure.detail)),
        Some(Ok(bundle)) => {
            let ca = &bundle.ca_sha256;
            line("sealed", format!("version {} with {}, CA {ca}", bundle.sequence, bundle.key.describe()));
        }
    }
    match &standing.opened {
        None => {}
        Some(Ok(material)) => {
            let encryption = material.encryption.as_ref();
            let encryption = encryption.map_or_else(|| "none".to_owned(), |file| file.path.display().to_string());
            line("opens", "yes, with this machine's key".to_owned());
            line("encryption", encryption);
        }
        Some(Err(failure)) => {
            line("opens", format!("no: {} [{}]", failure.detail, failure.cause.row().label));
            line("fix", failure.fix().to_owned());
        }
    }
    let ca = standing.machine_ca.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    line("machine", format!("CA {ca}"));
    out
}

fn as_json(standing: &Standing) -> serde_json::Value {
    let bundle = standing.seen.as_ref().and_then(|seen| seen.bundle.as_ref().ok());
    let problem = match (&standing.seen, &standing.opened) {
        (None, _) => Some("there is no pki/bundle".to_owned()),
        (_, Some(Err(failure))) => Some(failure.to_string()),
        _ => None,
    };
    json!({
        "uid": standing.register.as_ref().map(|register| register.uid),
        "ca_sha256": standing.register.as_ref().and_then(|register| register.ca()),
        "sealed": bundle.map(|bundle| json!({
            "uid": bundle.uid,
            "ca_sha256": bundle.ca_sha256,
            "with": bundle.key.describe(),
            "sequence": bundle.sequence,
        })),
        "opens": matches!(standing.opened, Some(Ok(_))),
        "problem": problem,
        "machine_ca_sha256": standing.machine_ca,
    })
}
