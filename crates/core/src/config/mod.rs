//! Configuration in three stages: fragments (one YAML document each, with the place of every value), the merged tree
//! (later layers win, every value with its origin), and validated [`settings::Settings`].

pub mod settings;
