//! Released files for machines without a network: a folder, or one `.tar` of the same content.
//!
//! ```text
//! index.json                                    schema, architecture, what is in it
//! files/<component>/<version>/<arch>/<file>     as released
//! images/<name>.tar                             image archives, optional
//! ```
//!
//! **The index is no authority.** What a file must contain comes from the configuration or from the lock, and an index
//! that says otherwise is refused: who can change the bundle can change its index. Only when its own SHA-256 was given
//! ([`Bundle::open`]; `--download-only` prints it) does the index count, for what neither of them knows. Image archives
//! are known by nothing else: only out of a bundle whose index was pinned are they imported.
//!
//! A folder that is copied below `install/` of the store is what `from_store` reads.

mod index;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use index::{Image, Index, Listed, SCHEMA};
pub use read::Bundle;
pub use write::{ImageArchive, write};
