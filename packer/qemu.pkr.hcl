# A disk for QEMU, from a cloud image of Debian or Ubuntu. scripts/qemu-seed.sh makes the key and the user-data.

variable "qemu_image" {
  type        = string
  description = "URL or path of the cloud image (qcow2) of the same distribution and architecture."
  default     = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2"
}

variable "qemu_checksum" {
  type        = string
  description = "Its checksum: sha512:DIGEST, or file:URL of a list of checksums. A build that must be repeatable names an image and its digest."
  default     = "file:https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS"
}

variable "qemu_user" {
  type        = string
  description = "The user that the image's cloud-init makes."
  default     = "debian"
}

variable "qemu_accelerator" {
  type        = string
  description = "kvm, or tcg where there is no hardware virtualisation (many times slower)."
  default     = "kvm"
}

variable "qemu_arguments" {
  type        = list(list(string))
  description = "Further arguments of QEMU. arm64 needs firmware: [[\"-bios\", \"/usr/share/qemu-efi-aarch64/QEMU_EFI.fd\"]]."
  default     = []
}

source "qemu" "node" {
  qemu_binary  = var.arch == "arm64" ? "qemu-system-aarch64" : "qemu-system-x86_64"
  machine_type = var.arch == "arm64" ? "virt" : "q35"
  accelerator  = var.qemu_accelerator
  headless     = true
  cpus         = 2
  memory       = 2048

  iso_url          = var.qemu_image
  iso_checksum     = var.qemu_checksum
  disk_image       = true
  disk_size        = "16G"
  disk_interface   = "virtio"
  net_device       = "virtio-net"
  format           = "qcow2"
  output_directory = "${local.results}/${local.image_name}"
  vm_name          = "disk.qcow2"

  # cloud-init's NoCloud source reads meta-data and user-data from here.
  http_directory = "${local.results}/seed"
  qemuargs = concat([
    ["-smbios", "type=1,serial=ds=nocloud-net;s=http://{{ .HTTPIP }}:{{ .HTTPPort }}/"],
    ["-cpu", var.qemu_accelerator == "kvm" ? "host" : "max"],
  ], var.qemu_arguments)

  ssh_username         = var.qemu_user
  ssh_private_key_file = "${local.results}/seed-key"
  ssh_timeout          = "20m"
  # The account that Packer used is gone by then; it is made anew on the first boot of the image.
  shutdown_command = "sudo systemctl poweroff"
}
