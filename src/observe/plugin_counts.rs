//! How the invocations of the kubelet's plugin ended: other processes, which leave their counts in a folder.

use crate::adapters::token_cache::{ENDS, TokenCache};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Looked at when somebody reads the metrics.
#[derive(Debug)]
pub struct PluginCounts(pub TokenCache);

impl Collector for PluginCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Invocations of the kubelet's plugin for ECR since the boot by how they ended";
        let mut metric = encoder.encode_descriptor("ecr_plugin_invocations", help, None, MetricType::Counter)?;
        for (end, count) in ENDS.iter().zip(self.0.counts()) {
            ConstCounter::new(count).encode(metric.encode_family(&[("end", *end)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn what_the_plugins_counted_is_shown_and_nothing_is_nought() {
        let home = tempfile::tempdir().expect("folder");
        let cache = TokenCache::new(home.path(), 0);
        cache.count("hit");
        cache.count("hit");
        let mut registry = Registry::with_prefix("kubestrap");
        registry.register_collector(Box::new(PluginCounts(cache)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        assert!(text.contains("kubestrap_ecr_plugin_invocations_total{end=\"hit\"} 2\n"), "{text}");
        assert!(text.contains("kubestrap_ecr_plugin_invocations_total{end=\"failed\"} 0\n"), "{text}");
    }
}
