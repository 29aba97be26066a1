//! ECR: gives logins, throttles, is away, denies while a policy is being changed, and gives what is nearly over.

use super::Desk;
use crate::faults::Fault;
use crate::invariants::Given;
use crate::network::Far;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use kubestrap_core::ecr::host::Api;
use kubestrap_core::model::cause::{Cause, Failure, Outcome};
use kubestrap_core::model::secret::Secret;
use kubestrap_core::ports::RegistryToken;

/// What is left of a login that is nearly over.
const NEARLY_OVER: SignedDuration = SignedDuration::from_secs(20);

impl Desk {
    /// A login for the machine.
    pub(super) async fn ask_ecr(&self, api: &Api) -> Outcome<RegistryToken> {
        let universe = &self.universe;
        self.there(Far::Cloud).await;
        if universe.strikes(Fault::TimeOut) {
            std::future::pending::<()>().await;
        }
        let failed = |cause, why| Err(Failure::new(cause, format!("get a token of {api}"), why));
        if universe.timeline.now() < universe.ecr_away_until.get() {
            universe.count("ecr-asked-in-outage");
            return failed(Cause::CloudUnavailable, "503 Service Unavailable");
        }
        if universe.strikes(Fault::EcrThrottled) {
            return failed(Cause::Throttled, "400 ThrottlingException");
        }
        if universe.strikes(Fault::EcrDenied) {
            universe.deny_login(self.machine);
            return failed(Cause::AccessDenied, "400 AccessDeniedException");
        }
        let life = if universe.strikes(Fault::EcrNearlyOver) {
            NEARLY_OVER
        } else {
            SignedDuration::try_from(universe.scenario.login_life).unwrap_or_default()
        };
        let mut password = [0; 32];
        universe.rng.fill(&mut password);
        let password = STANDARD.encode(password);
        universe.learn_secret(&password);
        let authorization = STANDARD.encode(format!("AWS:{password}"));
        let expires_at = universe.wall() + life;
        let given = Given { machine: self.machine, expires_at, authorization: authorization.clone() };
        universe.give_login(given);
        self.back(Far::Cloud).await;
        Ok(RegistryToken { authorization: Secret::new(authorization), expires_at: Some(expires_at) })
    }
}
