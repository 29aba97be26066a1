//! A service with a budget, and somebody who asks it all the time.

use super::super::support::expect;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::{Result, fail};
use std::time::Duration;

const NAME: &str = "web";
const REPLICAS: u64 = 3;
/// Pods on nodes that have just become Ready.
const START: Duration = Duration::from_secs(120);
/// Where the prober writes: the time, and the status.
const PROBES: &str = "/root/probes";
/// Every quarter of a second; no answer in two seconds is a failure, whose status curl calls 000.
const PROBE: &str = r#"#!/bin/sh
while :; do
    code=$(curl -s -o /dev/null -w '%{http_code}' --max-time 2 "$1")
    echo "$(date +%T.%3N) $code" >>/root/probes
    sleep 0.25
done
"#;

/// The service, as the cluster's master sees it.
pub struct Web {
    master: Machine,
}

impl Web {
    /// Starts it, with a budget that always wants so many pods; returns when all its pods answer.
    pub fn start(lab: &Lab, master: &Machine, at_least: u64) -> Result<Web> {
        let image = master.shell("ctr -n k8s.io images ls -q | grep -m1 '/etcd:'")?;
        master.write("/root/web.yaml", &manifest(image.trim(), at_least), 0o644)?;
        // The controller that makes service accounts is among the last to start.
        master
            .until("to take the service", START, |machine| machine.shell("kubectl apply -f /root/web.yaml").is_ok())?;
        let web = Web { master: master.clone() };
        web.is_whole()?;
        let address = master.shell("kubectl get service web -o 'jsonpath={.spec.clusterIP}'")?;
        master.write("/root/probe", PROBE, 0o755)?;
        let url = format!("http://{address}/health");
        master.until("to answer at the service's address", START, |machine| {
            machine.shell(&format!("curl -sf --max-time 2 {url}")).is_ok()
        })?;
        master.shell(&format!("systemd-run --quiet --unit=lab-probe /root/probe {url}"))?;
        lab.say(&format!("{REPLICAS} pods answer at {url}; their budget wants {at_least}; it is asked all the time"));
        Ok(web)
    }

    /// Changes its budget.
    pub fn budget(&self, at_least: u64) -> Result<()> {
        let patch = format!(
            "kubectl patch poddisruptionbudget {NAME} --type merge -p '{{\"spec\":{{\"minAvailable\":{at_least}}}}}'"
        );
        self.master.shell(&patch).map(drop)
    }

    /// All its pods answer.
    pub fn is_whole(&self) -> Result<()> {
        self.master.shell(&format!("kubectl rollout status deployment/{NAME} --timeout=120s")).map(drop)
    }

    /// Every question so far was answered: how many.
    pub fn never_failed(&self) -> Result<usize> {
        let text = self.master.read(PROBES).unwrap_or_default();
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::trim).collect();
        let failed: Vec<&&str> = lines.iter().filter(|line| !line.ends_with(" 200")).collect();
        expect(failed.is_empty(), &format!("{} questions, none without an answer: {failed:?}", lines.len()))?;
        if lines.is_empty() { fail("nobody asked the service") } else { Ok(lines.len()) }
    }
}

/// etcd, for it is the one image of Kubernetes that answers plain HTTP without a cluster.
fn manifest(image: &str, at_least: u64) -> String {
    let list = [
        serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": NAME },
            "spec": { "replicas": REPLICAS, "selector": { "matchLabels": { "app": NAME } }, "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": { "matchLabels": { "app": NAME } },
                    }],
                    "terminationGracePeriodSeconds": 20,
                    "containers": [{
                        "name": NAME, "image": image, "imagePullPolicy": "Never",
                        "command": [
                            "etcd", "--data-dir=/data", "--unsafe-no-fsync", "--listen-client-urls=http://0.0.0.0:8080",
                            "--advertise-client-urls=http://127.0.0.1:8080", "--listen-peer-urls=http://127.0.0.1:8081",
                        ],
                        "readinessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "periodSeconds": 1 },
                        // Those who still know its address are answered meanwhile.
                        "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } },
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                    }],
                    "volumes": [{ "name": "data", "emptyDir": {} }],
                },
            } },
        }),
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": NAME },
            "spec": { "selector": { "app": NAME }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }),
        serde_json::json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": NAME },
            "spec": { "minAvailable": at_least, "selector": { "matchLabels": { "app": NAME } } },
        }),
    ];
    list.map(|document| format!("---\n{document}\n")).concat()
}
