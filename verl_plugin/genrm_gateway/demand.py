"""A Lease on a RewardModel while requests need it, and a little longer.

It is released, not set to idle: an idle Lease pins its model's revision, and a gateway has no run that would end.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from genrm_api.leases import Phase
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.cluster import Cluster
from genrm_scoring.errors import GenrmError
from genrm_scoring.leases import model_lease

log = logging.getLogger(__name__)

LINGER_SECONDS: Final = 10.0
"""After the last request: the next one of the same step should not find the engines asleep."""
AGAIN_SECONDS: Final = 1.0


class Demand:
    """Belongs to one event loop. `run` names the gateway's process among those that need the model."""

    def __init__(self, cluster: Cluster, model: RewardModel, run: str, linger: float = LINGER_SECONDS) -> None:
        self._cluster, self._model, self._run, self._linger = cluster, model, run, linger
        self._users = 0
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Who is inside waits for nothing: the request waits for endpoints, to its own deadline."""
        self._users += 1
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._hold(), name=f"demand-{self._model.name}")
        try:
            yield
        finally:
            self._users -= 1
            self._changed.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _hold(self) -> None:
        while self._users:
            # By another name each time: one that could not be deleted is there until it has expired.
            model, run = self._model, f"{self._run}-{next(self._numbers)}"
            held = model_lease(
                self._cluster, run, model.name, model.namespace, reward_model_uid=model.metadata.get("uid")
            )
            try:
                async with held as lease:
                    lease.set_phase(Phase.SCORING)
                    await self._unneeded()
            except GenrmError as e:
                log.warning("RewardModel %s/%s is not asked to wake: %s", model.namespace, model.name, e)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _unneeded(self) -> None:
        """Return when nobody has needed it for a while."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._users else self._linger):
                    await self._changed.wait()
            except TimeoutError:
                return
