#!/bin/sh
# Makes this machine a node's image: runs as root on the machine that is baked, with what Packer uploaded.
#
#   BAKE_FOLDER   where the uploads are
#   BAKE_ARCHIVE  name of the release archive there; BAKE_SHA256 its SHA-256
#   BAKE_CONFIG   name of a configuration with `install:` there, or empty
#   BAKE_BUNDLE   name of a bundle there, or empty: `kubestrap install` fetches
#   BAKE_INDEX    SHA-256 of the bundle's index, as `install --download-only` printed it, or empty
#   BAKE_ENABLE   true: kubestrap.service starts at boot
#
# Leaves the digest of what was installed in BAKE_FOLDER/content.
set -eu
umask 022

fail() {
    echo "bake: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "run this as root"
: "${BAKE_FOLDER:?}" "${BAKE_ARCHIVE:?}" "${BAKE_SHA256:?}"
cd "$BAKE_FOLDER"

# cloud-init's first boot changes package sources and may hold the package manager's lock.
if command -v cloud-init >/dev/null; then
    cloud-init status --wait >/dev/null || echo "bake: cloud-init ended with a complaint; going on"
fi

echo "$BAKE_SHA256  $BAKE_ARCHIVE" | sha256sum -c - || fail "$BAKE_ARCHIVE is not what archive_sha256 says: nothing was unpacked"
# Only files are in it, so no folder of the machine gets another mode or owner.
tar -xzf "$BAKE_ARCHIVE" -C / --strip-components=1 --no-same-owner --preserve-permissions

# What kubeadm's preflight and kube-proxy ask for and minimal images lack.
missing=
for program in conntrack ip tc iptables ethtool mount nsenter modprobe; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ]; then
    echo "bake: not there yet:$missing"
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -q -y --no-install-recommends ca-certificates conntrack iproute2 iptables ethtool mount util-linux kmod
        apt-get clean
        rm -rf /var/lib/apt/lists/*
    elif command -v dnf >/dev/null; then
        dnf install -q -y ca-certificates conntrack-tools iproute iproute-tc iptables-nft ethtool util-linux kmod
        dnf clean all -q
    else
        fail "neither apt-get nor dnf is here: install$missing in another way"
    fi
fi

set --
[ -z "${BAKE_CONFIG:-}" ] || set -- "$@" --config "$BAKE_FOLDER/$BAKE_CONFIG"
set -- "$@" install
[ -z "${BAKE_BUNDLE:-}" ] || set -- "$@" --from "$BAKE_FOLDER/$BAKE_BUNDLE"
[ -z "${BAKE_INDEX:-}" ] || set -- "$@" --index-sha256 "$BAKE_INDEX"
/usr/bin/kubestrap "$@"

# It enabled kubelet and containerd; a distribution's own containerd may still need it.
systemd-tmpfiles --create kubestrap.conf
systemctl daemon-reload
systemctl enable containerd.service kubelet.service
if [ "${BAKE_ENABLE:-true}" = true ]; then
    systemctl enable kubestrap.service
fi

/usr/bin/kubestrap drift --baked >content
# Packer's user fetches it.
chmod 0644 content
chmod 0711 "$BAKE_FOLDER"
echo "bake: content $(cat content)"
