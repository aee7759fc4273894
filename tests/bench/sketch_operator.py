"""The least that a Kopf operator can be: what `bench_operator --compare` sets ours beside.

Six children for each RewardModel, applied at once when it appears, and a status. No drift, no pods, no leases, no
decisions; the kinds are those of the product, so that the control plane has the same to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import kopf
from genrm_api.names import API_VERSION, LABEL_REWARD_MODEL, REWARD_MODELS
from genrm_operator.kube import Kube
from genrm_operator.storages import NoDifferences, NoProgress

CALLS_AT_ONCE = 16


def manifests(rm: Mapping[str, Any]) -> list[dict[str, Any]]:
    name, uid = rm["metadata"]["name"], rm["metadata"]["uid"]
    selector = {LABEL_REWARD_MODEL: name}
    owner = {"apiVersion": API_VERSION, "kind": "RewardModel", "name": name, "uid": uid, "controller": True}

    def child(api: str, kind: str, called: str, **content: Any) -> dict[str, Any]:
        metadata = {"name": called, "namespace": rm["metadata"]["namespace"], "labels": selector}
        return {"apiVersion": api, "kind": kind, "metadata": {**metadata, "ownerReferences": [owner]}, **content}

    pod = {"metadata": {"labels": selector}, "spec": {"containers": [{"name": "engine", "image": "none"}]}}
    ports = [{"port": 80}]
    deployment = {"replicas": 0, "selector": {"matchLabels": selector}, "template": pod}
    return [
        child("v1", "ConfigMap", f"{name}-door", data={"door": "x" * 1000}),
        child("networking.k8s.io/v1", "NetworkPolicy", name, spec={"podSelector": {"matchLabels": selector}}),
        child(
            "policy/v1",
            "PodDisruptionBudget",
            name,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": selector}},
        ),
        child("apps/v1", "Deployment", name, spec=deployment),
        child("v1", "Service", name, spec={"selector": selector, "ports": ports}),
        child("v1", "Service", f"{name}-pods", spec={"clusterIP": "None", "selector": selector, "ports": ports}),
    ]


def register(registry: kopf.OperatorRegistry) -> None:
    state: dict[str, Any] = {}

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.persistence.diffbase_storage = NoDifferences()
        settings.persistence.progress_storage = NoProgress()
        state["kube"], state["turn"] = await Kube.connect(), asyncio.Semaphore(CALLS_AT_ONCE)

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs)

    async def apply(manifest: Mapping[str, Any]) -> None:
        async with state["turn"]:
            await state["kube"].apply(manifest)

    @kopf.on.event(API_VERSION, REWARD_MODELS, registry=registry)
    async def look(event: kopf.RawEvent, **_: Any) -> None:
        rm: Mapping[str, Any] = event["object"]
        if event["type"] == "DELETED" or rm.get("status"):
            return
        await asyncio.gather(*(apply(manifest) for manifest in manifests(rm)))
        metadata = {key: rm["metadata"][key] for key in ("name", "namespace")}
        status = {"phase": "Off", "awake": 0, "observedGeneration": rm["metadata"]["generation"]}
        whole = {"apiVersion": API_VERSION, "kind": "RewardModel", "metadata": metadata, "status": status}
        await state["kube"].apply_status(whole)


if __name__ == "__main__":
    made = kopf.OperatorRegistry()
    register(made)
    kopf.run(registry=made, standalone=True, clusterwide=True)
