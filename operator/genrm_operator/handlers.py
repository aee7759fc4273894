"""Kopf's part: watch, keep the caches current, ask for a look. No handler waits for anything.

Only `@kopf.index` and `@kopf.on.event` are used: they need no finalizers and no annotations, and repeat nothing by
themselves. Which setting of Kopf is changed, and why, stands beside each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import kopf
from genrm_api.names import API_VERSION, LABEL_REWARD_MODEL, REWARD_MODELS

from genrm_operator.cache import Cache, Key, Putter
from genrm_operator.doors import Doors
from genrm_operator.errors import ConfigurationError, Deposed
from genrm_operator.fleets import Fleets
from genrm_operator.health import queue_moves, reconciler_lives, serve
from genrm_operator.kube import Kube
from genrm_operator.leadership import Leadership
from genrm_operator.metrics import Metrics
from genrm_operator.polling import Polling
from genrm_operator.reconciler import Reconciler
from genrm_operator.relisting import Relisting
from genrm_operator.routers import Routers
from genrm_operator.settings import Settings
from genrm_operator.storages import NoDifferences, NoProgress
from genrm_operator.watches import SILENCE_SECONDS, Watches

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind of object, and where its newest state is kept."""

    group: str
    plural: str
    put: Callable[[Cache], Putter]
    ours: bool = True
    """Only those with our label. The API server selects: a cluster has many more pods, and a Lease for each node."""
    metadata_only: bool = False


def _child(group: str, plural: str, kind: str, *, metadata_only: bool = True) -> Watched:
    return Watched(group, plural, lambda cache: cache.child_putter(kind), metadata_only=metadata_only)


WATCHED: Sequence[Watched] = (
    Watched(API_VERSION, REWARD_MODELS, lambda cache: cache.put_reward_model, ours=False),
    Watched("v1", "pods", lambda cache: cache.put_pod),
    Watched("coordination.k8s.io/v1", "leases", lambda cache: cache.put_lease),
    _child("apps/v1", "deployments", "Deployment", metadata_only=False),  # its status says why there are no pods
    _child("v1", "services", "Service"),
    _child("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    _child("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    _child("v1", "configmaps", "ConfigMap"),
)


class Patience:
    """Pauses before Kopf asks the API server once more: without an end, where its default gives up after 54 s.

    Who gives up ends the process. That cures no API server that is away, and adds the kubelet's back-off to the wait.
    Short, too: whoever pauses for long is deaf when it is back.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.2, 0.5, 1.0, 2.0), itertools.repeat(5.0))


def configure(kopf_settings: kopf.OperatorSettings) -> None:
    """Kopf's defaults that would hurt here."""
    kopf_settings.posting.enabled = False  # our Events are written on purpose, not mirrored from logs
    kopf_settings.peering.standalone = True  # no peering objects: equal priorities would freeze every replica
    kopf_settings.scanning.disabled = True  # our resources are known, so no list/watch of CRDs and namespaces is needed
    kopf_settings.persistence.diffbase_storage = NoDifferences()  # the defaults copy every object, for nothing
    kopf_settings.persistence.progress_storage = NoProgress()
    kopf_settings.networking.request_timeout = 10.0  # default 300 s: a lost connection would stall a watch's start
    kopf_settings.networking.connect_timeout = 3.0
    kopf_settings.networking.error_backoffs = Patience()
    for watched in WATCHED:
        if watched.ours:  # the filters of Kopf's handlers work only on what was sent to us already
            kopf_settings.watching.label_selectors[watched.group, watched.plural] = LABEL_REWARD_MODEL
    kopf_settings.watching.reconnect_backoff = 0.1
    kopf_settings.watching.server_timeout = 240  # a watch is renewed before proxies in between forget it
    kopf_settings.watching.inactivity_timeout = SILENCE_SECONDS  # Kopf's own default; `watches` counts on it
    kopf_settings.watching.connect_timeout = 3.0
    kopf_settings.watching.chunk_size = 100  # default: all at once, and each door has tens of kilobytes
    # Kopf has a queue and a task for each object; kept for a minute they were a third of our memory
    kopf_settings.queueing.idle_timeout = 2.0


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Attach our handlers to a registry of our own, so that importing this module has no effect."""
    state: dict[str, Any] = {}

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        own: Settings = state["settings"]
        metrics, watches = Metrics(), state["watches"]
        kube = await Kube.connect(metrics)
        leadership = Leadership(kube, *own.leader_lease, own.identity) if own.leader_lease else None
        order = leadership.order if leadership else lambda: None
        doors, routers = Doors(order), Routers(order)
        guarded = kube.guarded(leadership.check) if leadership else kube
        reconciler = Reconciler(guarded, doors, routers, own, metrics)
        state.update(kube=kube, doors=doors, routers=routers, reconciler=reconciler, leadership=leadership)
        queue, leads = reconciler.queue, lambda: leadership is None or leadership.epoch is not None
        metrics.observe(queue_depth=queue.__len__, watches=watches, leads=leads)
        watches.expect((watched.plural for watched in WATCHED), own.namespaces)
        if own.metrics_port:  # before anything acts: who cannot listen ends at once
            checks = (reconciler_lives(lambda: state.get("task")), queue_moves(queue), watches.problems)
            try:
                state["server"] = await serve(own.metrics_port, metrics, checks)
            except ConfigurationError as error:
                raise kopf.PermanentError(str(error)) from error
        state["listening"] = asyncio.create_task(watches.run())
        state["relisting"] = asyncio.create_task(Relisting(kube, reconciler.cache, queue, watches).run())
        polling = Polling(kube, reconciler.cache, queue, own.namespaces, own.resync_seconds)
        state["polling"] = asyncio.create_task(polling.run())
        fleets = Fleets(guarded, reconciler.cache, own.namespaces)
        state["task"] = asyncio.create_task(_lead(leadership, reconciler, polling, fleets))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        state["reconciler"].stop()
        for task in (state["task"], state["listening"], state["relisting"], state["polling"]):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if state["leadership"] is not None:
            await state["leadership"].release()
        await state["doors"].__aexit__(None)
        await state["routers"].__aexit__(None)
        await state["kube"].close()
        if "server" in state:
            await state["server"].cleanup()

    state["settings"] = settings
    state["watches"] = Watches(time.monotonic, {w.plural for w in WATCHED if w.metadata_only})

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return state["watches"].session(found) if found is not None else None

    for watched in WATCHED:
        _watch(registry, state, watched)


async def _lead(leadership: Leadership | None, reconciler: Reconciler, polling: Polling, fleets: Fleets) -> None:
    """Work while this process leads. Until then the caches fill and the queue remembers who wants a look."""
    await polling.listed.wait()
    if leadership is not None:
        await leadership.acquire()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(reconciler.run())
            group.create_task(fleets.run())
            if leadership is not None:
                group.create_task(leadership.keep())
    except* Deposed as lost:
        # As in client-go's users: whatever was half done is over, and a fresh process stands by.
        log.error("leadership lost, the process ends: %s", lost.exceptions[0])
        signal.raise_signal(signal.SIGTERM)


def _watch(registry: kopf.OperatorRegistry, state: dict[str, Any], watched: Watched) -> None:
    """Follow one kind of object.

    The cache is filled by an *index* function, because Kopf calls no event handler of any kind before every index is
    complete: the first look must not happen while, say, the pods are known and the Leases that keep them awake are not.
    Both are coroutines, although they wait for nothing: Kopf runs plain functions in threads, and cache and queue
    belong to the event loop. An event that tells nothing new, like the echo of our own write, asks for no look.
    """
    news: dict[str, Key] = {}
    others: set[Key] = set()
    plural, put = watched.plural, watched.put

    @kopf.index(watched.group, plural, registry=registry, id=f"{plural}-cache")
    async def remember(body: kopf.Body, uid: str, **_: Any) -> None:
        found = put(state["reconciler"].cache)(dict(body), deleted=False)
        others.update(found.others)
        if found.news:
            news[uid] = found.key

    @kopf.on.event(watched.group, plural, registry=registry, id=f"{plural}-event")
    async def look(event: kopf.RawEvent, uid: str, **_: Any) -> None:
        reconciler: Reconciler = state["reconciler"]
        if event["type"] == "DELETED":  # an index function does not hear of these
            found = put(reconciler.cache)(event["object"], deleted=True)
            news[uid] = found.key
            others.update(found.others)
        for other in others:
            reconciler.queue.add(other)
        others.clear()
        if (key := news.pop(uid, None)) is not None:
            reconciler.queue.add(key)
