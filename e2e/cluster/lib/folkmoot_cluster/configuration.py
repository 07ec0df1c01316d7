"""Configuration files and flags of every component of the embedded cluster. PURE: from an instance to text.

Every setting that is not Kubernetes' default has its reason beside it; most were found by a failure.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from .names import CLUSTER_DOMAIN, STORAGE_CLASS, Instance

API_PORT = 6443
ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"
VOLUME_COUNT = 32


def containerd(instance: Instance, pause_image: str) -> str:
    """containerd 1.6 (Debian's): paths are those of the mount namespace, so no two instances share any."""
    configuration = instance.configuration
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
address = "{instance.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd-opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause_image}"
# Without CAP_SYS_RESOURCE runc otherwise ends with "can't get final child's PID from pipe".
restrict_oom_score_adj = true
# CoreDNS listens at port 53 as an ordinary user.
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{configuration / "cni" / "bin"}"
conf_dir = "{configuration / "cni" / "net.d"}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def cni(instance: Instance) -> str:
    """A bridge, port mapping, and last the gate: no container starts before the NetworkPolicies know its address."""
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": f"folkmoot-{instance.name}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": instance.pod_network.replace("/16", "/24")}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
                {"type": "gate", "socket": str(instance.gate_socket)},
            ],
        },
        indent=1,
    )


def kubelet(instance: Instance) -> str:
    """Pods' cgroups go below the instance's; nothing is evicted, no image collected on a developer's full disk."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(instance.pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(instance.pki / "kubelet-server.crt"),
            "tlsPrivateKeyFile": str(instance.pki / "kubelet-server.key"),
            "containerRuntimeEndpoint": f"unix://{instance.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{instance.cgroup}",
            "clusterDNS": [instance.dns_address],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(instance.configuration / "resolv.conf"),
            "failSwapOn": False,
            "protectKernelDefaults": True,  # never change the host's sysctls; kernel.py shows it what it wants
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 200,
            "registryPullQPS": 50,
            "eventRecordQPS": 100,
            "syncFrequency": "10s",
            "shutdownGracePeriod": "0s",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        },
        indent=1,
    )


def kube_proxy(instance: Instance) -> str:
    """iptables mode; zero means "leave the kernel's conntrack limits alone"."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(instance.configuration / "kube-proxy.kubeconfig")},
            "mode": "iptables",
            "clusterCIDR": instance.pod_network,
            "hostnameOverride": instance.node_name,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        },
        indent=1,
    )


def kubeconfig(server: str, authority: str, certificate: str, key: str, name: str) -> str:
    """A kubeconfig with everything inside; the last three are base64 of PEM, `name` is cluster, user and context."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        },
        indent=1,
    )


def etcd(instance: Instance) -> list[str]:
    """On loopback inside the namespace; does not wait for the disk, for whose loss nobody weeps in a test."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        f"--data-dir={instance.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        "--log-level=warn",
    ]


def api_server(instance: Instance) -> list[str]:
    """Addresses instead of names for the kubelet, or `exec` and `logs` would look up a name nobody serves."""
    pki = instance.pki
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={instance.node_address}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={instance.service_network}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-jwks-uri={ISSUER}/openid/v1/jwks",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def controller_manager(instance: Instance) -> list[str]:
    """One of a kind, so without leader election, whose lease would be written every two seconds."""
    pki = instance.pki
    configuration = instance.configuration / "kube-controller-manager.kubeconfig"
    return [
        f"--kubeconfig={configuration}",
        f"--authentication-kubeconfig={configuration}",
        f"--authorization-kubeconfig={configuration}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={instance.pod_network}",
        f"--service-cluster-ip-range={instance.service_network}",
        "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins",
        "--profiling=false",
    ]


def scheduler(instance: Instance) -> list[str]:
    """Kubernetes' defaults, without leader election."""
    configuration = instance.configuration / "kube-scheduler.kubeconfig"
    return [
        f"--kubeconfig={configuration}",
        f"--authentication-kubeconfig={configuration}",
        f"--authorization-kubeconfig={configuration}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]


def kubelet_flags(instance: Instance) -> list[str]:
    """What has no place in the kubelet's file."""
    return [
        f"--config={instance.configuration / 'kubelet.json'}",
        f"--kubeconfig={instance.configuration / 'kubelet.kubeconfig'}",
        f"--hostname-override={instance.node_name}",
        f"--node-ip={instance.node_address}",
    ]


def volumes_flags(instance: Instance) -> list[str]:
    """The helper that keeps the pool of PersistentVolumes."""
    return [
        f"--kubeconfig={instance.configuration / 'equipment.kubeconfig'}",
        f"--directory={instance.volumes}",
        f"--node={instance.node_name}",
        f"--class={STORAGE_CLASS}",
        f"--count={VOLUME_COUNT}",
    ]


def enforcer_flags(instance: Instance) -> list[str]:
    """The helper that enforces NetworkPolicies."""
    return [
        f"--kubeconfig={instance.configuration / 'equipment.kubeconfig'}",
        f"--gate={instance.gate_socket}",
    ]


def server_addresses(instance: Instance) -> Sequence[str]:
    """Addresses that the serving certificates must name."""
    return (instance.node_address, instance.api_service_address, "127.0.0.1")


def server_hosts() -> Sequence[str]:
    """Names that the serving certificates must name."""
    service = "kubernetes.default.svc"
    return ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.{CLUSTER_DOMAIN}")


def files(instance: Instance, pause_image: str) -> dict[Path, str]:
    """Every configuration file but the kubeconfigs, by its path."""
    folder = instance.configuration
    return {
        folder / "containerd.toml": containerd(instance, pause_image),
        folder / "cni" / "net.d" / "10-folkmoot.conflist": cni(instance),
        folder / "kubelet.json": kubelet(instance),
        folder / "kube-proxy.json": kube_proxy(instance),
        folder / "resolv.conf": f"nameserver {instance.dns_address}\n",
    }
