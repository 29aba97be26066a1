//! `refresh-registry-credentials`: containerd's own pulls (sandbox image, kubeadm's images) have a login that lives.
//!
//! What is known of a login stands in its file, so a restarted agent does not ask again for what it has.

use crate::ecr::host::Api;
use crate::ecr::hosts_toml::Times;
use crate::ecr::logins::{self, HostFile, State};
use crate::ecr::token::Login;
use crate::engine::{Backoff, Duty};
use crate::journal::Journal;
use crate::kubeadm::machine::Machine;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::node::{Event, Node};
use crate::ports::TokenRequest;
use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// How often files are looked at, so that a clock that jumped, a file that vanished and a host that was taken out of the
/// configuration do not wait for the next login.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);
/// What only a person mends, in IAM: it is asked again at this distance.
const DENIED_AGAIN: Duration = Duration::from_secs(60 * 60);
/// A request has 20 s, and there is one for each region at the same time.
const DEADLINE: Duration = Duration::from_secs(60);

/// Gets logins and writes them where containerd reads them.
#[derive(Default)]
pub(super) struct RegistryDuty {
    troubles: RefCell<BTreeMap<Api, Trouble>>,
    /// What was told once in this life.
    told: RefCell<BTreeSet<String>>,
}

/// An API that gave no login.
#[derive(Clone)]
struct Trouble {
    cause: Cause,
    /// By the machine's uptime.
    again_at: Duration,
    backoff: Backoff,
}

#[async_trait(?Send)]
impl Duty for RegistryDuty {
    fn name(&self) -> &'static str {
        "refresh-registry-credentials"
    }

    fn runs_during_bootstrap(&self) -> bool {
        true
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }

    async fn tick(&self, node: &Node) -> Outcome<Duration> {
        let journal = Journal::new(node.world.files.clone(), node.world.time.clone());
        let machine = Machine::look(&*node.world.files)?;
        if machine.refuse_foreign(journal.attempt()?.as_ref(), "use this machine").is_err() {
            // The bootstrap refuses it; nothing is changed there.
            return Ok(LOOK_EVERY);
        }
        let targets = logins::targets(&node.settings, &node.identity);
        self.sweep(node, &targets)?;
        let kept = join_all(targets.iter().map(|(api, hosts)| self.keep(node, api, hosts))).await;
        let living = living(node, &targets)?;
        node.update(|status| status.registry_login_expires_at = living);
        // One API that fails does not keep the others from their time, nor is it told twice.
        let mut next = LOOK_EVERY;
        for result in kept {
            next = next.min(result?);
        }
        Ok(next)
    }
}

impl RegistryDuty {
    /// Removes logins of hosts that are no longer wanted: nobody would renew them, and a dead one makes even public
    /// pulls fail.
    fn sweep(&self, node: &Node, targets: &BTreeMap<Api, Vec<String>>) -> Outcome<()> {
        let (files, certs_dir) = (&*node.world.files, node.settings.ecr.certs_dir());
        let mut wanted = BTreeSet::<PathBuf>::new();
        for host in targets.values().flatten() {
            wanted.insert(logins::find(files, certs_dir, host)?.path);
        }
        for path in logins::all_ours(files, certs_dir)?.iter().filter(|path| !wanted.contains(*path)) {
            files.remove(path)?;
        }
        Ok(())
    }

    /// Sees that every host of an API has a login, and says when to come again.
    async fn keep(&self, node: &Node, api: &Api, hosts: &[String]) -> Outcome<Duration> {
        let now = node.world.time.now();
        let files = self.ours(node, hosts)?;
        if files.is_empty() {
            return Ok(LOOK_EVERY);
        }
        let refresh_at = files.iter().map(|file| file.state.living(now).map(|times| times.refresh_at)).min().flatten();
        if let Some(at) = refresh_at.filter(|at| *at > now) {
            return Ok(until(now, at));
        }
        // A dead one is written over when there is a new one, and taken away when there is none.
        let bury = || {
            let mut dead = files.iter().filter(|file| is_dead(&file.state, now));
            dead.try_for_each(|file| node.world.files.remove(&file.path))
        };
        let uptime = node.world.time.uptime();
        let again_at = self.troubles.borrow().get(api).map_or(Duration::ZERO, |trouble| trouble.again_at);
        if uptime < again_at {
            bury()?;
            let ends = first_end(&files, now).map_or(LOOK_EVERY, |at| until(now, at));
            return Ok((again_at - uptime).min(ends));
        }
        match renew(node, api, hosts).await {
            Ok(refresh_at) => {
                if self.troubles.borrow_mut().remove(api).is_some() {
                    node.tell(&Event::Note(&format!("{api} gives logins again")));
                }
                Ok(until(node.world.time.now(), refresh_at))
            }
            Err(failure) => {
                bury()?;
                let left = first_end(&files, now).map(|at| until(now, at));
                let after = self.trouble(node, api, &failure, left);
                // A login that ends in the meantime is taken away then, and not later.
                Ok(left.map_or(after, |left| after.min(left)))
            }
        }
    }

    /// The files that are ours to write; others are told of once.
    fn ours(&self, node: &Node, hosts: &[String]) -> Outcome<Vec<HostFile>> {
        let mut ours = Vec::new();
        for host in hosts {
            let file = logins::find(&*node.world.files, node.settings.ecr.certs_dir(), host)?;
            match &file.state {
                State::Foreign(why) => {
                    if self.told.borrow_mut().insert(host.clone()) {
                        node.tell(&Event::Note(&format!("containerd gets no login for {host}: {why}")));
                    }
                }
                _ => ours.push(file),
            }
        }
        Ok(ours)
    }

    /// Notes a failure, tells it when it is news, and says when to come again; `left` is what the old
    /// login has to live.
    fn trouble(&self, node: &Node, api: &Api, failure: &Failure, left: Option<Duration>) -> Duration {
        let before = self.troubles.borrow().get(api).cloned();
        let is_news = before.as_ref().is_none_or(|before| before.cause != failure.cause);
        let mut backoff = before.filter(|_| !is_news).map_or_else(Backoff::default, |before| before.backoff);
        let after = node.jitter(match (failure.cause, left) {
            (Cause::AccessDenied, _) => DENIED_AGAIN,
            // ECR may be in trouble, and nobody waits for it yet; the nearer the end, the more urgent it is.
            (_, Some(left)) => (backoff.step() * 10).min(left / 2),
            (_, None) => backoff.step(),
        });
        // The same again is in the metrics; the log says it once.
        if is_news {
            node.tell(&Event::Retrying { what: self.name(), beside: true, failure, after });
        }
        let again_at = node.world.time.uptime() + after;
        self.troubles.borrow_mut().insert(api.clone(), Trouble { cause: failure.cause, again_at, backoff });
        after.min(LOOK_EVERY)
    }
}

/// Asks for a login and writes it for every host: when the next one is due.
async fn renew(node: &Node, api: &Api, hosts: &[String]) -> Outcome<Timestamp> {
    let request = TokenRequest { api: api.clone(), role: None };
    let token = node.world.cloud.registry_token(&request).await?;
    let now = node.world.time.now();
    let login = Login::read(&token, now)?;
    let life = login.life(now);
    if life.is_zero() {
        let why = "the token it gave is dead already, or nearly so";
        return Err(Failure::new(Cause::CloudUnavailable, format!("get a login of {api}"), why)
            .advise("check this machine's clock; a login that ECR has just given lives for 12 hours"));
    }
    // At half of its life, a tenth of that earlier or later: machines that started together do not ask together.
    let spread = life / 10;
    let wait = (life / 2).saturating_sub(spread) + node.jitter(spread);
    let times = Times { expires_at: second(login.expires_at), refresh_at: second(later(now, wait)) };
    for host in hosts {
        // What is there may have changed while ECR was asked.
        let file = logins::find(&*node.world.files, node.settings.ecr.certs_dir(), host)?;
        logins::write(&*node.world.files, &file, &login.basic(), times)?;
    }
    Ok(times.refresh_at)
}

/// Whether it is a login of ours that no longer opens anything.
fn is_dead(state: &State, now: Timestamp) -> bool {
    matches!(state, State::Ours { .. }) && state.living(now).is_none()
}

/// When the first of these logins ends, of those that live.
fn first_end(files: &[HostFile], now: Timestamp) -> Option<Timestamp> {
    files.iter().filter_map(|file| file.state.living(now)).map(|times| times.expires_at).min()
}

/// When the first of all logins that live ends.
fn living(node: &Node, targets: &BTreeMap<Api, Vec<String>>) -> Outcome<Option<Timestamp>> {
    let certs_dir = node.settings.ecr.certs_dir();
    let hosts = targets.values().flatten();
    let files: Vec<HostFile> =
        hosts.map(|host| logins::find(&*node.world.files, certs_dir, host)).collect::<Outcome<_>>()?;
    Ok(first_end(&files, node.world.time.now()))
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    left.clamp(Duration::from_secs(1), LOOK_EVERY)
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(SignedDuration::try_from(wait).unwrap_or_default()).unwrap_or(Timestamp::MAX)
}

/// Without a fraction: it is for people too.
fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
