"""A real Kubernetes cluster on this machine, from plain programs.

    with Cluster.up("demo", node=True, die_with_parent=True) as cluster:
        cluster.kubectl("get", "nodes")

Two kinds. A *node* cluster has a kubelet with containerd, runc, CNI, kube-proxy and DNS: real containers from images
that `load_image` brings. A *kwok* cluster has fake nodes whose pods become Ready without running anything; a server
started with `popen_in_box` on 0.0.0.0 answers at the address of every one of them. Both have the real control plane,
RBAC and admission included, and both live in a box (see `box`) that a keeper takes away again (see `keeper`).
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from dev import images
from dev.apt import CLUSTER_PACKAGES, ensure_apt
from dev.cache import cache_root
from dev.cluster import box, cgroups, components, keeper, network, pki, processes, registry, store, toolchain
from dev.cluster.commands import run, wait_for
from dev.cluster.containerd import Containerd
from dev.cluster.errors import ClusterError, ComponentFailed
from dev.cluster.processes import ProcessId, ProcessInfo
from dev.cluster.settings import ENVIRONMENTS_MOUNT, NODE_NAME, Settings
from dev.cluster.toolchain import OnStep

if TYPE_CHECKING:
    from dev.cluster.reader import Reader

MANIFESTS = Path(__file__).resolve().parent / "manifests"
REPOSITORY = Path(__file__).resolve().parents[2]


class Cluster:
    """A handle on a cluster that is up; any process can have one (`get`)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.name
        self.dir = settings.directory
        self.bin = settings.binaries
        self.kubeconfig = settings.kubeconfig("admin")
        self._keeper: subprocess.Popen[bytes] | None = None  # in the process that called `up`

    # ------------------------------------------------------------------------------------------------ life

    @classmethod
    def up(
        cls,
        name: str,
        *,
        node: bool,
        kwok_nodes: int = 0,
        store_dir: Path | None = None,
        die_with_parent: bool = False,
        on_step: OnStep | None = None,
    ) -> Cluster:
        """Bring a cluster up and return when it is usable; what an earlier, killed run of this name left is removed.

        Args:
            name: of the cluster on this machine: lower-case letters, digits and dashes.
            node: whether there is a real node.
            kwok_nodes: how many fake nodes there are.
            store_dir: where the node's images are kept; by default the first store of the cache that is free.
            die_with_parent: whether the cluster goes down by itself when this process ends, however it ends.
            on_step: told about each finished step.

        Raises:
            ClusterError: a cluster of this name is up, or something did not work; the message says what to do.
        """
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
            raise ClusterError(f"cluster name {name!r}: lower-case letters, digits and dashes only, at most 40")
        if os.geteuid() != 0:
            raise ClusterError("a cluster needs namespaces and network interfaces: run this as root")
        steps = _Steps(on_step)
        ensure_apt(CLUSTER_PACKAGES)
        binaries = toolchain.build(on_step)
        if node:
            images.base()  # made before anything runs, for it takes a minute the first time
            steps.done("base file system")
        directory = registry.folder() / name
        fds = [registry.take_name(name)]
        try:
            keeper.remove_stale(directory)
            index, claim = network.claim_free_index()
            fds.append(claim.detach())
            kept = None
            if node:
                kept, lock = store.take(store_dir)
                fds.append(lock)
            settings = Settings(
                name=name,
                index=index,
                directory=directory,
                binaries=binaries,
                node=node,
                kwok_nodes=kwok_nodes,
                store=kept.root if kept else None,
                environments=cache_root() / "venvs" if kept else None,
                die_with_parent=die_with_parent,
            )
            _prepare(settings)
            steps.done("certificates")
            cluster = cls(settings)
            cluster._start_keeper(fds)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            cluster._come_up(steps)
        except BaseException:
            kept_logs = directory.with_name(f"{name}.failed")
            shutil.rmtree(kept_logs, ignore_errors=True)
            shutil.copytree(settings.log, kept_logs)
            print(f"cluster {name} did not come up; its logs are in {kept_logs}", file=sys.stderr)
            cluster.down()
            raise
        return cluster

    @classmethod
    def get(cls, name: str) -> Cluster:
        """Return a handle on a cluster that is up.

        Raises:
            ClusterError: there is none of this name.
        """
        directory = registry.folder() / name
        if not (directory / keeper.COMPLETE).exists():
            raise ClusterError(f"cluster {name} is not up: python -m dev.cluster up --name {name}")
        return cls(Settings.load(directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def down(self) -> None:
        """Take the cluster down; nothing of it is left but its image store. Calling it again does no harm."""
        registry.take_down(self.name)
        if self._keeper:
            self._keeper.wait(timeout=60)

    def _start_keeper(self, fds: Sequence[int]) -> None:
        ourselves = os.pidfd_open(os.getpid())
        try:
            with (self.settings.log / "keeper.log").open("wb") as log:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-m", "dev.cluster.keeper", str(self.dir), *map(str, (ourselves, *fds))],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                    start_new_session=True,
                    pass_fds=(ourselves, *fds),
                )
        finally:
            os.close(ourselves)

    def _come_up(self, steps: _Steps) -> None:
        if self.settings.node:
            self._wait_for_milestone(box.CONTAINERD_UP)
            for image in (images.pause(self.bin), images.coredns(self.bin), images.base()):
                self.ensure_image(image)
            steps.done("images")
        self._wait_for_milestone(box.READY)
        wait_for("ServiceAccount default/default", lambda: self.kubectl("get", "serviceaccount", "default"))
        steps.done("control plane")
        if self.settings.kwok_nodes:
            nodes = {"apiVersion": "v1", "kind": "List", "items": components.fake_nodes(self.settings)}
            self.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(nodes))
            self.kubectl("wait", "--for=condition=Ready", "node", "-l", "type=kwok", "--timeout=60s")
            steps.done("fake nodes")
        if self.settings.node:
            template = string.Template((MANIFESTS / "coredns.yaml").read_text())
            manifest = template.substitute(dns_address=self.settings.dns_address)
            self.kubectl("apply", "--server-side", "-f", "-", input=manifest)
            self.kubectl("wait", "--for=create", f"node/{NODE_NAME}", "--timeout=60s")
            self.kubectl("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=60s")
            steps.done("node")
            self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
            steps.done("DNS")
        (self.dir / keeper.COMPLETE).touch()

    def _wait_for_milestone(self, name: str) -> None:
        def reached() -> bool:
            state = box.State.load(self.dir)
            for component, code in state.ended.items():
                raise ComponentFailed(component, code, self._log_tail(component))
            if state.error:
                raise ClusterError(f"the box of cluster {self.name} failed:\n{state.error}")
            if self._keeper and self._keeper.poll() is not None:
                raise ClusterError(f"the keeper of cluster {self.name} ended:\n{self._log_tail('keeper')}")
            return name in state.milestones

        wait_for(f"{name} of cluster {self.name}", reached, timeout=180, every=0.02)

    def _log_tail(self, component: str, lines: int = 15) -> str:
        try:
            text = (self.settings.log / f"{component}.log").read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    # ------------------------------------------------------------------------------------------------ Kubernetes

    def environment(self) -> dict[str, str]:
        """Return our environment variables with this cluster's kubeconfig and programs in front."""
        path = f"{self.bin}:{os.environ.get('PATH', '')}"
        own = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.dir / "kubectl-cache"), "PATH": path}
        return {**os.environ, **own}

    def kubectl(
        self, *args: str, input: str | None = None, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as cluster-admin.

        Raises:
            CommandFailed: it exited with an error (unless `check` is off) or ran longer than `timeout` seconds.
        """
        return run(self.bin / "kubectl", *args, input=input, check=check, timeout=timeout, env=self.environment())

    @functools.cached_property
    def reader(self) -> Reader:
        """Reads as cluster-admin, for loops that wait; kubectl is for everything else."""
        from dev.cluster.reader import Reader  # 1 s of imports that `make cluster` has no use for

        return Reader(self.kubeconfig)

    def client_kubeconfig(self, namespace: str, service_account: str, path: Path | None = None) -> Path:
        """Write a kubeconfig for a ServiceAccount, with a token that holds for a day, and return its path."""
        token = self.kubectl("-n", namespace, "create", "token", service_account, "--duration=24h").stdout.strip()
        path = path or self.dir / f"{namespace}.{service_account}.kubeconfig"
        pki.write_kubeconfig(self.settings, path, service_account, {"token": token}, namespace)
        return path

    # ------------------------------------------------------------------------------------------------ images

    def ensure_image(self, image: images.Image) -> bool:
        """Import an image of ours, unless the store has it with the same key; return whether it was imported."""
        kept = store.Store(self._store_root().parent)
        if kept.key_of(image.ref) == image.key and self.has_image(image.ref):
            return False
        if kept.key_of(image.ref):  # both versions together may be more than the disk has room for
            self._containerd.remove_image(image.ref)
        self._containerd.import_image(image)
        kept.note(image.ref, image.key)
        return True

    def ensure_vllm(self, environment: Path) -> bool:
        """Have the image `images.VLLM` made from a virtual environment; return whether it was imported."""
        linked = store.is_linked(store.Store(self._store_root().parent), images.VLLM)
        return self.ensure_image(images.vllm(environment, self._mounted() if linked else None))

    def ensure_sglang(self, environment: Path) -> bool:
        """The same for `images.SGLANG`, which tests alone use and which is therefore never worth a copy of 6 GB."""
        return self.ensure_image(images.sglang(environment, self._mounted()))

    def ensure_router(self, environment: Path) -> bool:
        """The same for `images.ROUTER`."""
        return self.ensure_image(images.router(environment, self._mounted()))

    def _mounted(self) -> tuple[Path, str]:
        assert self.settings.environments is not None, "a node mounts them"
        return self.settings.environments, ENVIRONMENTS_MOUNT

    def load_image(self, archive: Path | IO[bytes]) -> None:
        """Import every image of a docker or OCI archive (an uncompressed or gzipped tar, not seekable is fine)."""
        if isinstance(archive, Path):
            with archive.open("rb") as opened:
                self._containerd.import_archive(opened)
        else:
            self._containerd.import_archive(archive)

    def has_image(self, ref: str) -> bool:
        """Whether the node has an image of this name; `docker.io/` may be left out."""
        return self._containerd.has_image(ref)

    def image_refs(self) -> list[str]:
        """Return the names of all images of the node."""
        return sorted(name for name in self._containerd.images() if not name.startswith("sha256:"))

    def remove_image(self, ref: str) -> None:
        """Remove an image from the node; one that is not there is no error."""
        self._containerd.remove_image(ref)

    @property
    def _containerd(self) -> Containerd:
        self._store_root()
        return Containerd([*self._box_command("--mount", "--net", "--pid"), f"{self.bin}/ctr", "--namespace", "k8s.io"])

    def _store_root(self) -> Path:
        if self.settings.store is None:
            raise ClusterError(f"cluster {self.name} has no real node, so no images: bring it up with a node")
        return self.settings.store

    # ------------------------------------------------------------------------------------------------ the box

    def popen_in_box(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in the box's network, where it can listen at pod addresses; the host's files are visible.

        The process is a child of ours, so the returned object's signals reach it; it dies with the box at the latest.
        """
        net = f"--net=/proc/{self._box().pid}/ns/net"
        return subprocess.Popen(["nsenter", net, "--", *map(str, command)], **options)

    def kill_container(self, namespace: str, pod: str, container: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a container's first process.

        Raises:
            ClusterError: the pod has no such container, or it does not run.
        """
        found = json.loads(self.kubectl("-n", namespace, "get", "pod", pod, "-o", "json").stdout)
        for status in found["status"].get("containerStatuses", []):
            if status["name"] == container and "running" in status.get("state", {}):
                task = status["containerID"].removeprefix("containerd://")
                self._containerd.signal_container(task, number)
                return
        raise ClusterError(f"container {container} of pod {namespace}/{pod} does not run")

    def status(self) -> list[ProcessInfo]:
        """Return the box's own processes: the components, not what runs in pods."""
        inode = processes.namespace_of(self._box().pid, "pid")
        found = []
        for pid in processes.in_namespace("pid", inode):
            try:
                found.append(processes.info(pid))
            except OSError:
                continue  # it has just ended
        return found

    def memory_bytes(self) -> int:
        """Return the memory in use by everything in the box, page cache left out."""
        return cgroups.memory_bytes(self.settings.cgroup)

    def peak_memory_bytes(self) -> int:
        """Return the most memory that was seen in use (looked at once a second)."""
        try:
            return int((self.dir / keeper.PEAK_MEMORY).read_text())
        except (FileNotFoundError, ValueError):
            return self.memory_bytes()

    def _box(self) -> ProcessId:
        found = ProcessId.load(self.dir / keeper.BOX)
        if found is None or not found.alive():
            raise ClusterError(
                f"the box of cluster {self.name} has ended: python -m dev.cluster down --name {self.name}"
            )
        return found

    def _box_command(self, *namespaces: str) -> list[str]:
        return ["nsenter", f"--target={self._box().pid}", *namespaces, "--"]


class _Steps:
    """Tells the seconds between one step's end and the next one's."""

    def __init__(self, on_step: OnStep | None) -> None:
        self._on_step = on_step
        self._last = time.monotonic()

    def done(self, name: str) -> None:
        now = time.monotonic()
        if self._on_step:
            self._on_step(name, now - self._last, False)
        self._last = now


def _prepare(settings: Settings) -> None:
    """Write what the keeper, the box and the components read."""
    hidden = [path for path in ("/run", "/var/lib", "/var/log") if settings.directory.is_relative_to(path)]
    if hidden:
        raise ClusterError(f"{settings.directory} lies under {hidden[0]}, which a box hides: set GENRM_CACHE elsewhere")
    for folder in (settings.directory, settings.log, settings.etc):
        folder.mkdir(parents=True)
    settings.save()
    if settings.store:
        settings.store.mkdir(parents=True, exist_ok=True)
    if settings.environments:
        settings.environments.mkdir(parents=True, exist_ok=True)
    shutil.copy(MANIFESTS / "kwok-stages.yaml", settings.etc)
    pki.make_pki(settings)
