//! The agents of control planes, whose duty ticks until it is time.

use super::super::RenewDuty;
use super::world::Masters;
use crate::engine::Duty;
use crate::model::cause::Failure;
use crate::ports::Time;
use crate::store::fake::run;
use jiff::{SignedDuration, Timestamp};
use std::rc::Rc;
use std::time::Duration;

/// The agents of these machines.
pub struct Agents {
    pub masters: Rc<Masters>,
    duties: Vec<RenewDuty>,
    next: Vec<Timestamp>,
    /// Agents that are stopped.
    pub stopped: Vec<usize>,
    pub failures: Vec<Failure>,
}

impl Agents {
    pub fn of(masters: &Rc<Masters>) -> Agents {
        let count = masters.hosts.len();
        let next = vec![masters.lab.time.now(); count];
        let duties = (0..count).map(|_| RenewDuty::default()).collect();
        Agents { masters: masters.clone(), duties, next, stopped: Vec::new(), failures: Vec::new() }
    }

    /// Ticks for so long; an agent that died lives again after some seconds.
    pub fn live(&mut self, minutes: i64) {
        self.live_for(SignedDuration::from_mins(minutes));
    }

    pub fn live_for(&mut self, duration: SignedDuration) {
        let time = self.masters.lab.time.clone();
        let until = time.now() + duration;
        while let Some(index) = (0..self.next.len()).filter(|n| !self.stopped.contains(n)).min_by_key(|n| self.next[*n])
        {
            let at = self.next[index].max(time.now());
            time.pass(
                Duration::try_from(at.min(until).max(time.now()).duration_since(time.now())).expect("not the past"),
            );
            self.masters.look();
            if at >= until {
                break;
            }
            let (node, host) = (self.masters.node(index), self.masters.hosts[index].clone());
            let after = match run(self.duties[index].tick(&node)) {
                _ if host.dead.take() => {
                    host.kill.set(None);
                    self.duties[index] = RenewDuty::default();
                    Duration::from_secs(5)
                }
                Some(Ok(after)) => after,
                Some(Err(failure)) => {
                    self.failures.push(failure);
                    Duration::from_secs(20)
                }
                None => panic!("a tick that does not end"),
            };
            self.next[index] = time.now() + SignedDuration::try_from(after).expect("a short time");
        }
    }
}
