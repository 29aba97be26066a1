//! Rules 4 and 9, on the publisher's side: a bundle in the store names the committed cluster and a token that works.

use super::CLUSTER;
use crate::store::{Stored, Writer};
use crate::universe::Universe;
use kubestrap_core::model::bundle::JoinBundle;
use serde_json::Value;

impl Universe {
    pub(super) fn judge_bundle(&self, writer: Writer, before: Option<&Stored>, after: Option<&Stored>) {
        let Writer::Node(machine) = writer else { return };
        let name = &self.machines[machine].name;
        let Some(object) = after else { return };
        let bundle: JoinBundle = match serde_json::from_slice(&object.body) {
            Ok(bundle) => bundle,
            Err(error) => return self.violate(4, format!("{name} published a broken bundle: {error}")),
        };
        self.count("bundles");
        let committed = self.monitor.borrow().committed.clone();
        if committed.as_ref().map(|(uid, ca, _)| (uid, ca)) != Some((&bundle.uid, &bundle.ca_sha256)) {
            self.violate(4, format!("{name} published a bundle of a cluster that was never committed"));
        }
        if bundle.cluster != CLUSTER || bundle.endpoint.as_str() != crate::cluster::ENDPOINT {
            self.violate(4, format!("{name} published a bundle of {} at {}", bundle.cluster, bundle.endpoint));
        }
        let publisher = |object: &Stored| {
            let before: Option<JoinBundle> = serde_json::from_slice(&object.body).ok();
            self.machine_of(&before?.publisher).map(|machine| machine.index)
        };
        let successor = before.and_then(publisher).is_some_and(|of| of != machine && self.machines[of].is_dead());
        if successor {
            self.count("refreshed-by-successor");
        }
        let sequence = |object: &Stored| {
            let value: Option<Value> = serde_json::from_slice(&object.body).ok();
            value.and_then(|value| value.get("sequence")?.as_u64())
        };
        if before.and_then(sequence).is_some_and(|before| bundle.sequence <= before) {
            self.violate(4, format!("{name} published an older sequence number"));
        }
    }
}
