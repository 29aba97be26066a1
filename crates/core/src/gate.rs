//! The gate: sees every call to a port before and after it.
//!
//! The real gate adds span and metric; `plan` and `doctor` use [`ReadOnly`], which refuses changes; tests use gates
//! that kill before, after (done, but the answer is lost), or half-way. The deadline is kept here for all of them.

use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::Time;
use futures_util::future::{Either, select};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

macro_rules! methods {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// Every method of every port that passes the gate. A method cannot get through without a line here, and the
        /// kill-point enumeration of the simulator fails on a line that none of its stories crosses.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Method {
            $(#[doc = concat!("`", $name, "`")] $variant),*
        }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Method] = &[$(Method::$variant),*];

            /// Port and method, as in [`Call::name`].
            pub fn name(self) -> &'static str {
                match self { $(Method::$variant => $name),* }
            }
        }
    };
}

methods! {
    ObjectsGet "objects.get",
    ObjectsPut "objects.put",
    ObjectsDelete "objects.delete",
    ObjectsList "objects.list",
    ObjectsExpiryRules "objects.expiry_rules",
    FilesRead "files.read",
    FilesStat "files.stat",
    FilesList "files.list",
    FilesWrite "files.write",
    FilesAppend "files.append",
    FilesRemove "files.remove",
    JobsStart "jobs.start",
    JobsObserve "jobs.observe",
    JobsStop "jobs.stop",
    JobsOutput "jobs.output",
    JobsForget "jobs.forget",
    JobsRun "jobs.run",
    MetadataToken "metadata.token",
    MetadataGet "metadata.get",
    CloudInstances "cloud.instances",
    CloudCredentials "cloud.credentials",
    CloudRegistryToken "cloud.registry_token",
    CloudImages "cloud.images",
    CloudParameter "cloud.parameter",
    CloudLaunchTemplate "cloud.launch_template",
    CloudGroupOf "cloud.group_of",
    CloudTerminateInGroup "cloud.terminate_in_group",
    CloudCompleteLifecycle "cloud.complete_lifecycle",
    CloudHeartbeat "cloud.heartbeat",
    ClusterCall "cluster.call",
    VaultAuthorities "vault.authorities",
    VaultClient "vault.client",
    VaultSeal "vault.seal",
    VaultOpen "vault.open",
    VaultStretch "vault.stretch",
    VaultDataKey "vault.data_key",
    VaultUnwrapKey "vault.unwrap_key",
    EtcdCall "etcd.call",
    HostHostname "host.hostname",
    HostDefaultAddress "host.default_address",
    HostProgram "host.program",
}

/// One call to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `objects.put`: port and method.
    pub name: &'static str,
    /// What it is about: a key, a path, a unit. Never a secret.
    pub subject: String,
    /// Whether it may change something outside this process.
    pub changes: bool,
    /// How long it may take; `None` for synchronous calls.
    pub deadline: Option<Duration>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.subject)
    }
}

/// What a gate says before a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Pass,
    /// The call fails with this.
    Refuse(Failure),
    /// The process died here: an asynchronous call never returns, a synchronous one fails with `Internal`, and so
    /// does every later one.
    Die,
}

/// What a gate says after a call: whether its answer is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The caller gets its answer.
    Deliver,
    /// The process died after the call took effect.
    Die,
}

/// Sees each call before and after it. Calls of concurrent futures interleave; the ticket tells them apart.
pub trait Gate {
    /// Before the call.
    fn before(&self, call: &Call, ticket: u64) -> Admission;
    /// After the call; `result` is its failure, if it failed.
    fn after(&self, call: &Call, ticket: u64, result: Result<(), &Failure>) -> Delivery;
}

/// Refuses every call that changes something: `plan`, `doctor`, `status`.
#[derive(Debug, Default)]
pub struct ReadOnly;

impl Gate for ReadOnly {
    fn before(&self, call: &Call, _ticket: u64) -> Admission {
        if call.changes {
            let why = "this command changes nothing";
            Admission::Refuse(Failure::new(Cause::Internal, format!("call {call}"), why))
        } else {
            Admission::Pass
        }
    }

    fn after(&self, _call: &Call, _ticket: u64, _result: Result<(), &Failure>) -> Delivery {
        Delivery::Deliver
    }
}

/// Lets everything pass; for tests that look at nothing.
#[derive(Debug, Default)]
pub struct Open;

impl Gate for Open {
    fn before(&self, _call: &Call, _ticket: u64) -> Admission {
        Admission::Pass
    }

    fn after(&self, _call: &Call, _ticket: u64, _result: Result<(), &Failure>) -> Delivery {
        Delivery::Deliver
    }
}

/// Several gates in one: the first that does not pass decides; all see the end.
pub struct Chain(pub Vec<Rc<dyn Gate>>);

impl Gate for Chain {
    fn before(&self, call: &Call, ticket: u64) -> Admission {
        let verdicts = self.0.iter().map(|gate| gate.before(call, ticket));
        verdicts.into_iter().find(|verdict| *verdict != Admission::Pass).unwrap_or(Admission::Pass)
    }

    fn after(&self, call: &Call, ticket: u64, result: Result<(), &Failure>) -> Delivery {
        let verdicts: Vec<Delivery> = self.0.iter().map(|gate| gate.after(call, ticket, result)).collect();
        if verdicts.contains(&Delivery::Die) { Delivery::Die } else { Delivery::Deliver }
    }
}

fn dead(call: &Call) -> Failure {
    Failure::new(Cause::Internal, format!("call {call}"), "the process was killed here")
}

/// Carries an asynchronous call through the gate, under its deadline.
pub(crate) async fn pass<T>(
    gate: &dyn Gate,
    time: &dyn Time,
    ticket: u64,
    call: Call,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match gate.before(&call, ticket) {
        Admission::Pass => {}
        Admission::Refuse(failure) => return Err(failure),
        Admission::Die => return std::future::pending().await,
    }
    let result = match call.deadline {
        None => work.await,
        Some(deadline) => match select(pin!(work), pin!(time.sleep(deadline))).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => Err(Failure::new(
                Cause::Deadline,
                format!("call {call}"),
                format!("no answer within {} s", deadline.as_secs()),
            )),
        },
    };
    match gate.after(&call, ticket, result.as_ref().map(|_| ())) {
        Delivery::Deliver => result,
        Delivery::Die => std::future::pending().await,
    }
}

/// Carries a synchronous call through the gate.
pub(crate) fn pass_sync<T>(gate: &dyn Gate, ticket: u64, call: &Call, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    match gate.before(call, ticket) {
        Admission::Pass => {}
        Admission::Refuse(failure) => return Err(failure),
        Admission::Die => return Err(dead(call)),
    }
    let result = work();
    match gate.after(call, ticket, result.as_ref().map(|_| ())) {
        Delivery::Deliver => result,
        Delivery::Die => Err(dead(call)),
    }
}
