#!/bin/sh
# Removes from an image what must not be in it: what belongs to one machine, or to who baked it.
#
#   BAKE_THIS_MACHINE=yes clean.sh   this machine, which is then shut down: it forgets who it is
#   clean.sh FOLDER                  an image that is mounted there
#
# It changes nothing that was installed; check.sh says what is left.
set -eu

[ "$(id -u)" = 0 ] || { echo "clean: run this as root" >&2; exit 1; }
root=${1:-}
root=${root%/}
if [ -z "$root" ] && [ "${BAKE_THIS_MACHINE:-}" != yes ]; then
    echo "clean: say which folder, or BAKE_THIS_MACHINE=yes on a machine that becomes an image" >&2
    exit 1
fi
[ -d "$root/etc" ] || { echo "clean: $root has no /etc: not an image" >&2; exit 1; }

if [ -z "$root" ]; then
    # Whoever writes to what is removed below stops first. Some are absent, or were never started.
    systemctl stop kubestrap.service kubelet.service containerd.service 2>/dev/null || true
    systemctl stop syslog.socket rsyslog.service systemd-random-seed.service 2>/dev/null || true
    systemctl kill auditd.service 2>/dev/null || true
    # From here on the journal is in memory alone.
    journalctl --relinquish-var 2>/dev/null || true
    command -v cloud-init >/dev/null && cloud-init clean --logs
fi

# Everything in a folder; the folder stays, with its owner and mode.
empty() {
    for folder; do
        if [ -d "$root$folder" ]; then
            find "$root$folder" -xdev -mindepth 1 -delete
        fi
    done
}

# Who this machine is. An empty machine-id is made anew at the first boot; without the file, systemd would call that
# boot no first boot on a read-only root.
: >"$root/etc/machine-id"
chmod 0444 "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_* "$root/var/lib/systemd/random-seed" \
    "$root/var/lib/systemd/credential.secret" "$root/etc/udev/rules.d/70-persistent-net.rules" \
    "$root/etc/netplan/50-cloud-init.yaml" "$root/etc/network/interfaces.d/50-cloud-init"
empty /var/lib/dhcp /var/lib/dhclient /var/lib/NetworkManager
# Not its folder seed/, which belongs to the image.
rm -rf "$root/var/lib/cloud/instances" "$root/var/lib/cloud/instance" "$root/var/lib/cloud/data" "$root/var/lib/cloud/sem"

# Who baked it.
for home in "$root/root" "$root"/home/*; do
    rm -rf "$home/.ssh" "$home/.aws" "$home/.kube" "$home/.docker" "$home/.cache"
    rm -f "$home/.bash_history" "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts" "$home/.sudo_as_admin_successful"
done

# What a node has, and an image has not. Images that were pulled stay: they are in containerd's content store.
empty /var/lib/kubestrap /var/cache/kubestrap /var/lib/kubelet /var/lib/etcd /var/lib/cni /etc/cni/net.d \
    /etc/kubernetes/pki /etc/kubernetes/manifests /etc/kubernetes/tmp /var/lib/containerd/io.containerd.runtime.v2.task
rm -f "$root"/etc/kubernetes/*.conf "$root/etc/kubestrap/config.yaml" "$root"/etc/kubestrap/config.d/*

empty /tmp /var/tmp
if [ -d "$root/var/log/journal" ]; then
    empty /var/log/journal
fi
# Folders stay, for daemons do not make their own; so do the two that login needs, without a word in them.
find "$root/var/log" -xdev -type f ! -name wtmp ! -name lastlog -delete
for file in wtmp lastlog; do
    if [ -e "$root/var/log/$file" ]; then
        : >"$root/var/log/$file"
    fi
done
sync
