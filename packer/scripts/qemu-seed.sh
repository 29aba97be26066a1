#!/bin/sh
# Makes what the QEMU build needs: a key of its own, and user-data that lets it in. Both are for this one build; the
# clean-up removes them from the image.
#
#   qemu-seed.sh FOLDER    Packer's folder build/
set -eu
umask 077

folder=${1:?the folder build/}
mkdir -p "$folder/seed"
if [ ! -e "$folder/seed-key" ]; then
    ssh-keygen -q -t ed25519 -N '' -C packer -f "$folder/seed-key"
fi
echo 'instance-id: bake' >"$folder/seed/meta-data"
cat >"$folder/seed/user-data" <<END
#cloud-config
ssh_authorized_keys:
  - $(cat "$folder/seed-key.pub")
END
# Older cloud-init asks for it too.
: >"$folder/seed/vendor-data"
