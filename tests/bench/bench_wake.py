"""What the operator adds to a wake, and to a handover of a GPU: `make bench-wake`.

A run's Lease wakes a model of 64 simulated engines that take a fixed time to wake, again and again. When each door
began to serve stands in its ledger; when clients can know, in the EndpointSlices. Then a run goes back and forth
between two models on one GPU. All clocks are this machine's: operator, control plane and engines share it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.leases import Phase, lease_manifest, lease_name, micro_time
from genrm_api.names import API_VERSION

from dev.cluster import Cluster
from tests.bench.common import MODELS, NAMESPACE, Figures, Seen, led, prepared, processes, watching
from tests.cluster.api import MERGE, Api
from tests.cluster.conftest import Operator, simulated_engines
from tests.simulator.client import Simulator

LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=genrm.dev%2Fcomponent%3Dengine"
SLICES: Final = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
RUN: Final = "bench"
SERVICES: Final = f"/api/v1/namespaces/{NAMESPACE}/services"
LABEL: Final = "bench.genrm.dev/labelled"
PATIENCE: Final = 120.0


@dataclass
class Bench(Figures):
    api: Api
    simulator: Simulator
    models: Seen
    pods: Seen
    slices: Seen

    async def lease(self, model: str) -> None:
        manifest = lease_manifest(RUN, model, NAMESPACE, Phase.IDLE, datetime.now(UTC), ttl_seconds=3600)
        await self.api.call("POST", LEASES, manifest)

    async def phase(self, model: str, phase: Phase) -> float:
        """Write it; the time at which that was begun."""
        began = time.time()
        patch = {
            "metadata": {"annotations": {"genrm.dev/phase": str(phase)}},
            "spec": {"renewTime": micro_time(datetime.now(UTC))},
        }
        await self.api.call("PATCH", f"{LEASES}/{lease_name(RUN, model)}", patch, MERGE)
        return began

    async def until_phase(self, wanted: str, *models: str) -> None:
        def reached() -> bool:
            statuses = [(self.models.objects.get(model) or {}).get("status") or {} for model in models]
            return all(status.get("phase") == wanted for status in statuses)

        await self.models.wait(reached, PATIENCE)

    def addresses(self, model: str) -> list[str]:
        mine = (p for p in self.pods.objects.values() if p["metadata"]["labels"]["genrm.dev/reward-model"] == model)
        return [pod["status"]["podIP"] for pod in mine]

    def known_to_clients(self, model: str) -> int:
        return self.ready_in(f"{model}-pods")

    def ready_in(self, service: str) -> int:
        mine = [
            s for s in self.slices.objects.values()
            if s["metadata"]["labels"].get("kubernetes.io/service-name") == service
        ]  # fmt: skip
        return sum(bool(e["conditions"].get("ready")) for s in mine for e in s.get("endpoints") or ())

    async def label(self, names: Sequence[str], value: str | None) -> None:
        """The bench's own label on these pods, as the operator writes its: all at once."""
        patch = {"metadata": {"labels": {LABEL: value}}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        await asyncio.gather(*(self.api.call("PATCH", f"{path}/{name}", patch, MERGE) for name in names))

    def served_at(self, model: str) -> list[float]:
        """When each of its doors began to serve."""
        return [_last(self.simulator.pod(address)["ledger"], "PUT serving") for address in self.addresses(model)]

    def slow(self, model: str, **seconds: float) -> None:
        for address in self.addresses(model):
            self.simulator.put(address, faults={"slow": {f"/{route}": took for route, took in seconds.items()}})


def _last(ledger: Sequence[Mapping[str, Any]], call: str) -> float:
    entry = next(entry for entry in reversed(ledger) if entry["call"] == call)
    return datetime.fromisoformat(entry["at"]).timestamp() + float(entry["seconds"])


def model(name: str, replicas: int, gpu: Mapping[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"model": {"uri": "hf://a/b"}, "replicas": replicas}
    if gpu is not None:
        spec["gpu"] = gpu
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": "RewardModel", "metadata": metadata, "spec": spec}


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


async def bench_wakes(bench: Bench, pods: int, wakes: int, engine_seconds: float) -> None:
    await bench.api.call("POST", MODELS, model("judge", pods))
    await bench.lease("judge")
    await bench.until_phase("Asleep", "judge")
    bench.slow("judge", wake_up=engine_seconds)
    shares, visible = [], []
    for _ in range(wakes):
        began = await bench.phase("judge", Phase.SCORING)
        await bench.slices.wait(lambda: bench.known_to_clients("judge") == pods, PATIENCE)
        known = time.time()
        served = max(bench.served_at("judge"))
        shares.append(served - began - engine_seconds)
        visible.append(known - served)
        await bench.phase("judge", Phase.IDLE)
        await bench.until_phase("Asleep", "judge")
    bench.note(f"operator's share of a wake of {pods} pods, median", statistics.median(shares), "s")
    bench.note(f"operator's share of a wake of {pods} pods, p99", p99(shares), "s", most=0.3)
    bench.note("last door serves to all in EndpointSlices, median", statistics.median(visible), "s")
    bench.note("last door serves to all in EndpointSlices, p99", p99(visible), "s", most=1.0)
    await bench_labels(bench, wakes)
    await bench.api.call("DELETE", f"{MODELS}/judge")


async def bench_labels(bench: Bench, times: int) -> None:
    """What the control plane alone takes for its part of it: a Service of the bench, and labels by the bench."""
    names = [pod["metadata"]["name"] for pod in bench.pods.objects.values()]
    ports = [{"port": 80}]
    spec = {"selector": {LABEL: "true"}, "clusterIP": "None", "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "labelled"}, "spec": spec}
    await bench.api.call("POST", SERVICES, service)
    took = []
    for _ in range(times):
        await bench.label(names, "true")
        labelled = time.time()
        await bench.slices.wait(lambda: bench.ready_in("labelled") == len(names), PATIENCE)
        took.append(time.time() - labelled)
        await bench.label(names, None)
        await bench.slices.wait(lambda: not bench.ready_in("labelled"), PATIENCE)
    bench.note(
        f"{len(names)} labels to EndpointSlices without an operator's part, median", statistics.median(took), "s"
    )
    bench.note(f"{len(names)} labels to EndpointSlices without an operator's part, p99", p99(took), "s")
    await bench.api.call("DELETE", f"{SERVICES}/labelled")


async def bench_handovers(bench: Bench, handovers: int, sleep_seconds: float, wake_seconds: float) -> None:
    slots = [{"name": "gpu-0", "node": "fake-0", "devices": [0]}]
    names = ["one", "two"]
    for name in names:
        await bench.api.call("POST", MODELS, model(name, 1, {"sharing": "Colocated", "slots": slots}))
        await bench.lease(name)
    await bench.until_phase("Asleep", *names)
    for name in names:  # each engine starts once
        await bench.phase(name, Phase.SCORING)
        await bench.until_phase("Serving", name)
        await bench.phase(name, Phase.IDLE)
        await bench.until_phase("Asleep", name)
        bench.slow(name, sleep=sleep_seconds, wake_up=wake_seconds)
    giver, taker = names
    await bench.phase(giver, Phase.SCORING)
    await bench.until_phase("Serving", giver)
    shares = []
    for _ in range(handovers):
        began = await bench.phase(giver, Phase.IDLE)
        await bench.phase(taker, Phase.SCORING)
        await bench.until_phase("Serving", taker)
        shares.append(max(bench.served_at(taker)) - began - sleep_seconds - wake_seconds)
        giver, taker = taker, giver
    bench.note(f"{handovers} handovers: beyond sleep and wake, median", statistics.median(shares), "s")
    bench.note(f"{handovers} handovers: beyond sleep and wake, most", max(shares), "s", most=0.5)
    bench.note("engines on one GPU that were up together", len(bench.simulator.collisions()), "times", most=0)


async def run(cluster: Cluster, simulator: Simulator, operators: list[Operator], args: argparse.Namespace) -> Figures:
    async with (
        led(cluster, operators) as api,
        watching(api, MODELS, metadata_only=False) as models,
        watching(api, PODS, metadata_only=False) as pods,
        watching(api, SLICES, metadata_only=False) as slices,
    ):
        bench = Bench(api, simulator, models, pods, slices)
        if args.wakes:
            await bench_wakes(bench, args.pods, args.wakes, args.engine_seconds)
        if args.handovers:
            await bench_handovers(bench, args.handovers, sleep_seconds=0.1, wake_seconds=0.2)
        return bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=64)
    parser.add_argument("--wakes", type=int, default=100)
    parser.add_argument("--engine-seconds", type=float, default=0.5, help="what an engine takes to wake")
    parser.add_argument("--handovers", type=int, default=200)
    args = parser.parse_args()
    with (
        prepared() as cluster,
        simulated_engines(cluster) as simulator,
        processes(cluster, 1, resync=30.0) as operators,
    ):
        bench = asyncio.run(run(cluster, simulator, operators, args))
    return int(any(figure.met is False for figure in bench.figures))


if __name__ == "__main__":
    sys.exit(main())
