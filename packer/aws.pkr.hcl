# An AMI. The lines between the two marks need Packer 1.8 or newer with the plugin amazon 1.1 or newer. CI takes them
# out, for Debian's Packer 1.6.6 judges the rest: an override of a source cannot stand in a file of its own.

variable "region" {
  type        = string
  description = "Where the image is made."
  default     = "eu-central-1"
}

variable "subnet_id" {
  type        = string
  description = "Where the machine that is baked runs. Empty: the default VPC."
  default     = ""
}

variable "ssh_from" {
  type        = list(string)
  description = "From where SSH to the machine that is baked is allowed: CIDR blocks. Say where Packer runs; Packer's own default is everywhere."
  default     = ["127.0.0.1/32"]
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the volume. Empty: the account's default key, whose images cannot be shared with other accounts."
  default     = ""
}

variable "volume_gib" {
  type        = number
  description = "Size of the root volume. Images that are pulled while baking lie on it."
  default     = 16
}

variable "tags" {
  type        = map(string)
  description = "Further tags of the image and its snapshot."
  default     = {}
}

locals {
  # Owners are account numbers: a name alone would accept anybody's image.
  bases = {
    "debian-12"         = { owner = "136693071363", name = "debian-12-${local.go_arch}-*", user = "admin", root = "/dev/xvda" }
    "debian-13"         = { owner = "136693071363", name = "debian-13-${local.go_arch}-*", user = "admin", root = "/dev/xvda" }
    "ubuntu-24.04"      = { owner = "099720109477", name = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-${local.go_arch}-server-*", user = "ubuntu", root = "/dev/sda1" }
    "amazon-linux-2023" = { owner = "137112412989", name = "al2023-ami-2023.*-kernel-6.12-${var.arch}", user = "ec2-user", root = "/dev/xvda" }
  }
  base = local.bases[var.distribution]
}

source "amazon-ebs" "node" {
  region        = var.region
  subnet_id     = var.subnet_id
  instance_type = var.arch == "arm64" ? "t4g.medium" : "t3.medium"
  ena_support   = true

  source_ami_filter {
    owners      = [local.base.owner]
    most_recent = true
    filters = {
      name                = local.base.name
      architecture        = var.arch
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }

  ssh_username                          = local.base.user
  temporary_key_pair_type               = "ed25519"
  temporary_security_group_source_cidrs = var.ssh_from

  # The machine that is baked has no role: nothing on it can call AWS.
  # Packer 1.8: begin
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  # The floor for whoever launches the image without a launch template. It alone is not enough: it raises the hop
  # limit to 2, and then every pod gets the node's role. launch-template.json says 1.
  imds_support = "v2.0"
  # Packer 1.8: end

  # Encrypted from the beginning: `encrypt_boot` would make a plain snapshot first and copy it.
  launch_block_device_mappings {
    device_name           = local.base.root
    volume_type           = "gp3"
    volume_size           = var.volume_gib
    iops                  = 3000
    throughput            = 125
    encrypted             = true
    kms_key_id            = var.kms_key_id
    delete_on_termination = true
  }

  ami_name        = local.image_name
  ami_description = "Kubernetes node on ${var.distribution} (${var.arch}), baked by kubestrap"
  # kubestrap:image and kubestrap:content come last, together: see scripts/tag.sh.
  tags = merge(var.tags, {
    Name                     = local.image_name
    "kubestrap:distribution" = var.distribution
    "kubestrap:base"         = "{{ .SourceAMI }}"
  })
  snapshot_tags = merge(var.tags, { Name = local.image_name })
  run_tags      = { Name = "bake ${local.image_name}" }
}
