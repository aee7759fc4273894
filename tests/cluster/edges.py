"""Many models at once, each held at an edge of its own: what `test_edges` is played with.

An *edge* is one order of the operator, to a pod or to the API server, and a moment: before anybody has heard of it, or
when it is done and its answer is on its way. Orders are not listed anywhere here. Scouts, one model of each kind, go
every way undisturbed, and the network tells what was said (`orders`).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.leases import Phase, lease_manifest

from tests.cluster.apiserver import ApiProxy
from tests.cluster.conftest import World, wait_for
from tests.simulator.holds import Hold, When

CHAT: Final = "/v1/chat/completions"
CONFIRM: Final = "GET /is_sleeping"
RUN: Final = "run-1"
SECONDS: Final = 90.0
"""For everything that many models do together; it takes a few."""


class Then(enum.StrEnum):
    """When the call that was held is delivered, or answered; its sender is dead."""

    AT_ONCE = "at once"
    MEANWHILE = "while the next one begins"
    TOO_LATE = "when the next one has done it, and the contrary since"


@dataclass(frozen=True)
class Edge:
    life: str
    call: str
    when: When
    skip: int = 0
    at_api: bool = False


@dataclass(eq=False)
class Model:
    """One RewardModel with one pod, and the call of its operator that is held."""

    name: str
    life: str
    spec: Mapping[str, Any]
    edge: Edge | None = None
    address: str = ""
    uid: str = ""
    hold: Hold | None = None
    """At the API server; that of a pod is the simulator's."""

    def __str__(self) -> str:
        return f"{self.name} ({self.life}{f', {self.edge.when} {self.edge.call}' if self.edge else ''})"


def orders(said: Sequence[str]) -> list[tuple[str, int]]:
    """The orders among what a pod heard on one way, and the question right after each whether it was obeyed; with how
    many calls of that name come before."""
    kept = []
    for number, call in enumerate(said):
        engines = number > 0 and said[number - 1].startswith("POST /")
        if call != f"POST {CHAT}" and (not call.startswith("GET") or engines):
            kept.append((call, said[:number].count(call)))
    return kept


@dataclass
class Crowd:
    """The models of one test, in a world whose operator goes through the proxy."""

    world: World
    api: ApiProxy
    models: list[Model] = field(default_factory=list)

    # -- what people and runs do

    def come(self, models: Iterable[Model] | None = None) -> None:
        """More of them, or those that are known already."""
        new = self.models if models is None else list(models)
        self.models = [*(model for model in self.models if model not in new), *new]
        kind = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel"}
        self._apply(
            kind
            | {
                "metadata": {"name": m.name},
                "spec": {"model": {"uri": "hf://test/judge", "servedName": "judge"}, "replicas": 1, **m.spec},
            }
            for m in new
        )

    def ask(self, phase: Phase, models: Iterable[Model] | None = None) -> None:
        """One run says what it needs of all of them."""
        now, namespace = datetime.now(UTC), self.world.namespace
        asked = self.models if models is None else models
        self._apply(lease_manifest(RUN, m.name, namespace, phase, now, ttl_seconds=600) for m in asked)

    def _apply(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.world.kubectl("apply", "-f", "-", input=json.dumps(whole))

    # -- what is there

    def settled(self, awake: Collection[str]) -> None:
        """Wait until the models of these names serve and all others rest, by every account that there is."""
        try:
            wait_for("all is as wanted", lambda: not self._unlike(awake), SECONDS, every=0.25)
        except AssertionError:
            tail = "\n".join(self.world.operator.log.read_text().splitlines()[-60:])
            raise AssertionError(f"operator:\n{tail}\n{self._unlike(awake)}") from None

    def _unlike(self, awake: Collection[str]) -> list[str]:
        statuses = {o["metadata"]["name"]: o.get("status") or {} for o in self.world.objects("rewardmodels")}
        granted = {
            o["metadata"]["labels"]["genrm.dev/reward-model"]
            for o in self.world.objects("leases")
            if "genrm.dev/granted" in o["metadata"]["annotations"]
        }
        simulated = self.world.simulator.pods()
        pods = self._pods()
        wrong = []
        for model in self.models:
            wants, status = model.name in awake, statuses.get(model.name, {})
            degraded = [
                c["message"] for c in status.get("conditions", []) if c["type"] == "Degraded" and c["status"] == "True"
            ]
            found: list[Any] = [status.get("phase") == ("Serving" if wants else "Asleep"), not degraded]
            found += [(model.name in granted) == wants, len(pods.get(model.name, [])) == 1]
            for pod in pods.get(model.name, []):
                model.address = pod["status"].get("podIP", "")
                model.uid = model.uid or pod["metadata"]["uid"]
                truth = simulated.get(model.address, {})
                found += [("genrm.dev/serving" in pod["metadata"]["labels"]) == wants]
                found += [truth.get("up") == wants, model.uid == pod["metadata"]["uid"]]
                if "state" in truth:  # a door's
                    found += [(truth["state"] == "serving") == wants, truth["state"] in ("serving", "asleep", "gated")]
            if not all(found):
                wrong.append(f"{model}: phase {status.get('phase')}, {degraded}, {found}")
        return wrong

    def _pods(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for pod in self.world.objects("pods", "genrm.dev/component=engine"):
            if "deletionTimestamp" not in pod["metadata"]:
                found.setdefault(pod["metadata"]["labels"]["genrm.dev/reward-model"], []).append(pod)
        return found

    def said(self, model: Model) -> tuple[list[str], list[str]]:
        """What was said so far to the pod of a model, and to the API server about the model."""
        namespace = self.world.namespace
        told = [w.call for w in self.api.writes if w.namespace == namespace and w.is_of(model.name)]
        return (self.world.simulator.pod(model.address)["heard"] if model.address else []), told

    # -- what happens to the operator

    def arm(self) -> None:
        for model in self.models:
            if (edge := model.edge) is None:
                continue
            if edge.at_api:
                model.hold = self.api.hold(self.world.namespace, model.name, edge.call, edge.when)
            else:
                self.world.simulator.hold(model.address, edge.call, edge.when, edge.skip)

    def killed(self) -> None:
        """When every call that is to be held is held, the operator dies."""
        held = [model for model in self.models if model.edge is not None]

        def on_its_way() -> list[str]:
            pods = self.world.simulator.pods()
            return [str(m) for m in held if not self._hold(m, pods)["reached"]]

        try:
            wait_for("every call is held", lambda: not on_its_way(), SECONDS, every=0.1)
        except AssertionError:
            tail = "\n".join(self.world.operator.log.read_text().splitlines()[-40:])
            raise AssertionError(f"operator:\n{tail}\nnot held: {on_its_way()}") from None
        self.world.operator.kill()

    def succeeded(self) -> None:
        """Another one begins, and leads."""
        log = self.world.operator.log
        before = log.read_text().count("leads identity=")
        self.world.operator.start()
        wait_for("it leads", lambda: log.read_text().count("leads identity=") > before, SECONDS)

    def let_go(self, models: Iterable[Model] | None = None) -> None:
        """Deliver what is held, and see it delivered."""
        held = [model for model in (self.models if models is None else models) if model.edge is not None]
        for model in held:
            if model.hold is not None:
                self.api.let_go(model.hold)
            else:
                self.world.simulator.let_go(model.address)

        def delivered() -> bool:
            pods = self.world.simulator.pods()
            return all(self._hold(model, pods)["delivered"] for model in held)

        wait_for("all is delivered", delivered)

    def answers(self) -> dict[str, tuple[Edge, int | None]]:
        """What was answered in the end to each order that a pod heard of only then."""
        pods = self.world.simulator.pods()
        return {
            model.name: (model.edge, self._hold(model, pods)["status"])
            for model in self.models
            if model.edge is not None and not model.edge.at_api and model.edge.when is When.BEFORE
        }

    @staticmethod
    def _hold(model: Model, pods: Mapping[str, Any]) -> dict[str, Any]:
        if (hold := model.hold) is not None:
            return {"reached": hold.reached, "delivered": hold.delivered, "status": hold.status}
        return dict(pods[model.address]["held"])

    def repeated(self) -> list[str]:
        """Orders that came to an engine that had obeyed them already, and engines that died of an order."""
        found = []
        for model in self.models:
            pod = self.world.simulator.pod(model.address)
            found += [f"{model}: {order}" for order in repeats([call["path"] for call in pod["calls"]])]
            if pod["diedOf"] is not None:
                found.append(f"{model}: died of {pod['diedOf']}")
        return found


PAIRS: Final = (("/sleep", "/wake_up"), ("/release_memory_occupation", "/resume_memory_occupation"))


def repeats(paths: Sequence[str]) -> list[str]:
    """Of the orders that an engine got one after another, those that undo nothing; it begins awake."""
    found = []
    for down, up in PAIRS:
        before = up
        for path in paths:
            if path in (down, up):
                found += [path] if path == before else []
                before = path
    return found
