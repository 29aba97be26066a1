//! What the keys of a simulated cluster are sealed with: a KMS key on EC2, a file on bare metal.

use crate::disk::Disk;
use crate::scenario::Ground;
use kubestrap_core::config::settings::PkiSettings;
use std::path::PathBuf;

/// The KMS key of the account.
pub const KMS_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/5d1f7b0e-2f5c-4b52-9d5c-0e5e5f3f7a11";
/// The key file of a master of bare metal.
const KEY_FILE: &str = "/etc/kubestrap/pki.key";
/// The same on every master: base64 of 32 bytes.
const KEY: &str = "c2ltdWxhdGVkIGtleSBvZiBleGFjdGx5IDMyIGJ5dGU=\n";

/// The setting `pki` of a master.
pub fn key(ground: Ground) -> PkiSettings {
    match ground {
        Ground::Ec2 => PkiSettings::Kms(KMS_KEY.to_owned()),
        Ground::Host => PkiSettings::KeyFile(PathBuf::from(KEY_FILE)),
    }
}

/// What a master has on its disk for it.
pub fn furnish(disk: &mut Disk, ground: Ground) {
    if ground == Ground::Host {
        disk.put(KEY_FILE, KEY, 0o600);
    }
}
