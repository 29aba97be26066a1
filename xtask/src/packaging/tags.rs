//! `packer/scripts/tag.sh`, with a program in the place of `aws` that writes down what it was asked for.

use super::{expect, put};
use crate::process::workspace;
use kubestrap_lab::command::{Finished, finish};
use kubestrap_lab::{Result, attempted, fail};
use std::path::Path;
use std::process::Command;

const AWS: &str = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$CALLS\"\n[ ! -e \"$CALLS.refuse\" ]\n";

pub(super) fn judge() -> Result<()> {
    let folder = attempted(tempfile::tempdir(), "make a folder")?;
    let place = folder.path();
    put(&place.join("bin/aws"), AWS, 0o755)?;
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let manifest = "{\n \"builds\": [\n  {\n   \"artifact_id\": \"eu-central-1:ami-0a,us-east-1:ami-0b\"\n  }\n ]\n}\n";

    let done = tag(place, manifest, &digest)?;
    expect(&done, 0, &["eu-central-1:ami-0a", "us-east-1:ami-0b"], "tag.sh")?;
    let calls = std::fs::read_to_string(place.join("calls"))?;
    let tags = format!("--tags Key=kubestrap:content,Value={digest} Key=kubestrap:image,Value=node");
    let wanted = format!(
        "ec2 create-tags --region eu-central-1 --resources ami-0a {tags}\nec2 create-tags --region us-east-1 --resources ami-0b {tags}\n"
    );
    if calls != wanted {
        return fail(format!("tag.sh asked for\n{calls}instead of\n{wanted}"));
    }

    for (manifest, content, complaint) in [
        (manifest, "sha256:abc", "is no digest"),
        (manifest, "", "is no digest"),
        (manifest, "sha256:zzzz", "is no digest"),
        ("{}", digest.as_str(), "names no image"),
        ("\"artifact_id\": \"build/disk.qcow2\"", digest.as_str(), "no image of EC2"),
    ] {
        std::fs::remove_file(place.join("calls")).ok();
        expect(&tag(place, manifest, content)?, 1, &[complaint], &format!("tag.sh with {content:?} and {manifest:?}"))?;
        if place.join("calls").exists() {
            return fail(format!("tag.sh called aws with {content:?} and {manifest:?}"));
        }
    }
    put(&place.join("calls.refuse"), "", 0o600)?;
    expect(&tag(place, manifest, &digest)?, 1, &["has no tags"], "tag.sh when EC2 refuses")?;
    println!("packer/: tag.sh sets both tags in one call, and only whole digests");
    Ok(())
}

fn tag(place: &Path, manifest: &str, content: &str) -> Result<Finished> {
    put(&place.join("manifest.json"), manifest, 0o600)?;
    put(&place.join("content"), content, 0o600)?;
    let path = format!("{}:/usr/bin:/bin", place.join("bin").display());
    let mut command = Command::new("sh");
    command.arg(workspace().join("packer/scripts/tag.sh")).env("PATH", path).env("CALLS", place.join("calls"));
    command.env("IMAGE_MANIFEST", place.join("manifest.json")).env("IMAGE_CONTENT", place.join("content"));
    finish(command.env("IMAGE_NAME", "node"))
}
