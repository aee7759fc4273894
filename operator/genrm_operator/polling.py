"""Children of a kind that the cluster may not know: listed now and then, because they cannot be watched.

LeaderWorkerSet is a resource of somebody else's, installed by whoever needs it, before us, after us or never. Kopf
looks once, at its start, which resources there are; a watch of an absent one would never begin. So these children are
listed as often as every RewardModel is looked at anyway. What is found goes where watches put theirs, and asks for a
look if it is news: drift is followed back, and what runs is known before the first look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from genrm_api.names import LABEL_REWARD_MODEL

from genrm_operator.cache import Cache, Key
from genrm_operator.errors import ApiError, Forbidden, KindAbsent
from genrm_operator.kube import Kube
from genrm_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

KIND: Final = "LeaderWorkerSet"
ABSENT: Final = (
    "spec.gpu.nodes: replicas that span nodes need LeaderWorkerSet (leaderworkerset.x-k8s.io/v1), which this cluster "
    "does not have; install it (https://lws.sigs.k8s.io), or write a model that fits one node and nodes: 1"
)
"""What is said of a model that needs one."""
RETRY_SECONDS: Final = 1.0


class Polling:
    """Lists until cancelled; `listed` is set once it is known what there is."""

    def __init__(
        self, kube: Kube, cache: Cache, queue: WorkQueue[Key], namespaces: Sequence[str], seconds: float
    ) -> None:
        self._kube, self._cache, self._queue = kube, cache, queue
        self._namespaces, self._seconds = namespaces or ("",), seconds
        self._forbidden = False
        self.listed = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                for key in await self._poll():
                    self._queue.add(key)
            except ApiError as error:
                log.warning("cannot list %s: %s", KIND, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("cannot list %s by a bug of ours", KIND)
                self.listed.set()  # models that need none of them go on
                await asyncio.sleep(self._seconds)
            else:
                self.listed.set()
                await asyncio.sleep(self._seconds)

    async def _poll(self) -> set[Key]:
        """List once; return the RewardModels for which there is news."""
        try:
            lists = [await self._kube.list(KIND, namespace, LABEL_REWARD_MODEL) for namespace in self._namespaces]
        except KindAbsent:
            lists = []
        except Forbidden as error:
            # An account from before this kind: models that need it are told when they are applied.
            if not self._forbidden:
                log.warning("cannot list %s: %s", KIND, error)
            self._forbidden = True
            return set()
        put = self._cache.child_putter(KIND)
        found = [obj for listed in lists for obj in listed]
        news = {key for obj in found for key, is_news, *_ in [put(obj, deleted=False)] if is_news}
        there = {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in found}
        return news | self._cache.drop_children(KIND, there)
