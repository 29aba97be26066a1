#!/bin/sh
# Puts kubestrap on a machine that has nothing of it, and starts it:
#
#   start.sh URL amd64=SHA256 arm64=SHA256
#
# URL is that of the release archive; @ARCH@ in it becomes amd64 or arm64. Nothing of the archive is used before its
# SHA-256 was compared. Ends with 1, and leaves nothing behind, when it cannot be had; running it again is safe.
set -eu
umask 022

fail() {
    echo "kubestrap start: $*" >&2
    exit 1
}

[ $# -ge 2 ] || fail "usage: start.sh URL amd64=SHA256 arm64=SHA256"
# For tests: a folder as the machine's root, and seconds between attempts.
root=${KUBESTRAP_START_ROOT:-}
pause=${KUBESTRAP_START_PAUSE:-5}
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run this as root"
command -v curl >/dev/null || fail "curl is not here: add \`packages: [curl]\` to the cloud-config"

case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) fail "there is no kubestrap for $(uname -m)" ;;
esac
url=$(printf '%s' "$1" | sed "s/@ARCH@/$arch/g")
shift
wanted=
for pin; do
    case $pin in
        "$arch="*) wanted=${pin#*=} ;;
    esac
done
case $wanted in
    '') fail "no checksum for $arch: add $arch=SHA256, from SHA256SUMS of the release" ;;
    *[!0-9a-f]*) fail "the checksum for $arch is not in hexadecimal digits: take it from SHA256SUMS of the release" ;;
esac
[ ${#wanted} = 64 ] || fail "the checksum for $arch has ${#wanted} digits instead of 64"

# The network, a proxy or the server may need a while after boot. What a person must mend is not waited for.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
attempt=1
while :; do
    code=0
    status=$(curl --silent --show-error --fail --location --max-redirs 5 --proto '=http,https' --connect-timeout 10 \
        --speed-limit 1024 --speed-time 30 --max-filesize 104857600 --output "$folder/archive" \
        --write-out '%{http_code}' "$url" 2>"$folder/said") || code=$?
    [ $code != 0 ] || break
    said=$(tail -n 1 "$folder/said")
    case $code.$status in
        22.408 | 22.429) ;;
        22.4?? | 1.* | 3.* | 47.* | 63.*) fail "failed to fetch $url: $said" ;;
    esac
    [ $attempt -lt 60 ] || fail "failed to fetch $url in $attempt attempts: $said"
    echo "kubestrap start: attempt $attempt: $said" >&2
    sleep "$pause"
    attempt=$((attempt + 1))
done
set -- "$(sha256sum <"$folder/archive")"
got=${1%% *}
[ "$got" = "$wanted" ] || fail "$url has the checksum $got and not $wanted: nothing of it was used"

# Only files are in it, so no folder of the machine gets another mode or owner.
tar -xzf "$folder/archive" -C "$root/" --strip-components=1 --no-same-owner --preserve-permissions
systemctl daemon-reload
systemd-tmpfiles --create kubestrap.conf
"$root/usr/bin/kubestrap" install
# --no-block: the service counts as started when the node is in the cluster.
systemctl enable --now --no-block kubestrap.service
echo "kubestrap start: $("$root/usr/bin/kubestrap" --version) is installed and started"
