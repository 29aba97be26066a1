# What is baked. `packer build -var-file=my.pkrvars.hcl .`; the README has an example.

variable "distribution" {
  type        = string
  description = "What the image is made from: debian-12, debian-13, ubuntu-24.04 or amazon-linux-2023."
  default     = "debian-13"
  validation {
    condition     = contains(["debian-12", "debian-13", "ubuntu-24.04", "amazon-linux-2023"], var.distribution)
    error_message = "The distribution is debian-12, debian-13, ubuntu-24.04 or amazon-linux-2023."
  }
}

variable "arch" {
  type        = string
  description = "The architecture, as EC2 writes it: x86_64 or arm64."
  default     = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.arch)
    error_message = "The architecture is x86_64 or arm64."
  }
}

variable "archive" {
  type        = string
  description = "The release archive kubestrap-VERSION-linux-ARCH.tar.gz on this machine, with the static program and its units."
}

variable "archive_sha256" {
  type        = string
  description = "Its SHA-256, from SHA256SUMS. The machine that is baked compares it before anything is unpacked."
  validation {
    condition     = length(var.archive_sha256) == 64
    error_message = "The SHA-256 has 64 hexadecimal digits; see SHA256SUMS beside the archive."
  }
}

variable "config" {
  type        = string
  description = "A configuration with the section `install:` on this machine: versions, mirror, images. It does not stay in the image."
  default     = ""
}

variable "bundle" {
  type        = string
  description = "A bundle of `kubestrap install --download-only FILE` on this machine. Empty: `install` fetches from upstream, or from the mirror of its configuration."
  default     = ""
}

variable "bundle_index_sha256" {
  type        = string
  description = "The SHA-256 of the bundle's index, as `install --download-only` printed it: for versions that kubestrap ships no checksums for."
  default     = ""
}

variable "name" {
  type        = string
  description = "Begins the image's name, and is the value of its tag kubestrap:image."
  default     = "kubestrap"
}

variable "enable" {
  type        = bool
  description = "Whether kubestrap.service starts at boot. false: user-data enables it."
  default     = true
}

locals {
  stamp      = formatdate("YYYYMMDDhhmmss", timestamp())
  go_arch    = { x86_64 = "amd64", arm64 = "arm64" }[var.arch]
  image_name = "${var.name}-${var.distribution}-${var.arch}-${local.stamp}"
  uploads    = compact([var.archive, var.config, var.bundle])
  # On the machine that is baked; the clean-up removes it.
  workplace = "/var/tmp/kubestrap-bake"
  # Here: what a build leaves behind beside the image.
  results = "${path.root}/build"
}
