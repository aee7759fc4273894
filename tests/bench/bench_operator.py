"""What the operator bears: `make bench-operator`.

Operator and control plane share this machine. RewardModels are created in parallel and asked for no pods; then each
gets pods (kwok's, with one simulator process for all their engines), is woken, rests, and is changed. `--compare` does
the first part with the least possible Kopf operator before: what a control plane bears differs from machine to machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from genrm_api.names import API_VERSION

from dev.cluster import Cluster
from tests.bench.common import (
    MODELS,
    NAMESPACE,
    Figure,
    Figures,
    Kubelet,
    beside,
    in_parallel,
    leading,
    prepared,
    processes,
    watching,
)
from tests.cluster.api import MERGE, Api
from tests.cluster.conftest import Operator, prepare_operator, simulated_engines

KINDS: Final = {
    "ConfigMap": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
}
OURS: Final = "?labelSelector=genrm.dev%2Freward-model"
CHILDREN: Final = 6
SERVICE_ADDRESSES: Final = 4000
"""Those of a cluster of ours, but for some; every RewardModel takes one."""


@dataclass
class Bench(Figures):
    api: Api
    operators: list[Operator]
    kubelet: Kubelet
    models: int

    async def writes(self) -> float:
        """Calls that change something, the leader's renewals left out."""
        total = 0.0
        for operator in self.operators:
            address = f"http://127.0.0.1:{operator.metrics_port}/metrics"
            async with aiohttp.ClientSession() as session, session.get(address) as answer:
                text = await answer.text()
            for labels, value in re.findall(r"^genrm_api_request_seconds_count\{(.*)\} (\S+)", text, re.MULTILINE):
                if not re.search(r'verb="(get|list)"|kind="Lease"', labels):
                    total += float(value)
        return total


def model(number: int) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "RewardModel",
        "metadata": {"name": f"judge-{number}", "namespace": NAMESPACE},
        "spec": {"model": {"uri": "hf://a/b"}, "replicas": 0, "lifecycle": {"state": "Awake"}},
    }


async def room_for_services(api: Api, models: int) -> None:
    """One more range of addresses for Services, where one would run full."""
    if models > SERVICE_ADDRESSES:
        cidr = {"metadata": {"name": "bench"}, "spec": {"cidrs": ["10.240.0.0/16"]}}
        await api.call("POST", "/apis/networking.k8s.io/v1/servicecidrs", cidr)


async def children(api: Api) -> dict[str, list[dict[str, Any]]]:
    return {kind: await api.items(path + OURS) for kind, path in KINDS.items()}


async def bench_children(bench: Bench) -> tuple[float, float]:
    """All RewardModels at once, no pods: how fast their children come, and what one costs; models a second and ms."""
    cpu, began = bench.kubelet.cpu(), time.monotonic()
    made = Tally()
    async with contextlib.AsyncExitStack() as stack:
        for path in KINDS.values():
            await stack.enter_async_context(made.counting(bench.api, path + OURS))
        await in_parallel(
            [lambda n=n: bench.api.call("POST", MODELS, model(n)) for n in range(bench.models)]  # type: ignore[misc]
        )
        created = time.monotonic() - began
        await made.reach(bench.models * CHILDREN, timeout=60 + bench.models)
        seconds = time.monotonic() - began
    bench.note("RewardModels created per second, by 32 clients", bench.models / created, "CR/s")
    bench.note("RewardModels whose six children exist, per second", bench.models / seconds, "CR/s", least=40)
    await quiet(bench, 0)
    cost = (bench.kubelet.cpu() - cpu) / bench.models * 1e3
    bench.note("operator CPU per RewardModel, its status included", cost, "ms", 12)
    return bench.models / seconds, cost


class Tally:
    """Counts objects of several watches by uid."""

    def __init__(self) -> None:
        self._uids: set[str] = set()
        self._more = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def counting(self, api: Api, path: str) -> AsyncIterator[None]:
        async def count() -> None:
            async for _, found in api.follow(path, metadata_only=True):
                async with self._more:
                    self._uids.add(found["metadata"]["uid"])
                    self._more.notify_all()

        async with beside(count()):
            yield

    async def reach(self, number: int, timeout: float) -> None:
        async with asyncio.timeout(timeout), self._more:
            await self._more.wait_for(lambda: len(self._uids) >= number)


async def quiet(bench: Bench, awake: int, timeout: float = 600.0) -> None:
    """Wait until every RewardModel's status tells of its present generation and of so many pods that serve.

    By a watch: asking the operator for its metrics again and again would be most of its work.
    """

    def told(found: dict[str, Any]) -> bool:
        status, generation = found.get("status") or {}, found["metadata"]["generation"]
        current = status.get("observedGeneration") == generation and status.get("awake", 0) == awake
        return current and status.get("phase") in ("Off", "Serving")

    async with watching(bench.api, MODELS, metadata_only=False) as models:
        await models.wait(
            lambda: len(models.objects) == bench.models and all(told(m) for m in models.objects.values()), timeout
        )


async def bench_rest(bench: Bench, resync: float) -> None:
    """Two resyncs without a change, and then changes one by one."""
    before, cpu = await bench.writes(), bench.kubelet.cpu()
    await asyncio.sleep(2 * resync + 1)
    bench.note("writes in two resyncs without a change", await bench.writes() - before, "calls", most=0)
    bench.note("operator CPU at rest", (bench.kubelet.cpu() - cpu) / (2 * resync + 1) * 100, "% of a core")
    took = []
    async with watching(bench.api, KINDS["Deployment"] + OURS) as deployments:
        await deployments.wait(lambda: len(deployments.objects) >= bench.models, 60)
        for number in random.Random(1).sample(range(bench.models), min(200, bench.models)):
            name = f"judge-{number}"
            before_change = deployments.objects[name]["metadata"]["generation"]
            began = time.monotonic()
            change = {"spec": {"engine": {"args": [f"--seed={number}"]}, "replicas": 0}}
            await bench.api.call("PATCH", f"{MODELS}/{name}", change, MERGE)
            await deployments.wait(
                lambda n=name, g=before_change: deployments.objects[n]["metadata"]["generation"] > g,  # type: ignore[misc]
                30,
            )
            took.append(time.monotonic() - began)
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    bench.note("a changed spec is in the Deployment, median", cuts[49] * 1e3, "ms")
    bench.note("a changed spec is in the Deployment, p99", cuts[98] * 1e3, "ms", most=500)


async def bench_pods(bench: Bench, pods: int, kills: int) -> None:
    """Pods for all: from the change of `replicas` to every pod labelled as serving."""
    cpu, began = bench.kubelet.cpu(), time.monotonic()
    total = bench.models * pods
    async with watching(bench.api, f"/api/v1/namespaces/{NAMESPACE}/pods{OURS}") as seen:
        killing = asyncio.create_task(kill_leaders(bench, kills))
        await in_parallel(
            [
                lambda n=n: bench.api.call("PATCH", f"{MODELS}/judge-{n}", {"spec": {"replicas": pods}}, MERGE)  # type: ignore[misc]
                for n in range(bench.models)
            ]
        )

        def all_serve() -> bool:
            if len(seen.objects) != total:
                return False
            return all(p["metadata"]["labels"].get("genrm.dev/serving") == "true" for p in seen.objects.values())

        await killing
        await seen.wait(all_serve, 300 + total)
        uids = {p["metadata"]["uid"] for p in seen.objects.values()}
    seconds = time.monotonic() - began
    bench.note(f"{total} pods verified, woken and labelled", seconds, "s")
    await quiet(bench, pods)
    bench.note("operator CPU per pod", (bench.kubelet.cpu() - cpu) / total * 1e3, "ms")
    found = await children(bench.api)
    counts = {kind: len(items) for kind, items in found.items()}
    assert sum(counts.values()) == bench.models * CHILDREN, counts
    assert len(uids) == total and all(d["status"].get("replicas") == pods for d in found["Deployment"])


async def kill_leaders(bench: Bench, kills: int) -> None:
    """Kill the leading operator again and again while the other one takes over."""
    for number in range(kills):
        await asyncio.sleep(1.0)
        leader = await leading(bench.api, bench.operators)
        leader.kill(signal.SIGKILL)
        leader.start()
        print(f"  leader {leader.name} killed ({number + 1} of {kills})", flush=True)


def sketch(models: int) -> tuple[float, float]:
    """The first part with the sketch instead of our operator."""

    async def measure(cluster: Cluster, operator: Operator) -> tuple[float, float]:
        async with Api.connect(cluster.settings.kubeconfig("admin")) as api:
            return await bench_children(Bench(api, [operator], Kubelet([operator]), models))

    with prepared() as cluster, tempfile.TemporaryDirectory() as folder:
        operator = prepare_operator(cluster, Path(folder))
        operator.module = "tests.bench.sketch_operator"
        operator.start()
        try:
            print("The sketch:", flush=True)
            return asyncio.run(measure(cluster, operator))
        finally:
            operator.kill(signal.SIGTERM)


async def run(
    cluster: Cluster, operators: list[Operator], args: argparse.Namespace, beside: tuple[float, float] | None
) -> list[Figure]:
    kubelet = Kubelet(operators)
    async with Api.connect(cluster.settings.kubeconfig("admin")) as api, kubelet.on_duty():
        bench = Bench(api, operators, kubelet, args.models)
        await leading(bench.api, bench.operators)
        await room_for_services(api, args.models)
        rate, cost = await bench_children(bench)
        if beside is not None:
            bench.note("children per second, of what the sketch makes", rate / beside[0], "x")
            bench.note("operator CPU, of what the sketch takes", cost / beside[1], "x")
        await bench_rest(bench, args.resync)
        if args.pods:
            await bench_pods(bench, args.pods, args.kills)
        bench.note("operator memory, peak", kubelet.most_megabytes, "MB", most=200)
        bench.note("operators that ended by themselves and were started again", kubelet.restarts, "times")
        return bench.figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=4, help="of each model in the second half; 0 leaves it out")
    parser.add_argument("--kills", type=int, default=0, help="how often the leader is killed while the pods come")
    parser.add_argument("--resync", type=float, default=30.0)
    parser.add_argument("--compare", action="store_true", help="measure the least possible operator before ours")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    beside = sketch(min(args.models, 300)) if args.compare else None
    with (
        prepared() as cluster,
        simulated_engines(cluster),
        processes(cluster, 2 if args.kills else 1, args.resync) as operators,
    ):
        figures = asyncio.run(run(cluster, operators, args, beside))
    if args.json:
        args.json.write_text(json.dumps([vars(figure) for figure in figures], indent=1) + "\n")
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
