"""Kopf's part: begin and end, watch the RewardModels, ask for a look. No handler waits for anything.

Only `@kopf.index` and `@kopf.on.event` are used: they need no finalizers and no annotations, and repeat nothing by
themselves. Which setting of Kopf is changed, and why, stands beside each. What belongs to RewardModels is followed by
`informers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Sequence
from typing import Any

import kopf
from genrm_api.names import API_VERSION, REWARD_MODELS

from genrm_operator.cache import Key
from genrm_operator.doors import Doors
from genrm_operator.errors import ConfigurationError, Deposed
from genrm_operator.fleets import Fleets
from genrm_operator.health import queue_moves, reconciler_lives, serve
from genrm_operator.informers import INFORMED, WATCH_SECONDS, Informer
from genrm_operator.kube import Kube
from genrm_operator.leadership import Leadership
from genrm_operator.metrics import Metrics
from genrm_operator.patience import Patience
from genrm_operator.polling import Polling
from genrm_operator.reconciler import Reconciler
from genrm_operator.relisting import Relisting
from genrm_operator.routers import Routers
from genrm_operator.settings import Settings
from genrm_operator.storages import NoDifferences, NoProgress
from genrm_operator.watches import SILENCE_SECONDS, Watches

log = logging.getLogger(__name__)


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
    kopf_settings.watching.reconnect_backoff = 0.1
    kopf_settings.watching.server_timeout = WATCH_SECONDS
    kopf_settings.watching.inactivity_timeout = SILENCE_SECONDS  # Kopf's own default; `watches` counts on it
    kopf_settings.watching.connect_timeout = 3.0
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
        watches.expect((REWARD_MODELS, *(what.plural for what in INFORMED)), own.namespaces)
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
        informers = [
            Informer(kube, reconciler.cache, queue, watches, what, namespace)
            for what in INFORMED
            for namespace in own.namespaces or ("",)
        ]
        state["informers"] = [asyncio.create_task(informer.run()) for informer in informers]
        known = [polling.listed, *(informer.listed for informer in informers)]
        fleets = Fleets(guarded, reconciler.cache, own.namespaces)
        state["task"] = asyncio.create_task(_lead(leadership, reconciler, known, fleets))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        state["reconciler"].stop()
        for task in (state["task"], state["listening"], state["relisting"], state["polling"], *state["informers"]):
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
    state["watches"] = Watches(time.monotonic)

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return state["watches"].session(found) if found is not None else None

    _watch(registry, state)


async def _lead(
    leadership: Leadership | None, reconciler: Reconciler, known: Sequence[asyncio.Event], fleets: Fleets
) -> None:
    """Work while this process leads. Until then the caches fill and the queue remembers who wants a look.

    The first look waits until it is `known` what there is of every kind: it must not happen while, say, the pods are
    known and the Leases that keep them awake are not.
    """
    for listed in known:
        await listed.wait()
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


def _watch(registry: kopf.OperatorRegistry, state: dict[str, Any]) -> None:
    """Follow RewardModels.

    The cache is filled by an *index* function, because Kopf calls no event handler before the index is complete: who
    shares its GPUs with another RewardModel must not be looked at before that one is known. Both are coroutines,
    although they wait for nothing: Kopf runs plain functions in threads, and cache and queue belong to the event loop.
    An event that tells nothing new, like the echo of our own write, asks for no look.
    """
    news: dict[str, Key] = {}
    others: set[Key] = set()

    @kopf.index(API_VERSION, REWARD_MODELS, registry=registry)
    async def remember(body: kopf.Body, uid: str, **_: Any) -> None:
        found = state["reconciler"].cache.put_reward_model(dict(body), deleted=False)
        others.update(found.others)
        if found.news:
            news[uid] = found.key

    @kopf.on.event(API_VERSION, REWARD_MODELS, registry=registry)
    async def look(event: kopf.RawEvent, uid: str, **_: Any) -> None:
        reconciler: Reconciler = state["reconciler"]
        if event["type"] == "DELETED":  # an index function does not hear of these
            found = reconciler.cache.put_reward_model(event["object"], deleted=True)
            news[uid] = found.key
            others.update(found.others)
        for other in others:
            reconciler.queue.add(other)
        others.clear()
        if (key := news.pop(uid, None)) is not None:
            reconciler.queue.add(key)
