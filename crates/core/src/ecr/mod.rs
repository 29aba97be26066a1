//! ECR credentials: which hosts are ECR's, what the kubelet's plugin is asked and answers, and how long a login lives.
//!
//! Pure decisions, and the one operation that asks ECR ([`fetch`]). The plugin and the agent use the same.

pub mod cache;
pub mod fetch;
pub mod host;
pub mod hosts_toml;
pub mod image;
pub mod logins;
pub mod plugin;
pub mod provider_config;
pub mod token;
pub mod wiring;
