//! Asking ECR for a login, within a deadline.

use super::token::Login;
use crate::model::cause::{Cause, Failure, Outcome};
use crate::ports::{Cloud, Time, TokenRequest};
use std::time::Duration;

/// The first pause between two attempts; each is twice the one before, less up to half by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Asks until there is an answer, a failure that waiting cannot mend, or `patience` is over. The pauses differ by
/// chance, for a scale-up starts many nodes at once (kubernetes#37962).
///
/// Missing permission is not waited for here: that a role is being attached is the bootstrap's matter.
pub async fn login(cloud: &dyn Cloud, time: &dyn Time, request: &TokenRequest, patience: Duration) -> Outcome<Login> {
    let began = time.uptime();
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match cloud.registry_token(request).await.and_then(|token| Login::read(&token, time.now())) {
            Ok(login) => return Ok(login),
            Err(failure) => failure,
        };
        let next = jittered(time, pause);
        if !is_worth_repeating(&failure) || time.uptime().saturating_sub(began) + next >= patience {
            return Err(failure);
        }
        time.sleep(next).await;
        pause *= 2;
    }
}

fn is_worth_repeating(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Throttled | Cause::CloudUnavailable | Cause::Network | Cause::Dns | Cause::Deadline)
}

fn jittered(time: &dyn Time, pause: Duration) -> Duration {
    let mut byte = [0];
    time.random(&mut byte);
    pause - pause.mul_f64(f64::from(byte[0]) / 512.0)
}
