//! The Packer templates, by Debian's Packer 1.6.6: it validates offline. What it cannot read is left out here: the file
//! `plugins.pkr.hcl`, and lines between two marks. packer/README.md says which Packer makes images.

use crate::process::workspace;
use kubestrap_lab::command::{Finished, finish, program, run};
use kubestrap_lab::{Result, attempted, fail};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const NEWER_FILE: &str = "plugins.pkr.hcl";
const BEGIN: &str = "# Packer 1.8: begin";
const END: &str = "# Packer 1.8: end";
/// What those lines must say: IMDSv2 alone, and no further than the machine itself.
const METADATA: [&str; 3] = ["http_tokens=\"required\"", "http_put_response_hop_limit=1", "imds_support=\"v2.0\""];
const DISTRIBUTIONS: [&str; 4] = ["debian-12", "debian-13", "ubuntu-24.04", "amazon-linux-2023"];

pub(super) fn judge() -> Result<()> {
    let folder = workspace().join("packer");
    run(program("packer", &["fmt", "-check", "-diff"]).arg(&folder))?;
    let place = attempted(tempfile::tempdir(), "make a folder")?;
    let left_out = copy_readable(&folder, place.path())?;
    let written: String = left_out.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some(word) = METADATA.iter().find(|word| !written.contains(*word)) {
        return fail(format!("packer/aws.pkr.hcl: the lines for newer Packers do not say {word}"));
    }
    // What it uploads must exist.
    for name in ["archive.tar.gz", "config.yaml", "bundle.tar", "build/seed-key"] {
        super::put(&place.path().join(name), "", 0o600)?;
    }
    std::fs::create_dir_all(place.path().join("build/seed"))?;
    run(program("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f"]).arg(place.path().join("key")))?;
    std::fs::rename(place.path().join("key"), place.path().join("build/seed-key"))?;

    for (wrong, complaint) in [
        ("arch=aarch64", "x86_64 or arm64"),
        ("distribution=debian-11", "debian-12"),
        ("archive_sha256=abc", "64"),
        ("archive=absent.tar.gz", "absent.tar.gz"),
    ] {
        let done = validate(place.path(), &[wrong])?;
        super::expect(&done, 1, &[complaint], &format!("packer validate with {wrong}"))?;
    }
    for distribution in DISTRIBUTIONS {
        for arch in ["x86_64", "arm64"] {
            let variables = [format!("distribution={distribution}"), format!("arch={arch}")];
            let done = validate(place.path(), &[&variables[0], &variables[1]])?;
            done.success(format!("validate packer/ for {distribution} on {arch}"))?;
        }
    }
    launch_template(&folder)?;
    println!("packer/: formatted, and valid for {} distributions on two architectures", DISTRIBUTIONS.len());
    Ok(())
}

/// Copies what Packer 1.6.6 can read; returns the lines that it cannot.
fn copy_readable(from: &Path, to: &Path) -> Result<String> {
    let mut left_out = String::new();
    for entry in attempted(std::fs::read_dir(from), "read packer/")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".pkr.hcl") || name == NEWER_FILE {
            continue;
        }
        let text = attempted(std::fs::read_to_string(&path), format!("read packer/{name}"))?;
        let (kept, newer) = without_newer(&text)?;
        left_out.push_str(&newer);
        super::put(&to.join(name), &kept, 0o644)?;
    }
    run(program("cp", &["-r"]).arg(from.join("scripts")).arg(to))?;
    Ok(left_out)
}

/// The text without what stands between the marks, and that.
fn without_newer(text: &str) -> Result<(String, String)> {
    let (mut kept, mut newer, mut within) = (String::new(), String::new(), false);
    for line in text.lines() {
        match line.trim() {
            BEGIN if !within => within = true,
            END if within => within = false,
            BEGIN | END => return fail(format!("the marks {BEGIN:?} and {END:?} do not alternate")),
            _ => {
                let part = if within { &mut newer } else { &mut kept };
                part.push_str(line);
                part.push('\n');
            }
        }
    }
    if within { fail(format!("{END:?} is missing")) } else { Ok((kept, newer)) }
}

fn validate(folder: &Path, variables: &[&str]) -> Result<Finished> {
    // A later one wins. The checksum of the cloud image would be fetched.
    let zeros = "0".repeat(64);
    let archive_sha256 = format!("archive_sha256={zeros}");
    let usual = ["archive=archive.tar.gz", "config=config.yaml", "bundle=bundle.tar"];
    let usual = usual.into_iter().chain([archive_sha256.as_str(), "qemu_checksum=none", "qemu_image=/dev/null"]);
    let mut command = Command::new("packer");
    command.arg("validate").current_dir(folder).env("CHECKPOINT_DISABLE", "1").env("PACKER_NO_COLOR", "1");
    for variable in usual.chain(variables.iter().copied()) {
        command.args(["-var", variable]);
    }
    finish(command.arg("."))
}

/// The launch template that is shown: IMDSv2 alone, and one hop, or every pod would get the node's role.
fn launch_template(folder: &Path) -> Result<()> {
    let path = folder.join("launch-template.json");
    let text = attempted(std::fs::read_to_string(&path), "read packer/launch-template.json")?;
    let document: Value = attempted(serde_json::from_str(&text), "parse packer/launch-template.json")?;
    let options = &document["LaunchTemplateData"]["MetadataOptions"];
    if options["HttpTokens"] != "required" || options["HttpPutResponseHopLimit"] != 1 {
        return fail(format!("packer/launch-template.json: IMDSv2 with one hop is not required: {options}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_marks_is_left_out() {
        let text = format!("a\n  {BEGIN}\nb\n{END}\nc\n");
        assert_eq!(without_newer(&text).expect("marks"), ("a\nc\n".to_owned(), "b\n".to_owned()));
        for text in [format!("{BEGIN}\n"), format!("{END}\n"), format!("{BEGIN}\n{BEGIN}\n{END}\n")] {
            assert!(without_newer(&text).is_err(), "{text}");
        }
    }
}
