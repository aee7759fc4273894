"""The cluster tier: a real control plane, the chart, the operator as a process under the chart's own account.

Nodes are kwok's, engines are the simulator behind the real door. The simulator runs inside the cluster's box, where
every fake pod's address is its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name, micro_time

from dev.bootstrap import ROOT
from dev.cluster import Cluster
from tests.cluster.apiserver import ApiProxy
from tests.cluster.kubelet import SimulatedKubelet
from tests.simulator.client import Simulator, free_port

T = TypeVar("T")
SYSTEM = "genrm-system"
RELEASE = "genrm-operator"


PATIENT: Final = 90.0
"""Seconds. What is waited for takes one or two; a disk that was just given gigabytes may keep everybody for forty."""


def wait_for(
    what: str, look: Callable[[], T | Literal[False] | None], timeout: float = PATIENT, every: float = 0.05
) -> T:
    """Wait until `look` returns something true, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}; last look: {found!r}")
        threading.Event().wait(every)
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
    environment: dict[str, str] = field(default_factory=dict)
    """What every start of it adds to its environment."""
    attended: bool = False
    """Whether it is meant to run: who sends it a signal takes it into his own hands until the next start."""
    restarts: list[float] = field(default_factory=list, init=False)
    """When it was started again because it had ended by itself."""

    def start(self, **more: str) -> None:
        """Start it; `more` is added to its environment, this once."""
        self.metrics_port = free_port()
        environment = {
            **os.environ,
            **self.environment,
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
        self.attended = True  # not before it lives: who tends it would start another one of its name

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """While the block is open: if it ends by itself it is started again, as a kubelet would.

        It does where the API server answers no renewal for the length of a lease.
        """
        over = threading.Event()

        def tend() -> None:
            while not over.wait(0.1):
                if self.attended and not self.alive():
                    self.restarts.append(time.monotonic())
                    self.start()

        tending = threading.Thread(target=tend, name=f"kubelet-{self.name}", daemon=True)
        tending.start()
        try:
            yield
        finally:
            over.set()
            tending.join()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.signal(number)
        assert self.process is not None
        self.process.wait(timeout=30)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.attended = False
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

    def phase(self, wanted: str, name: str = "judge", timeout: float = PATIENT) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status(name)
            return status if status.get("phase") == wanted else None

        return wait_for(f"{name} in phase {wanted}", reached, timeout)

    def described(self) -> str:
        """RewardModels, pods, events and the end of the operator's log, for who looks at a failure."""
        models = [f"{rm['metadata']['name']}: {json.dumps(rm.get('status'))}" for rm in self.objects("rewardmodels")]
        pods = [f"{pod['metadata']['name']}: {json.dumps(pod['status'])}" for pod in self.objects("pods")]
        events = [f"{reason}: {note}" for reason, note in self.events()]
        return "\n".join([*models, *pods, *events, *self.operator.log.read_text().splitlines()[-60:]])

    def restart(self, pod: Mapping[str, Any]) -> None:
        """Say of a pod what a kubelet says when its container has restarted; kwok never does."""
        (container,) = pod["status"]["containerStatuses"]
        told = {"status": {"containerStatuses": [{**container, "restartCount": container["restartCount"] + 1}]}}
        name = pod["metadata"]["name"]
        self.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(told))

    def lease(self, run: str, phase: Phase, ttl: int = 120, name: str = "judge") -> None:
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


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster.up(f"kwok-{os.getpid()}", node=False, kwok_nodes=1, die_with_parent=True) as up:
        yield up


@contextmanager
def simulated_engines(cluster: Cluster) -> Iterator[Simulator]:
    """An engine behind a door at every address that a fake pod of this cluster has."""
    process = cluster.popen_in_box(
        [sys.executable, "-m", "tests.simulator", "--port", "8000", "--control", f"{cluster.settings.address}:9000",
         "--patience", "5"],
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


def assert_well(operator: Operator) -> None:
    """It met nothing that its authors had not thought of."""
    lines = operator.log.read_text().splitlines()
    trouble = [line for line in lines if re.search(r"Traceback|by a bug of ours|WARNING.*: 403: ", line)]
    assert not trouble, f"the operator complained: {trouble}; see {operator.log}"


@pytest.fixture(scope="session")
def running_operator(cluster: Cluster, chart: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = prepare_operator(cluster, tmp_path_factory.mktemp("operator"))
    operator.start()
    yield operator
    operator.kill(signal.SIGTERM)
    assert_well(operator)


@contextmanager
def a_world(cluster: Cluster, simulator: Simulator, operator: Operator) -> Iterator[World]:
    """With a running operator, and in the end a look at whether any request has reached a sleeper."""
    if not operator.alive():
        operator.start()
    made = World(cluster, simulator, operator)
    cluster.kubectl("create", "namespace", made.namespace)
    with operator.restarted():
        yield made
    violations = [ip for ip, pod in simulator.pods().items() if pod["violations"]]
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")
    assert not violations, f"requests reached sleeping engines: {violations}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, what there was at that moment: afterwards nobody could tell."""
    report = yield
    found: dict[str, Any] = getattr(item, "funcargs", {})
    world = found.get("world") or found.get("proxied")
    if report.when == "call" and report.failed and isinstance(world, World):
        try:
            there = world.described()
        except Exception as error:  # such as an API server that is gone: the test's own failure is still told
            there = repr(error)
        report.sections.append(("what there was", there))
    return report


@pytest.fixture
def world(cluster: Cluster, simulator: Simulator, running_operator: Operator) -> Iterator[World]:
    with a_world(cluster, simulator, running_operator) as made:
        yield made


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[ApiProxy]:
    with ApiProxy(cluster) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def behind_proxy(
    api: ApiProxy, running_operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """The operator once more, and it reaches the API server through the proxy; the usual one stands back."""
    if running_operator.alive():
        running_operator.kill(signal.SIGTERM)
    folder = tmp_path_factory.mktemp("operator-behind-proxy")
    kubeconfig = api.kubeconfig(running_operator.kubeconfig, folder / "kubeconfig")
    operator = dataclasses.replace(running_operator, kubeconfig=kubeconfig, log=folder / "log", process=None)
    operator.start()
    yield operator
    operator.kill(signal.SIGTERM)
    assert_well(operator)


@pytest.fixture
def proxied(cluster: Cluster, simulator: Simulator, behind_proxy: Operator) -> Iterator[World]:
    """A world whose operator's calls go through `api`."""
    with a_world(cluster, simulator, behind_proxy) as made:
        yield made
