"""RewardFleets: whether the RewardModels that their terms name are there, and Ready.

A fleet has no pods and no children, and nothing is ever done for it: runs and gateways hold Leases on its models. So it
is enough to look now and then. That also bears a cluster whose administrator has not installed the resource.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.names import API_VERSION
from genrm_api.rewardfleet import RewardFleet
from genrm_api.status import Reason
from pydantic import ValidationError

from genrm_operator.cache import Cache
from genrm_operator.errors import ApiError, Deposed, Forbidden, KindAbsent, NotFound
from genrm_operator.kube import Kube
from genrm_operator.status import differs

log = logging.getLogger(__name__)

KIND: Final = "RewardFleet"
LOOK_SECONDS: Final = 5.0
ABSENT_SECONDS: Final = 60.0
"""Until the next look where the cluster has no such resource, or this account may not list it."""

Objects = Mapping[str, Mapping[str, Any]]
"""RewardModels of one namespace by name."""


def fleet_status(fleet: Mapping[str, Any], models: Objects, now: datetime) -> dict[str, Any]:
    """What to write into a fleet's status."""
    try:
        read = RewardFleet.model_validate(dict(fleet))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return _status(fleet, "Degraded", Reason.UNREADABLE, f"{field}: {first['msg']}", 0, 0, now)
    names = read.models
    ready = [name for name in names if name in models and _condition(models[name], "Ready") == "True"]
    counts = len(names), len(ready)
    if missing := [name for name in names if name not in models]:
        what = f"there is no RewardModel {', '.join(missing)} in this namespace; make it, or remove the term"
        return _status(fleet, "Degraded", Reason.MODEL_MISSING, what, *counts, now)
    if ailing := [name for name in names if _condition(models[name], "Degraded") == "True"]:
        what = f"RewardModel {', '.join(ailing)} is Degraded; look with kubectl describe rm {ailing[0]}"
        return _status(fleet, "Degraded", Reason.MODEL_DEGRADED, what, *counts, now)
    if resting := [name for name in names if name not in ready]:
        what = f"RewardModel {', '.join(resting)} is not Ready: it starts, wakes, or waits; look with kubectl get rm"
        return _status(fleet, "Waiting", Reason.MODEL_NOT_READY, what, *counts, now)
    what = f"all {len(names)} RewardModels are Ready" if names else "no term names a RewardModel"
    return _status(fleet, "Ready", Reason.AS_EXPECTED, what, *counts, now)


def _condition(obj: Mapping[str, Any], kind: str) -> str | None:
    found = (obj.get("status") or {}).get("conditions") or ()
    return next((str(c["status"]) for c in found if c["type"] == kind), None)


def _status(
    fleet: Mapping[str, Any], phase: str, reason: Reason, message: str, models: int, ready: int, now: datetime
) -> dict[str, Any]:
    word = "True" if phase == "Ready" else "False"
    found = (fleet.get("status") or {}).get("conditions") or ()
    before = next((c for c in found if c["type"] == "Ready" and c["status"] == word), None)
    generation = fleet["metadata"].get("generation")
    condition = {
        "type": "Ready",
        "status": word,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before else now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reason": str(reason),
        "message": message,
    }
    return {
        "observedGeneration": generation,
        "phase": phase,
        "conditions": [condition],
        "models": models,
        "ready": ready,
    }


class Fleets:
    """Looks until cancelled. `namespaces` empty: all."""

    def __init__(self, kube: Kube, cache: Cache, namespaces: Sequence[str], seconds: float = LOOK_SECONDS) -> None:
        self._kube, self._cache = kube, cache
        self._namespaces, self._seconds = namespaces or ("",), seconds

    async def run(self) -> None:
        while True:
            pause = self._seconds
            try:
                await self.look()
            except (KindAbsent, Forbidden) as error:
                log.debug("no RewardFleets are looked at: %s", error)
                pause = ABSENT_SECONDS
            except ApiError as error:
                log.warning("RewardFleets were not looked at: %s", error)
            except Deposed as error:
                log.info("RewardFleets were not looked at: %s", error)
            except Exception:
                log.exception("RewardFleets were not looked at by a bug of ours")
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Look at every fleet once, and write what differs.

        Raises:
            ApiError
        """
        models: dict[str, dict[str, Mapping[str, Any]]] = {}
        for (namespace, name), obj in self._cache.reward_models.items():
            models.setdefault(namespace, {})[name] = obj
        for watched in self._namespaces:
            for fleet in await self._kube.list_whole(KIND, watched):
                namespace, name = fleet["metadata"]["namespace"], fleet["metadata"]["name"]
                new = fleet_status(fleet, models.get(namespace, {}), datetime.now(UTC))
                if differs(new, fleet.get("status")):
                    await self._write(namespace, name, new)

    async def _write(self, namespace: str, name: str, status: Mapping[str, Any]) -> None:
        metadata = {"namespace": namespace, "name": name}
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
        try:
            await self._kube.apply_status(manifest)
        except NotFound:
            log.info("gone while looked at reward_fleet=%s/%s", namespace, name)
        except ApiError as error:  # one that cannot be written (it is invalid by now, say) keeps nothing from others
            log.warning("look failed reward_fleet=%s/%s %s", namespace, name, error)
