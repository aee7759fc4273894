"""The command line of every component, and the configuration files of those that take one. Nothing here acts.

Where a flag differs from the default, the reason stands beside it: each of them cost somebody an hour.
"""

import json
from dataclasses import dataclass

from dev.cluster.settings import API_PORT, ENVIRONMENTS_MOUNT, ETCD_PEER_PORT, ETCD_PORT, NODE_NAME, Settings

FAKE_NODE_ANNOTATION = "kwok.x-k8s.io/node"


@dataclass(frozen=True, slots=True)
class Component:
    """A program that the box keeps running, by the name of its binary."""

    name: str
    arguments: tuple[str, ...]


def before_api(settings: Settings) -> list[Component]:
    """Return what can start at once, in order."""
    return [*([_containerd(settings)] if settings.node else []), _etcd(settings), _api_server(settings)]


def after_api(settings: Settings) -> list[Component]:
    """Return what starts when the API server is ready: earlier they would only back off and come back late."""
    rest = [_controller_manager(settings), _scheduler(settings)]
    if settings.kwok_nodes:
        rest.append(_kwok(settings))
    if settings.node:
        rest += [_kubelet(settings), _kube_proxy(settings)]
    return rest


def _etcd(settings: Settings) -> Component:
    client, peer = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PEER_PORT}"
    return Component(
        "etcd",
        (
            f"--data-dir={settings.directory}/etcd",
            "--unsafe-no-fsync",  # nothing of it outlives the machine
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ),
    )


def _api_server(settings: Settings) -> Component:
    pki = settings.pki
    arguments = [
        f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--advertise-address={settings.address}",
        f"--service-cluster-ip-range={settings.services}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--requestheader-client-ca-file={pki}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
    ]
    if settings.node:
        arguments += [
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
        ]
    return Component("kube-apiserver", tuple(arguments))


# The default of 20 requests a second delays the first ServiceAccount by 5 s and 1 000 pods by a minute.
_FAST = ("--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false", "--bind-address=127.0.0.1")


def _controller_manager(settings: Settings) -> Component:
    pki = settings.pki
    return Component(
        "kube-controller-manager",
        (
            f"--kubeconfig={settings.kubeconfig('controller-manager')}",
            *_FAST,
            f"--flex-volume-plugin-dir={settings.directory}/flex",  # else it makes /usr/libexec/kubernetes on the host
            "--use-service-account-credentials=true",
            f"--root-ca-file={pki}/ca.crt",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            # A disk that was just given gigabytes keeps everybody, etcd too, for longer than the default of 50 s: nodes
            # whose heartbeats could not be written would be tainted, and no pod scheduled.
            "--node-monitor-grace-period=600s",
        ),
    )


def _scheduler(settings: Settings) -> Component:
    return Component("kube-scheduler", (f"--kubeconfig={settings.kubeconfig('scheduler')}", *_FAST))


def _kwok(settings: Settings) -> Component:
    return Component(
        "kwok",
        (
            f"--kubeconfig={settings.kubeconfig('admin')}",
            f"--manage-nodes-with-annotation-selector={FAKE_NODE_ANNOTATION}=fake",  # it leaves a real node alone
            f"--config={settings.etc}/kwok-stages.yaml",
            f"--cidr={settings.fake_pods}",
            f"--node-ip={settings.address}",
        ),
    )


def _containerd(settings: Settings) -> Component:
    return Component("containerd", (f"--config={settings.etc}/containerd.toml",))


def _kubelet(settings: Settings) -> Component:
    return Component(
        "kubelet",
        (
            f"--config={settings.etc}/kubelet.yaml",
            f"--kubeconfig={settings.kubeconfig('kubelet')}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={settings.address}",  # it would look for the default route's, and the box has none
        ),
    )


def _kube_proxy(settings: Settings) -> Component:
    return Component("kube-proxy", (f"--config={settings.etc}/proxy.yaml", f"--hostname-override={NODE_NAME}"))


def config_files(settings: Settings) -> dict[str, str]:
    """Return the text of each configuration file of a node by its path in the cluster's `etc` folder."""
    files = {
        "cni/10-ptp.conflist": json.dumps(_cni(settings), indent=1),
        "containerd.toml": _containerd_config(settings),
        "kubelet.yaml": json.dumps(_kubelet_config(settings), indent=1),
        "proxy.yaml": json.dumps(_proxy_config(settings), indent=1),
        "resolv.conf": "# no upstream: nothing leaves the box\n",
    }
    return files


def _cni(settings: Settings) -> dict[str, object]:
    # ptp, not bridge: a pod reaches itself through its own Service without br_netfilter. No default route: traffic to
    # anywhere outside the cluster fails at once.
    routes = [{"dst": net} for net in (settings.services, settings.link, settings.fake_pods)]
    ipam = {"type": "host-local", "ranges": [[{"subnet": settings.pods}]], "routes": routes}
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "mtu": 1400, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd_config(settings: Settings) -> str:
    base_spec = f"\n  base_runtime_spec = '{settings.etc}/runtime-spec.json'" if settings.environments else ""
    return f"""version = 3
root = '{settings.store}'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'local/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true  # needed where root lacks CAP_SYS_RESOURCE
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{settings.binaries}']
  conf_dir = '{settings.etc}/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'{base_spec}
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = '{settings.binaries}/runc'
    SystemdCgroup = false
"""


def with_environments(default_spec: dict[str, object], settings: Settings) -> dict[str, object]:
    """Return containerd's default OCI spec with the host's Python environments mounted read-only in addition."""
    mount = {
        "destination": ENVIRONMENTS_MOUNT,
        "type": "bind",
        "source": str(settings.environments),
        "options": ["rbind", "ro", "nosuid", "nodev"],
    }
    mounts = default_spec["mounts"]
    assert isinstance(mounts, list)
    return {**default_spec, "mounts": [*mounts, mount]}


def _kubelet_config(settings: Settings) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{settings.cgroup}",
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{settings.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{settings.pki}/kubelet-serving.crt",
        "tlsPrivateKeyFile": f"{settings.pki}/kubelet-serving.key",
        "clusterDNS": [settings.dns_address],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{settings.etc}/resolv.conf",
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,  # images cannot be pulled again
        "imageMinimumGCAge": "24h",
        "volumePluginDir": f"{settings.directory}/flex",
        "serializeImagePulls": False,
        "registerNode": True,
    }


def _proxy_config(settings: Settings) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(settings.kubeconfig("proxy"))},
        "clusterCIDR": settings.pods,
        "nftables": {"minSyncPeriod": "100ms"},  # default 1 s: a Ready pod would be unreachable for as long
        # nf_conntrack_max belongs to the machine's first network namespace: writing it from the box fails
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def fake_nodes(settings: Settings) -> list[dict[str, object]]:
    """Return the Node objects that kwok brings to life; beside a real node tainted, lest they catch its pods."""
    taint = {"key": FAKE_NODE_ANNOTATION, "value": "fake", "effect": "NoSchedule"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"fake-{number}",
                "annotations": {FAKE_NODE_ANNOTATION: "fake"},
                "labels": {"kubernetes.io/os": "linux", "type": "kwok"},
            },
            "spec": {"taints": [taint] if settings.node else []},
        }
        for number in range(settings.kwok_nodes)
    ]
