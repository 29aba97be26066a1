//! A simulated world for `kubestrap-core`: the real steps, duties and store protocol, on ports that lose, delay and lie
//! within what the real world may do, under virtual time.
//!
//! A seed is a whole history: [`run_seed`] twice gives the same digest. A seed that breaks a rule is run again with its
//! events kept, and is told as a story: what was broken, by whom, and what led to it. `cargo xtask simulate` runs ten
//! thousand seeds (CI does), or `--seeds 1000000`; for a broken rule it looks for the smallest scenario that breaks it
//! too. The whole story of one: `cargo xtask simulate --scenario storm --seed 17 --story`.
//!
//! # Where things are
//! * `timeline` and `run`: virtual time and the executor. An agent is one future; killing it is dropping it. What the
//!   world does by itself (a write that lands, a phase of kubeadm) is an entry of the timeline, so it goes on when the
//!   agent that began it is dead.
//! * `universe`, `machine`, `clock`, `disk`, `store`, `network`, `cluster`, `members` (of etcd), `kubeadm`, `images`: what
//!   exists. `ports`: how one machine sees it. `operator`: the person with kubestrap's own tools.
//! * `faults`: what goes wrong by chance with one request. `gate`: kills before, after and within calls. `calamity`:
//!   what befalls machines and the store at random times.
//! * `invariants`: the safety rules of the design, judged where their event happens, with the whole truth at hand.
//! * `scenario`, `campaign`, `story`, `minimise`: what is run, whether it showed anything, and how a failure is told.
//!
//! # To add
//! * **A fault of requests**: a line in `faults!`, its rate in [`scenario::Rates`], drawn with `Universe::strikes` in the
//!   port it belongs to, which counts it. It must be something that the port's contract allows; an answer that cannot
//!   happen proves nothing.
//! * **A calamity**: a variant of [`scenario::Calamity`] with its name, and an arm in `calamity::strike`, which counts it.
//! * **An invariant**: a `judge_*` method below `invariants`, called where its event takes effect; count the event
//!   (`Universe::count`). Then a mutant in `tests/mutants/mutants.yaml` that breaks the rule: an invariant that catches
//!   nothing is decoration.
//! * **A scenario**: an entry of [`scenario::all`] and a line in `tests/seeds.rs`. What may be refused at its end is
//!   listed in its `refusals`; everything else must have become a node (`invariants/settled.rs`). What it is for is
//!   listed in its `must`: a campaign in which that, or one of its faults and calamities, was never counted fails.
//!
//! # What is not modelled
//! One process per state directory (flock), file owners, DNS and TLS, proxies, addons, and other kubeadm versions. A disk
//! that is full refuses whole writes; a power cut loses nothing that was acknowledged. S3 is strongly consistent here, as
//! it is. Those have tests of their own.
//!
//! Several masters are modelled where a scenario says `pki`; in the others those after the first refuse or wait. Members of
//! etcd vote and are counted, but there is one copy of what they keep: one that is cut off answers nothing stale, and data
//! is never behind. The endpoint's balancer knows at once who answers. A machine is cut off from everybody or nobody.

pub mod account;
mod agent;
mod calamity;
mod campaign;
mod clock;
mod cluster;
mod disk;
mod faults;
mod fleet;
mod gate;
mod idle;
mod images;
mod invariants;
pub mod killpoints;
mod kubeadm;
mod leader;
mod leaving;
mod machine;
mod members;
mod minimise;
mod network;
mod objects;
mod operator;
mod pods;
mod ports;
mod rng;
mod run;
pub mod scenario;
mod sealing;
mod store;
mod story;
mod timeline;
mod trace;
mod universe;

pub use campaign::{Campaign, TELLING, campaign};
pub use idle::{IdleHour, idle_hour};
pub use minimise::minimise;
pub use run::{Summary, run_seed, tell};
pub use scenario::Scenario;
pub use story::Violation;
