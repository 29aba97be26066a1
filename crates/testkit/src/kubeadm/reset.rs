//! `kubeadm reset`: removes what the real one removes, and stops the API stand-in of the root.

use super::config::load_reset;
use super::documents::ResetConfiguration;
use super::flags::Flags;
use super::join_control_plane::leave_etcd;
use super::{Failure, Run, kubelet};
use crate::{apiserver, files};

/// `kubeadm reset [-f] [--config F]`.
///
/// # Errors
/// When it is not confirmed, or a folder can not be cleaned.
pub fn main(run: &Run, flags: &Flags) -> Result<(), Failure> {
    let config = match flags.text("config") {
        Some(_) => load_reset(&run.config_path(flags)?)?,
        None => ResetConfiguration::default(),
    };
    run.phase("preflight", || if flags.is_set("force") || config.force { Ok(()) } else { confirm() })?;
    run.phase("remove-etcd-member", || {
        println!("[reset] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
        if run.path(crate::etcd::MANIFEST).exists()
            && let Err(why) = leave_etcd(run)
        {
            eprintln!(
                "W [reset] Failed to remove etcd member: {why}, please manually remove this etcd member using etcdctl"
            );
        }
        // As the real one: `/var/lib/etcd` is emptied even when there is no etcd manifest.
        println!("[reset] Deleted contents of the etcd data directory: /var/lib/etcd");
        if kubelet::is_a_service(&run.root) {
            kubelet::service("stop")?;
        }
        apiserver::stop(&run.root)?;
        Ok(files::clean_folder(&run.path("/var/lib/etcd"))?)
    })?;
    run.phase("cleanup-node", || cleanup(run, &config))?;
    println!(
        "\nThe reset process does not perform cleanup of CNI plugin configuration,\nnetwork filtering rules and \
         kubeconfig files.\n"
    );
    Ok(())
}

fn confirm() -> Result<(), Failure> {
    println!("W [reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' will be reverted.");
    print!("[reset] Are you sure you want to proceed? [y/N]: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::new("won't proceed; the user didn't answer (Y|y) in order to continue"))
}

fn cleanup(run: &Run, config: &ResetConfiguration) -> Result<(), Failure> {
    println!("[reset] Stopping the kubelet service");
    let certificates =
        if config.certificates_dir.is_empty() { "/etc/kubernetes/pki" } else { &config.certificates_dir };
    let folders = ["/etc/kubernetes/manifests", "/var/lib/kubelet", certificates];
    println!("[reset] Deleting contents of directories: [{}]", folders.join(" "));
    for folder in folders {
        files::clean_folder(&run.path(folder))?;
    }
    if config.cleanup_tmp_dir {
        files::clean_folder(&run.path("/etc/kubernetes/tmp"))?;
    }
    for name in ["admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler"] {
        let path = run.path(&format!("/etc/kubernetes/{name}.conf"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("failed to remove {}: {error}", path.display())));
            }
            _ => println!("[reset] Deleting file: /etc/kubernetes/{name}.conf"),
        }
    }
    Ok(())
}
