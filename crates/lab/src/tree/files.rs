//! What the root tree has beyond Debian's packages: units as the Kubernetes packages ship them, and what makes no sense
//! without hardware.

/// Units that need hardware, a console, a clock or a network of their own.
pub const MASKED: &[&str] = &[
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-logind.service",
    "getty.target",
    "getty@tty1.service",
    "console-getty.service",
    "getty-static.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-remount-fs.service",
    "systemd-random-seed.service",
    "systemd-hwdb-update.service",
    "systemd-firstboot.service",
    "systemd-sysusers.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-update-utmp.service",
    "systemd-binfmt.service",
    "systemd-tmpfiles-setup-dev.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "fstrim.timer",
    "dpkg-db-backup.timer",
    "ldconfig.service",
    "networking.service",
    "ifupdown-pre.service",
];

/// Path in the tree, and text.
pub const FILES: &[(&str, &str)] = &[
    (
        "usr/lib/systemd/system/containerd.service",
        "[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target local-fs.target dbus.service
[Service]
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=2
TasksMax=infinity
[Install]
WantedBy=multi-user.target
",
    ),
    (
        // As the packages of Kubernetes ship it.
        "usr/lib/systemd/system/kubelet.service",
        "[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10
[Install]
WantedBy=multi-user.target
",
    ),
    (
        "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        "# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"
Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
",
    ),
    ("etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n"),
    ("etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n"),
    // Refused at once: what is not in /etc/hosts does not exist.
    ("etc/resolv.conf", "nameserver 10.77.0.1\noptions timeout:1 attempts:1\n"),
    ("etc/fstab", ""),
    (
        // A machine in namespaces has no firmware that says "Amazon EC2"; its network is there already.
        "etc/cloud/cloud.cfg.d/90-lab.cfg",
        "datasource_list: [Ec2]
datasource: { Ec2: { strict_id: false, timeout: 5, max_wait: 120 } }
network: { config: disabled }
locale: false
",
    ),
];
