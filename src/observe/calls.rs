//! Every call outside, in the log at debug level.

use kubestrap_core::gate::{Admission, Call, Delivery, Gate};
use kubestrap_core::model::cause::Failure;

/// Logs calls when they end. Subjects are keys, paths and unit names; never secrets.
pub struct CallLog;

impl Gate for CallLog {
    fn before(&self, _call: &Call, _ticket: u64) -> Admission {
        Admission::Pass
    }

    fn after(&self, call: &Call, _ticket: u64, result: Result<(), &Failure>) -> Delivery {
        match result {
            Ok(()) => tracing::debug!(call = call.name, subject = %call.subject, "call"),
            Err(failure) => tracing::debug!(call = call.name, subject = %call.subject, %failure, "call failed"),
        }
        Delivery::Deliver
    }
}
