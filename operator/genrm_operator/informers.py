"""What belongs to RewardModels, followed: listed once, then watched for as long as the operator runs.

An informer as client-go has them. Kopf watches the RewardModels; of their pods, Leases and other children nobody wants
more than to know, and what Kopf does for an object (a queue, a task and a memory for each, handlers that are matched
with every event) took as much CPU as all looks together. Three things are ours to decide here, too:

* What was deleted while nobody watched is in no list: what was known before, and is not listed, is forgotten.
* A list comes page by page, and the API server may forget it before its last one (410); then it is taken in one piece.
* Where nobody reads more than the metadata, only they are asked for: a door's ConfigMap is tens of kilobytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from genrm_api.names import LABEL_REWARD_MODEL

from genrm_operator.cache import Cache, Key, Putter
from genrm_operator.errors import ApiError, Expired
from genrm_operator.kube import KINDS, Kube
from genrm_operator.patience import Patience
from genrm_operator.relisting import forget_what_is_gone
from genrm_operator.watches import SILENCE_SECONDS, Watches
from genrm_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 0.1
WATCH_SECONDS: Final = 240
"""A watch is renewed before proxies in between forget it."""
_PLURALS: Final = {kind: plural for plural, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Informed:
    """One kind of object with our label, and where its newest state is kept. The API server selects: a cluster has many
    more pods, and a Lease for each node."""

    kind: str
    put: Callable[[Cache], Putter]
    whole: bool = True
    """Or its metadata alone."""

    @property
    def plural(self) -> str:
        return _PLURALS[self.kind]


def _child(kind: str, *, whole: bool = False) -> Informed:
    return Informed(kind, lambda cache: cache.child_putter(kind), whole)


INFORMED: Final[Sequence[Informed]] = (
    Informed("Pod", lambda cache: cache.put_pod),
    Informed("Lease", lambda cache: cache.put_lease),
    _child("Deployment", whole=True),  # its status says why there are no pods
    _child("Service"),
    _child("NetworkPolicy"),
    _child("PodDisruptionBudget"),
    _child("ConfigMap"),
)


class Informer:
    """Of one kind in one namespace or, if that is empty, in all. `listed` is set once it is known what there is."""

    def __init__(
        self, kube: Kube, cache: Cache, queue: WorkQueue[Key], watches: Watches, what: Informed, namespace: str
    ) -> None:
        self._kube, self._cache, self._queue, self._watches = kube, cache, queue, watches
        self._what, self._namespace = what, namespace
        self._name = (what.plural, namespace)
        self._put = what.put(cache)
        self._version: str | None = None
        self._pauses: Iterator[float] = iter(Patience())
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._list_and_watch()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            except Expired as error:
                log.info("%s are listed again: %s", self._what.plural, error)
                self._version = None
                self._watches.failed(self._name, str(error))
            except ApiError as error:
                self._watches.failed(self._name, str(error))
                log.warning("cannot follow %s: %s", self._what.plural, error)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._watches.failed(self._name, repr(error))
                log.info("the watch of %s broke off: %r", self._what.plural, error)
            except Exception as error:
                self._version = None
                self._watches.failed(self._name, repr(error))
                log.exception("cannot follow %s by a bug of ours", self._what.plural)
            await asyncio.sleep(next(self._pauses))

    async def _list_and_watch(self) -> None:
        if self._version is None:
            self._version = await self._list()
            self.listed.set()
        watching = self._kube.watch(
            self._what.kind,
            self._namespace,
            LABEL_REWARD_MODEL,
            self._version,
            whole=self._what.whole,
            seconds=WATCH_SECONDS,
            silence=SILENCE_SECONDS,
        )
        async with watching as stream:
            self._watches.heard(self._name)
            async for line in _lines(stream):
                self._watches.heard(self._name)
                self._pauses = iter(Patience())
                self._see(json.loads(line))

    async def _list(self) -> str:
        kind, before = self._what.kind, self._cache.known(self._what.kind, self._namespace)
        found, version = await self._kube.list_to_watch(
            kind, self._namespace, LABEL_REWARD_MODEL, whole=self._what.whole
        )
        for obj in found:
            self._keep(obj, deleted=False)
        forget_what_is_gone(self._cache, self._queue, kind, self._namespace, before, found)
        return version

    def _see(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        if event["type"] == "ERROR":
            kind = Expired if obj.get("code") == 410 else ApiError
            raise kind(f"GET {self._what.plural}?watch", obj.get("code", 0), str(obj.get("message")))
        if event["type"] != "BOOKMARK":
            self._keep(obj, deleted=event["type"] == "DELETED")
        self._version = str(obj["metadata"]["resourceVersion"])

    def _keep(self, obj: dict[str, Any], *, deleted: bool) -> None:
        try:
            found = self._put(obj, deleted=deleted)
        except Exception:
            # Anybody may label an object like ours: one that cannot be read keeps nothing from the others.
            meta = obj["metadata"]
            log.exception("left out by a bug of ours %s=%s/%s", self._what.kind, meta["namespace"], meta["name"])
            return
        for key in (*found.others, *((found.key,) if found.news or deleted else ())):
            self._queue.add(key)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Of any length: an object may have more than a reader of lines would hold."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
