# For Packer 1.8 and newer, where builders are plugins: `packer init .` fetches them. Packer 1.6 has them built in and
# cannot read this file: leave it out there.

packer {
  required_version = ">= 1.8.0"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.0, < 2.0.0"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = ">= 1.0.0, < 2.0.0"
    }
  }
}
