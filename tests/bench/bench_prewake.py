"""Whether a run that lets its reward model sleep waits for it: `make bench-prewake`.

Steps of 90 to 180 s are replayed for wakes of 3, 10 and 30 s by three policies: awake ahead of the first judgement,
awake when it is there, always awake. With a clock that is a number in a second; `--real` plays a few steps in real time
(15 minutes), each policy and wake a model of its own with simulated engines, through real Leases and a real operator.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from genrm_api.names import API_VERSION
from genrm_scoring.kubernetes import run_lease
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from dev.cluster import Cluster
from tests.bench.common import MODELS, NAMESPACE, Seen, in_parallel, led, prepared, processes, watching
from tests.bench.prewake import WAKES, Policy, Replay, Row, Step, replay, rows, trace
from tests.cluster.conftest import Operator, simulated_engines
from tests.simulator.client import Simulator

SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PATIENCE = 120.0


def draw(replays: Sequence[Replay], path: Path) -> None:
    """One row a policy: when its engines hold their memory, and when they are needed."""
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    for row, made in enumerate(replays):
        axes.broken_barh([(b, e - b) for b, e in made.awake], (row - 0.3, 0.6), facecolors="#f2c14e")
        axes.broken_barh([(b, e - b) for b, e in made.needed], (row - 0.17, 0.34), facecolors="#2a9d4a")
        late = [(b, seconds) for (b, _), seconds in zip(made.needed, made.added, strict=True) if seconds > 0.2]
        axes.broken_barh(late, (row - 0.17, 0.34), facecolors="#d1495b")
    axes.set_yticks(range(len(replays)), [str(made.policy) for made in replays], fontsize=9)
    axes.set_ylim(len(replays) - 0.5, -0.5)
    axes.set_xlim(0, max(made.seconds for made in replays))
    axes.set_xlabel("seconds")
    axes.set_title(f"A wake takes {replays[0].wake_seconds:g} s: who waits for it", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    meaning = {"#f2c14e": "holds its memory", "#2a9d4a": "is needed", "#d1495b": "a step waits"}
    handles = [Patch(facecolor=colour, label=what) for colour, what in meaning.items()]
    figure.legend(handles=handles, ncols=3, loc="outside lower right", fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


class Played:
    """One model and one run, in real time."""

    def __init__(self, policy: Policy, wake: float, slices: Seen, simulator: Simulator, pods: Seen) -> None:
        self.name = f"{policy.split()[0]}-{wake:g}"
        self.policy, self.wake = policy, wake
        self._slices, self._simulator, self._pods = slices, simulator, pods
        self.replay = Replay(policy, wake)

    def manifest(self) -> dict[str, Any]:
        lifecycle = {"state": "Awake" if self.policy is Policy.NEVER else "Auto"}
        spec = {"model": {"uri": "hf://a/b"}, "replicas": 1, "lifecycle": lifecycle}
        metadata = {"name": self.name, "namespace": NAMESPACE}
        return {"apiVersion": API_VERSION, "kind": "RewardModel", "metadata": metadata, "spec": spec}

    def serves(self) -> bool:
        mine = (
            s for s in self._slices.objects.values()
            if s["metadata"]["labels"].get("kubernetes.io/service-name") == f"{self.name}-pods"
        )  # fmt: skip
        return any(e["conditions"].get("ready") for s in mine for e in s.get("endpoints") or ())

    def address(self) -> str:
        pods = (
            p for p in self._pods.objects.values() if p["metadata"]["labels"]["genrm.dev/reward-model"] == self.name
        )
        return str(next(pods)["status"]["podIP"])

    async def play(self, steps: Sequence[Step]) -> None:
        began = time.monotonic()

        def now() -> float:
            return time.monotonic() - began

        sampling = asyncio.create_task(self._sample(now))
        prewake = self.policy is Policy.PREWAKE
        async with run_lease(self.name, run="bench", namespace=NAMESPACE, prewake=prewake) as lease:
            for step in steps:
                at = now()
                await asyncio.sleep(step.first)
                first = now()
                async with lease.scoring():
                    await self._slices.wait(self.serves, PATIENCE)
                    late = now() - first
                    self.replay.added.append(late)
                    await asyncio.sleep(at + step.scored + late - now())
                self.replay.needed.append((first, now()))
                await asyncio.sleep(step.update)
        sampling.cancel()

    async def _sample(self, now: Callable[[], float]) -> None:
        """Five times a second: whether the engine's memory is up."""
        since: float | None = None
        while True:
            up = (await asyncio.to_thread(self._simulator.pod, self.address()))["up"]
            if up and since is None:
                since = now()
                self.replay.awake.append((since, since))
            if since is not None:
                self.replay.awake[-1] = (since, now())
            since = since if up else None
            await asyncio.sleep(0.2)


async def play(cluster: Cluster, simulator: Simulator, operators: list[Operator], steps: int) -> list[Replay]:
    os.environ["KUBECONFIG"] = str(cluster.settings.kubeconfig("admin"))
    async with (
        led(cluster, operators) as api,
        watching(api, SLICES, metadata_only=False) as slices,
        watching(api, MODELS, metadata_only=False) as models,
        watching(api, PODS, metadata_only=False) as pods,
    ):
        all_ = [Played(policy, wake, slices, simulator, pods) for wake in WAKES for policy in Policy]
        await in_parallel([lambda one=one: api.call("POST", MODELS, one.manifest()) for one in all_])  # type: ignore[misc]

        def settled() -> bool:
            phases = [((m.get("status") or {}).get("phase")) for m in models.objects.values()]
            return len(phases) == len(all_) and set(phases) <= {"Asleep", "Serving"}

        await models.wait(settled, PATIENCE)
        for one in all_:
            simulator.put(one.address(), faults={"slow": {"/wake_up": one.wake, "/sleep": 1.0}})
        await asyncio.gather(*(one.play(trace(steps, seed=1)) for one in all_))
        return [one.replay for one in all_]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=0, help="of each run: 80 of 12 runs, or 6 of one in real time")
    parser.add_argument("--real", action="store_true", help="in real time, through a real operator")
    parser.add_argument("--picture", type=Path, help="draw some steps into this PNG")
    args = parser.parse_args()
    if args.real:
        with (
            prepared() as cluster,
            simulated_engines(cluster) as simulator,
            processes(cluster, 1, resync=30.0) as operators,
        ):
            played = asyncio.run(play(cluster, simulator, operators, args.steps or 6))
        found = [Row.of([made]) for made in played]
        drawn = [made for made in played if made.wake_seconds == WAKES[1]]
    else:
        found = rows(args.steps or 80, runs=12)
        drawn = [replay(policy, trace(6, seed=1), WAKES[1]) for policy in Policy]
    for row in found:
        print(row)
    if args.picture:
        draw(drawn, args.picture)
    good = [
        row.added_p95 <= 0.2 and row.given_back >= 0.85 * row.possible for row in found if row.policy is Policy.PREWAKE
    ]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
