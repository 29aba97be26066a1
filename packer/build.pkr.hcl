# The same for every image: upload, `kubestrap install`, take the content's digest, clean up, check.
#
#   packer build -only=amazon-ebs.node -var-file=my.pkrvars.hcl .
#   packer build -only=qemu.node -var-file=my.pkrvars.hcl .

build {
  sources = ["source.amazon-ebs.node", "source.qemu.node"]

  provisioner "shell" {
    inline = ["mkdir -m 0700 ${local.workplace}"]
  }

  provisioner "file" {
    sources     = local.uploads
    destination = "${local.workplace}/"
  }

  provisioner "shell" {
    script          = "${path.root}/scripts/provision.sh"
    execute_command = "sudo env {{ .Vars }} sh {{ .Path }}"
    environment_vars = [
      "BAKE_FOLDER=${local.workplace}",
      "BAKE_ARCHIVE=${basename(var.archive)}",
      "BAKE_SHA256=${var.archive_sha256}",
      "BAKE_CONFIG=${var.config == "" ? "" : basename(var.config)}",
      "BAKE_BUNDLE=${var.bundle == "" ? "" : basename(var.bundle)}",
      "BAKE_INDEX=${var.bundle_index_sha256}",
      "BAKE_ENABLE=${var.enable}",
    ]
  }

  # The digest of what was installed: the image's tag kubestrap:content.
  provisioner "file" {
    direction   = "download"
    source      = "${local.workplace}/content"
    destination = "${local.results}/${local.image_name}.content"
  }

  # One after the other in one session; nothing may happen on the machine after them.
  provisioner "shell" {
    scripts = [
      "${path.root}/scripts/clean.sh",
      "${path.root}/scripts/check.sh",
    ]
    execute_command  = "sudo env {{ .Vars }} sh {{ .Path }}"
    environment_vars = ["BAKE_ENABLE=${var.enable}", "BAKE_THIS_MACHINE=yes"]
  }

  post-processors {
    post-processor "manifest" {
      output = "${local.results}/${local.image_name}.json"
    }

    post-processor "shell-local" {
      only   = ["amazon-ebs.node"]
      script = "${path.root}/scripts/tag.sh"
      environment_vars = [
        "IMAGE_MANIFEST=${local.results}/${local.image_name}.json",
        "IMAGE_CONTENT=${local.results}/${local.image_name}.content",
        "IMAGE_NAME=${var.name}",
      ]
    }
  }
}
