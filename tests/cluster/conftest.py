"""The cluster tier: a real control plane, the chart, the operator as a process under the chart's own account.

Nodes are kwok's, engines are the simulator behind the real door. The simulator runs inside the cluster's box, where
every fake pod's address is its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name, micro_time
from genrm_door.weights import Weights, look_up

from dev.bootstrap import ROOT
from dev.cluster import Cluster
from tests.cluster.api import Api
from tests.simulator.client import Simulator, free_port

T = TypeVar("T")
SYSTEM = "genrm-system"
RELEASE = "genrm-operator"


def wait_for(what: str, look: Callable[[], T | Literal[False] | None], timeout: float = 30.0) -> T:
    """Wait until `look` returns something true, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}; last look: {found!r}")
        threading.Event().wait(0.05)
    return found


@dataclass
class Operator:
    """The operator as a process of this machine, with the permissions that the chart gives it and no others."""

    kubeconfig: Path
    key: Path
    log: Path
    name: str = "operator-0"
    module: str = "genrm_operator"
    metrics_port: int = 0
    """Where this process shows its metrics; another one after each start."""
    process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> None:
        """Start it; `more` is added to its environment."""
        self.metrics_port = free_port()
        environment = {
            **os.environ,
            **more,
            "KUBECONFIG": str(self.kubeconfig),
            "GENRM_MASTER_KEY_FILE": str(self.key),
            "GENRM_METRICS_PORT": str(self.metrics_port),
            "GENRM_LEADER_LEASE": f"{SYSTEM}/{RELEASE}",
            "GENRM_POD_NAME": self.name,
            "GENRM_HOST_MODEL_PREFIXES": "/models",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", self.module]
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=ROOT)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.signal(number)
        assert self.process is not None
        self.process.wait(timeout=30)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class World:
    """What a test has: kubectl, the simulator, the operator, and a namespace of its own."""

    cluster: Cluster
    simulator: Simulator
    operator: Operator
    namespace: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:8]}")

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cluster.kubectl("-n", self.namespace, *args, input=input, check=check)

    def apply(self, name: str = "judge", **spec: Any) -> None:
        whole = {"model": {"uri": "hf://test/judge"}, "replicas": 2, **spec}
        manifest = {
            "apiVersion": "genrm.dev/v1alpha1",
            "kind": "RewardModel",
            "metadata": {"name": name},
            "spec": whole,
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(manifest))

    def patch(self, spec: dict[str, Any], name: str = "judge") -> None:
        self.kubectl("patch", "rm", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def objects(self, resources: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of some kinds: their plurals, separated by commas."""
        read = self.cluster.reader
        return [found for kind in resources.split(",") for found in read.list(kind, self.namespace, selector)]

    def status(self, name: str = "judge") -> dict[str, Any]:
        return dict(self.cluster.reader.get("rewardmodels", self.namespace, name).get("status") or {})

    def condition(self, kind: str, name: str = "judge") -> dict[str, Any]:
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == kind), {})

    def pods(self, name: str = "judge") -> list[dict[str, Any]]:
        return [
            p
            for p in self.objects("pods", f"genrm.dev/reward-model={name}")
            if "deletionTimestamp" not in p["metadata"]
        ]

    def addresses(self, name: str = "judge") -> list[str]:
        return sorted(p["status"]["podIP"] for p in self.pods(name) if p["status"].get("podIP"))

    def serving(self, name: str = "judge") -> list[str]:
        """Pod addresses that clients see: the ready endpoints of the headless Service."""
        slices = self.objects("endpointslices", f"kubernetes.io/service-name={name}-pods")
        endpoints = [e for s in slices for e in s.get("endpoints") or [] if e.get("conditions", {}).get("ready")]
        return sorted(address for e in endpoints for address in e["addresses"])

    def events(self) -> list[tuple[str, str]]:
        return [
            (e["reason"], e["message"]) for e in self.objects("events") if e["involvedObject"]["kind"] == "RewardModel"
        ]

    def phase(self, wanted: str, name: str = "judge", timeout: float = 30.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status(name)
            return status if status.get("phase") == wanted else None

        try:
            return wait_for(f"{name} in phase {wanted}", reached, timeout)
        except AssertionError as error:
            tail = "\n".join(self.operator.log.read_text().splitlines()[-30:])
            raise AssertionError(
                f"{error}\nstatus {json.dumps(self.status(name), indent=1)}\noperator:\n{tail}"
            ) from None

    def restart(self, pod: Mapping[str, Any]) -> None:
        """Say of a pod what a kubelet says when its container has restarted; kwok never does."""
        (container,) = pod["status"]["containerStatuses"]
        told = {"status": {"containerStatuses": [{**container, "restartCount": container["restartCount"] + 1}]}}
        name = pod["metadata"]["name"]
        self.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(told))

    def lease(self, run: str, phase: Phase, ttl: int = 30, name: str = "judge") -> None:
        """Create a run's Lease, or write its phase; a renewal either way."""
        now = datetime.now(UTC)
        manifest = lease_manifest(run, name, self.namespace, phase, now, ttl)
        created = self.kubectl("create", "-f", "-", input=json.dumps(manifest), check=False)
        if created.returncode:
            self.renew(run, phase, name)

    def renew(self, run: str, phase: Phase, name: str = "judge", needed_in: float | None = None) -> None:
        said = None if needed_in is None else str(needed_in)
        patch = {
            "metadata": {"annotations": {"genrm.dev/phase": str(phase), "genrm.dev/needed-in-seconds": said}},
            "spec": {"renewTime": micro_time(datetime.now(UTC))},
        }
        self.kubectl("patch", "lease", lease_name(run, name), "--type=merge", "-p", json.dumps(patch))

    def release(self, run: str, name: str = "judge") -> None:
        self.kubectl("delete", "lease", lease_name(run, name))

    def calls(self, route: str, name: str = "judge") -> dict[str, int]:
        """How often each of a model's engines was called on a route."""
        return {ip: sum(c["path"] == route for c in self.simulator.pod(ip)["calls"]) for ip in self.addresses(name)}


class SimulatedKubelet:
    """Tells the simulator each fake pod's environment, as a kubelet would give it to the container.

    It also plays the launcher's part: which weights the container reads is looked up by the real code, in the pod's own
    environment and with the ConfigMap that the pod mounts for it. Pods that name no hub of a test are offline.
    """

    def __init__(self, cluster: Cluster, simulator: Simulator) -> None:
        self._cluster, self._simulator = cluster, simulator
        self._known: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._follow())
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SimulatedKubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    async def _follow(self) -> None:
        async with Api.connect(self._cluster.settings.kubeconfig("admin")) as api:
            async for kind, pod in api.follow("/api/v1/pods?labelSelector=genrm.dev%2Fcomponent%3Dengine"):
                if kind != "DELETED":
                    await self._tell(api, pod)
                elif _slot(pod):
                    self._forget(pod["metadata"]["uid"])

    def _forget(self, uid: str) -> None:
        """Its container is gone, and its GPUs are somebody else's."""
        for address in [address for address, known in self._known.items() if known == uid]:
            del self._known[address]
            self._simulator.forget(address)

    async def _tell(self, api: Api, pod: Mapping[str, Any]) -> None:
        uid, address = pod["metadata"]["uid"], pod["status"].get("podIP")
        if not address or self._known.get(address) == uid:
            return
        container = pod["spec"]["containers"][0]
        env = {e["name"]: e.get("value", "") for e in container.get("env", [])}
        args = container.get("args") or []
        weights = await _weights(api, pod, args, env)
        model = args[args.index("--served-model-name") + 1] if "--served-model-name" in args else "judge"
        settings = {
            "tokenSha256": env.get("GENRM_TOKEN_SHA256", ""),
            "revision": env.get("GENRM_REVISION", ""),
            "model": model,
            "engine": _simulated(env.get("GENRM_ENGINE", "custom"), args),
            "weights": weights.to_json(),
            "slot": _slot(pod),
        }
        if address in self._known:
            self._simulator.forget(address)
        self._simulator.put(address, settings=settings)
        self._known[address] = uid


async def _weights(api: Api, pod: Mapping[str, Any], args: list[str], env: Mapping[str, str]) -> Weights:
    """What the launcher of this pod finds."""
    names = (v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "weights-pin")
    maps = f"/api/v1/namespaces/{pod['metadata']['namespace']}/configmaps"
    mounted = [m for name in names for m in await api.items(f"{maps}?fieldSelector=metadata.name%3D{name}")]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in (mounted[0]["data"] if mounted else {}).items():
            (Path(folder) / file).write_text(text)
        offline = {} if "HF_ENDPOINT" in env else {"HF_HUB_OFFLINE": "1"}
        return look_up(args, {**env, **offline, "GENRM_PIN_DIR": folder})[0]


def _slot(pod: Mapping[str, Any]) -> str:
    """The GPUs that it shares."""
    env = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0].get("env", [])}
    claims = [c["resourceClaimName"] for c in pod["spec"].get("resourceClaims", [])]
    return f"{claims} {env.get('NVIDIA_VISIBLE_DEVICES')}" if "GENRM_START_GATE" in env else ""


def _simulated(engine: str, args: list[str]) -> str:
    """The simulator's name for what a container starts."""
    kinds = {("vllm", True): "vllm-pooling", ("sglang", True): "sglang-embedding"}
    return kinds.get((engine, bool({"pooling", "--is-embedding"} & set(args))), engine)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster.up(f"kwok-{os.getpid()}", node=False, kwok_nodes=1, die_with_parent=True) as up:
        yield up


@contextmanager
def simulated_engines(cluster: Cluster) -> Iterator[Simulator]:
    """An engine behind a door at every address that a fake pod of this cluster has."""
    process = cluster.popen_in_box(
        [sys.executable, "-m", "tests.simulator", "--port", "8000", "--control", f"{cluster.settings.address}:9000"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), f"the simulator did not start: {line!r}"
        simulator = Simulator(8000, f"{cluster.settings.address}:9000")
        with SimulatedKubelet(cluster, simulator):
            yield simulator
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def simulator(cluster: Cluster) -> Iterator[Simulator]:
    with simulated_engines(cluster) as simulator:
        yield simulator


def install_chart(cluster: Cluster) -> None:
    """Install the real chart. Its pod is a fake one here; what counts are the CRD and the permissions."""
    command = [
        "upgrade",
        "--install",
        RELEASE,
        str(ROOT / "charts" / "genrm-operator"),
        "-n",
        SYSTEM,
        "--create-namespace",
    ]
    done = subprocess.run(
        [str(cluster.bin / "helm"), *command], env=cluster.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    cluster.kubectl("wait", "--for=condition=Established", "crd/rewardmodels.genrm.dev", "--timeout=30s")


@pytest.fixture(scope="session")
def chart(cluster: Cluster) -> None:
    install_chart(cluster)


def prepare_operator(cluster: Cluster, folder: Path) -> Operator:
    """An operator that is not started yet, with the chart's account."""
    key = folder / "key"
    key.write_text(uuid.uuid4().hex * 2)
    return Operator(cluster.client_kubeconfig(SYSTEM, RELEASE, folder / "kubeconfig"), key, folder / "log")


@pytest.fixture(scope="session")
def running_operator(cluster: Cluster, chart: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = prepare_operator(cluster, tmp_path_factory.mktemp("operator"))
    operator.start()
    yield operator
    operator.kill(signal.SIGTERM)
    trouble = [
        line
        for line in operator.log.read_text().splitlines()
        if re.search(r"Traceback|by a bug of ours|WARNING.*: 403: ", line)
    ]
    assert not trouble, f"the operator complained: {trouble}; see {operator.log}"


@pytest.fixture
def world(cluster: Cluster, simulator: Simulator, running_operator: Operator) -> Iterator[World]:
    if not running_operator.alive():
        running_operator.start()
    made = World(cluster, simulator, running_operator)
    cluster.kubectl("create", "namespace", made.namespace)
    yield made
    violations = [ip for ip, pod in simulator.pods().items() if pod["violations"]]
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")
    assert not violations, f"requests reached sleeping engines: {violations}"
