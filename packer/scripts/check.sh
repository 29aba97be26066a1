#!/bin/sh
# Would every machine that boots from this image be a clean one? Says everything that is wrong, and ends with 1 then.
#
#   check.sh          this machine, after clean.sh
#   check.sh FOLDER   an image that is mounted there
#
#   BAKE_ENABLE=false: kubestrap.service must not start at boot
set -eu

root=${1:-}
root=${root%/}
[ -d "$root/etc" ] || { echo "check: $root has no /etc: not an image" >&2; exit 1; }
# What it cannot read it cannot judge.
[ "$(id -u)" = 0 ] || { echo "check: run this as root" >&2; exit 1; }
wrong=0

problem() {
    echo "check: $*" >&2
    wrong=$((wrong + 1))
}

exists() { [ -e "$1" ] || [ -L "$1" ]; }

# Patterns with one part that may match several.
absent() {
    what=$1
    shift
    for path; do
        if exists "$path"; then
            problem "${path#"$root"}: $what"
        fi
    done
}

# A folder that is absent is empty. This script itself may lie in one of them.
empty() {
    what=$1
    shift
    for folder; do
        if [ -d "$root$folder" ]; then
            inside=$(find "$root$folder" -xdev -mindepth 1 ! -path "$0" ! -type d | head -n 3)
            for path in $inside; do
                problem "${path#"$root"}: $what"
            done
        fi
    done
}

# --- who the machine is
if [ ! -f "$root/etc/machine-id" ]; then
    problem "/etc/machine-id: is not there: it must be an empty file"
elif [ -s "$root/etc/machine-id" ] && [ "$(cat "$root/etc/machine-id")" != uninitialized ]; then
    problem "/etc/machine-id: has a value: every machine would be the same one"
fi
if [ ! -L "$root/var/lib/dbus/machine-id" ]; then
    absent "has a value" "$root/var/lib/dbus/machine-id"
fi
absent "a host key, which every machine would share" "$root"/etc/ssh/ssh_host_*
absent "every machine would begin with the same entropy" "$root/var/lib/systemd/random-seed"
absent "a secret that every machine would share" "$root/var/lib/systemd/credential.secret"
absent "the network of the machine that was baked" "$root/etc/udev/rules.d/70-persistent-net.rules" \
    "$root/etc/netplan/50-cloud-init.yaml" "$root/etc/network/interfaces.d/50-cloud-init"
empty "a lease of the machine that was baked" /var/lib/dhcp /var/lib/dhclient
absent "cloud-init's state: the next boot would not be the first" "$root/var/lib/cloud/instance" \
    "$root"/var/lib/cloud/instances/* "$root"/var/lib/cloud/data/* "$root"/var/lib/cloud/sem/*

# --- who baked it
for home in "$root/root" "$root"/home/*; do
    absent "who baked the image could log in" "$home"/.ssh/authorized_keys*
    absent "a private key" "$home"/.ssh/id_*
    absent "credentials of who baked the image" "$home/.aws" "$home/.kube" "$home/.docker" "$home/.netrc"
    absent "what somebody typed" "$home"/.*_history
done
if [ -r "$root/etc/shadow" ]; then
    # Not behind a pipe, where the count would be another shell's.
    passwords=$(awk -F: '$2 == "" { print $1 " needs no password" } $2 ~ /^[^*!]/ { print $1 " has a password" }' \
        "$root/etc/shadow")
    while read -r line; do
        [ -z "$line" ] || problem "/etc/shadow: $line"
    done <<END
$passwords
END
fi

# --- what a node has
empty "state of kubestrap" /var/lib/kubestrap
empty "a download" /var/cache/kubestrap
absent "a node's configuration: it belongs into user-data" "$root/etc/kubestrap/config.yaml" "$root"/etc/kubestrap/config.d/*
empty "state of a kubelet" /var/lib/kubelet
empty "state of kubeadm" /etc/kubernetes/pki /etc/kubernetes/manifests /etc/kubernetes/tmp
absent "state of kubeadm: a kubeconfig" "$root"/etc/kubernetes/*.conf
empty "data of etcd" /var/lib/etcd
empty "state of a pod network" /var/lib/cni /etc/cni/net.d
empty "a container" /var/lib/containerd/io.containerd.runtime.v2.task

# --- what a boot leaves behind
empty "a journal" /var/log/journal
for path in $(find "$root/var/log" -xdev -type f -size +0 ! -name wtmp ! -name lastlog 2>/dev/null | head -n 5); do
    problem "${path#"$root"}: a log"
done
# journald makes private folders in there for services that run.
for folder in /tmp /var/tmp; do
    if [ -d "$root$folder" ]; then
        inside=$(find "$root$folder" -xdev -mindepth 1 -type f ! -path "$0" | head -n 3)
        for path in $inside; do
            problem "${path#"$root"}: somebody left it"
        done
    fi
done

# --- what must be there
if [ ! -x "$root/usr/bin/kubestrap" ]; then
    problem "/usr/bin/kubestrap: is not there, or cannot be executed"
elif ! content=$("$root/usr/bin/kubestrap" --root "${root:-/}" drift --baked); then
    problem "/usr/lib/kubestrap/manifest.json: kubestrap cannot read it"
fi
for program in containerd runc crictl kubeadm kubelet kubectl; do
    found=
    for folder in /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin; do
        [ ! -x "$root$folder/$program" ] || found=yes
    done
    [ -n "$found" ] || problem "$program: is not there"
done

starts() {
    for folder in "$root"/etc/systemd/system/*.wants "$root"/usr/local/lib/systemd/system/*.wants \
        "$root"/usr/lib/systemd/system/*.wants; do
        if exists "$folder/$1"; then
            return 0
        fi
    done
    return 1
}
for unit in containerd.service kubelet.service; do
    starts "$unit" || problem "$unit: does not start at boot"
done
if [ "${BAKE_ENABLE:-true}" = true ]; then
    starts kubestrap.service || problem "kubestrap.service: does not start at boot"
elif starts kubestrap.service; then
    problem "kubestrap.service: starts at boot, and BAKE_ENABLE=false says that it does not"
fi

if [ "$wrong" != 0 ]; then
    echo "check: $wrong things are wrong with this image" >&2
    exit 1
fi
echo "check: clean; content $content"
