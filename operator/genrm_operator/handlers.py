"""Kopf's part: watch, keep the caches current, ask for a look. No handler waits for anything.

Only `@kopf.index` and `@kopf.on.event` are used: they need no finalizers and no annotations, and repeat nothing by
themselves. Which setting of Kopf is changed, and why, stands beside each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import kopf
from genrm_api.names import API_VERSION, LABEL_REWARD_MODEL, REWARD_MODELS

from genrm_operator.cache import Cache, Putter
from genrm_operator.doors import Doors
from genrm_operator.kube import Kube
from genrm_operator.reconciler import Reconciler
from genrm_operator.settings import Settings

OURS = {LABEL_REWARD_MODEL: kopf.PRESENT}


def configure(kopf_settings: kopf.OperatorSettings) -> None:
    """Kopf's defaults that would hurt here."""
    kopf_settings.posting.enabled = False  # our Events are written on purpose, not mirrored from logs
    kopf_settings.peering.standalone = True  # no peering objects: equal priorities would freeze every replica
    kopf_settings.scanning.disabled = True  # our resources are known, so no list/watch of CRDs and namespaces is needed
    kopf_settings.networking.request_timeout = 10.0  # default 300 s: a lost connection would stall a watch's start
    kopf_settings.networking.connect_timeout = 3.0
    kopf_settings.networking.error_backoffs = (
        0.2,
        0.5,
        1,
        2,
        5,
    )  # default up to 21 s: deaf after an API server restart
    kopf_settings.watching.reconnect_backoff = 0.1
    kopf_settings.watching.server_timeout = 240  # a watch is renewed before proxies in between forget it
    kopf_settings.watching.connect_timeout = 3.0
    kopf_settings.queueing.idle_timeout = 60.0  # one queue per object is kept a while instead of being made again


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Attach our handlers to a registry of our own, so that importing this module has no effect."""
    state: dict[str, Any] = {}

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        kube, doors = await Kube.connect(), Doors()
        reconciler = Reconciler(kube, doors, state["settings"])
        state.update(kube=kube, doors=doors, reconciler=reconciler, task=asyncio.create_task(reconciler.run()))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        state["reconciler"].stop()
        state["task"].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await state["task"]
        await state["doors"].__aexit__(None)
        await state["kube"].close()

    state["settings"] = settings

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.probe(registry=registry, id="reconciler")
    def alive(**_: Any) -> str:
        if state["task"].done():
            raise RuntimeError("the reconciler has ended")
        return "running"

    for group, plural, selector, put in (
        (API_VERSION, REWARD_MODELS, None, lambda cache: cache.put_reward_model),
        ("v1", "pods", OURS, lambda cache: cache.put_pod),
        ("coordination.k8s.io/v1", "leases", OURS, lambda cache: cache.put_lease),
        ("apps/v1", "deployments", OURS, lambda cache: cache.child_putter("Deployment")),
        ("v1", "services", OURS, lambda cache: cache.child_putter("Service")),
        ("v1", "configmaps", OURS, lambda cache: cache.child_putter("ConfigMap")),
    ):
        _watch(registry, state, group, plural, selector, put)


def _watch(
    registry: kopf.OperatorRegistry,
    state: dict[str, Any],
    group: str,
    plural: str,
    selector: dict[str, Any] | None,
    put: Callable[[Cache], Putter],
) -> None:
    """Follow one kind of object.

    The cache is filled by an *index* function, because Kopf calls no event handler of any kind before every index is
    complete: the first look must not happen while, say, the pods are known and the Leases that keep them awake are not.
    """

    @kopf.index(group, plural, labels=selector, registry=registry, id=f"{plural}-cache")
    def remember(body: kopf.Body, **_: Any) -> None:
        put(state["reconciler"].cache)(dict(body), deleted=False)

    @kopf.on.event(group, plural, labels=selector, registry=registry, id=f"{plural}-event")
    def look(event: kopf.RawEvent, **_: Any) -> None:
        reconciler: Reconciler = state["reconciler"]
        reconciler.queue.add(put(reconciler.cache)(event["object"], deleted=event["type"] == "DELETED"))
