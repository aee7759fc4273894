"""Kopf's part: watch, keep the caches current, ask for a look. No handler waits for anything.

Only `@kopf.on.event` is used: it needs no finalizers and no annotations, and repeats nothing by itself. Which setting
of Kopf is changed, and why, stands beside each.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import kopf
from genrm_api.names import API_VERSION, LABEL_REWARD_MODEL, REWARD_MODELS

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

    @kopf.on.event(API_VERSION, REWARD_MODELS, registry=registry)
    def reward_model(event: kopf.RawEvent, **_: Any) -> None:
        r: Reconciler = state["reconciler"]
        r.queue.add(r.cache.put_reward_model(event["object"], deleted=event["type"] == "DELETED"))

    @kopf.on.event("v1", "pods", labels=OURS, registry=registry)
    def pod(event: kopf.RawEvent, **_: Any) -> None:
        r: Reconciler = state["reconciler"]
        r.queue.add(r.cache.put_pod(event["object"], deleted=event["type"] == "DELETED"))

    @kopf.on.event("coordination.k8s.io/v1", "leases", labels=OURS, registry=registry)
    def lease(event: kopf.RawEvent, **_: Any) -> None:
        r: Reconciler = state["reconciler"]
        r.queue.add(r.cache.put_lease(event["object"], deleted=event["type"] == "DELETED"))

    def child(kind: str) -> Any:
        def changed(event: kopf.RawEvent, **_: Any) -> None:
            r: Reconciler = state["reconciler"]
            r.queue.add(r.cache.put_child(kind, event["object"], deleted=event["type"] == "DELETED"))

        return changed

    kopf.on.event("apps/v1", "deployments", labels=OURS, registry=registry, id="deployment")(child("Deployment"))
    kopf.on.event("v1", "services", labels=OURS, registry=registry, id="service")(child("Service"))
    kopf.on.event("v1", "configmaps", labels=OURS, registry=registry, id="configmap")(child("ConfigMap"))
