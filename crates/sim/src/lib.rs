//! A simulated world for `kubestrap-core`: the real steps, duties and store protocol, on ports that lose, delay and lie
//! within what the real world may do, under virtual time.
//!
//! A seed is a whole history: [`run_seed`] twice gives the same digest. A seed that breaks a rule is run again with
//! its events kept, and says how to run it once more. Many: `cargo xtask simulate --seeds 100000`; the whole story of
//! one: `cargo xtask simulate --scenario storm --seed 17 --story`.
//!
//! # Where things are
//! * `timeline` and `run`: virtual time and the executor. An agent is one future; killing it is dropping it. What the
//!   world does by itself (a write that lands, a phase of kubeadm) is an entry of the timeline, so it goes on when the
//!   agent that began it is dead.
//! * `universe`, `machine`, `disk`, `store`, `cluster`, `kubeadm`: what exists. `ports`: how one machine sees it.
//! * `gate`: kills before, after and within calls. `calamity`: reboots, stalls, deaths, lifecycle rules, intruders.
//! * `invariants`: the safety rules of the design, judged where their event happens, with the whole truth at hand.
//!
//! # To add
//! * **A fault of requests**: a rate in [`scenario::Rates`], drawn with `Universe::unlucky` in the port it belongs to.
//!   It must be something that the port's contract allows; an answer that cannot happen proves nothing.
//! * **A calamity**: a variant of [`scenario::Calamity`] and an arm in `calamity::strike`.
//! * **An invariant**: a `judge_*` method below `invariants`, called where its event takes effect; count the event
//!   (`Universe::count`), so that a scenario in which it never happens is seen. Then a mutant in
//!   `tests/mutants/mutants.yaml` that breaks the rule: an invariant that catches nothing is decoration.
//! * **A scenario**: an entry of [`scenario::all`] and a test in `tests/seeds.rs`. What may be refused at its end is
//!   listed in its `refusals`; everything else must have become a node (`invariants/settled.rs`).
//!
//! # What is not modelled
//! One process per state directory (flock), file owners, full disks, DNS and TLS, addons, other kubeadm versions, and
//! further control planes (masters after the first refuse or wait). Those have tests of their own.

mod agent;
mod calamity;
mod campaign;
mod clock;
mod cluster;
mod disk;
mod faults;
mod gate;
mod idle;
mod invariants;
pub mod killpoints;
mod kubeadm;
mod machine;
mod minimise;
mod network;
mod operator;
mod ports;
mod rng;
mod run;
pub mod scenario;
mod store;
mod story;
mod timeline;
mod trace;
mod universe;

pub use campaign::{Campaign, TELLING, campaign};
pub use idle::{IdleHour, idle_hour};
pub use minimise::{left_out, minimise};
pub use run::{Summary, run_seed, tell};
pub use scenario::Scenario;
pub use story::Violation;
