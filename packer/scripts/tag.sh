#!/bin/sh
# Tags the image, where Packer runs: after everything else, and with both tags in one call. `drift.image.newest` looks for
# kubestrap:image, so it never finds an image whose kubestrap:content is not there yet.
#
#   IMAGE_MANIFEST  of Packer's post-processor manifest
#   IMAGE_CONTENT   the file with the digest, from the machine that was baked
#   IMAGE_NAME      the value of kubestrap:image
set -eu

fail() {
    echo "tag: $*" >&2
    exit 1
}

: "${IMAGE_MANIFEST:?}" "${IMAGE_CONTENT:?}" "${IMAGE_NAME:?}"
content=$(cat "$IMAGE_CONTENT")
case $content in
    sha256:*[!0-9a-f]*) fail "$IMAGE_CONTENT is no digest" ;;
    sha256:*) [ ${#content} = 71 ] || fail "$IMAGE_CONTENT is no digest: it has ${#content} characters" ;;
    *) fail "$IMAGE_CONTENT is no digest" ;;
esac
# "region:ami-...,region:ami-..."
images=$(sed -n 's/.*"artifact_id": *"\([^"]*\)".*/\1/p' "$IMAGE_MANIFEST" | tail -n 1 | tr , ' ')
[ -n "$images" ] || fail "$IMAGE_MANIFEST names no image"
for image in $images; do
    case $image in
        *:ami-*) ;;
        *) fail "$IMAGE_MANIFEST: $image is no image of EC2" ;;
    esac
    aws ec2 create-tags --region "${image%%:*}" --resources "${image#*:}" \
        --tags "Key=kubestrap:content,Value=$content" "Key=kubestrap:image,Value=$IMAGE_NAME" ||
        fail "$image has no tags, so drift does not find it: run this script again"
    echo "tag: $image has kubestrap:content=$content, kubestrap:image=$IMAGE_NAME"
done
