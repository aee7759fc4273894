"""The part of a kubelet, and of the launcher that it starts, in front of the engine simulator."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genrm_door.weights import Weights, look_up

from dev.cluster import Cluster
from tests.cluster.api import Api
from tests.simulator.client import Simulator


class SimulatedKubelet:
    """Tells the simulator each fake pod's environment, as a kubelet would give it to the container.

    It also plays the launcher's part: which weights the container reads is looked up by the real code, in the pod's own
    environment and with the ConfigMap that the pod mounts for it. Pods that name no hub of a test are offline.
    """

    def __init__(self, cluster: Cluster, simulator: Simulator) -> None:
        self._cluster, self._simulator = cluster, simulator
        self._known: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._follow())
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SimulatedKubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    async def _follow(self) -> None:
        async with Api.connect(self._cluster.settings.kubeconfig("admin")) as api:
            async for kind, pod in api.follow("/api/v1/pods?labelSelector=genrm.dev%2Fcomponent%3Dengine"):
                if kind != "DELETED":
                    await self._tell(api, pod)
                elif _slot(pod):
                    self._forget(pod["metadata"]["uid"])

    def _forget(self, uid: str) -> None:
        """Its container is gone, and its GPUs are somebody else's."""
        for address in [address for address, known in self._known.items() if known == uid]:
            del self._known[address]
            self._simulator.forget(address)

    async def _tell(self, api: Api, pod: Mapping[str, Any]) -> None:
        uid, address = pod["metadata"]["uid"], pod["status"].get("podIP")
        if not address or self._known.get(address) == uid:
            return
        container = pod["spec"]["containers"][0]
        env = {e["name"]: e.get("value", "") for e in container.get("env", [])}
        args = container.get("args") or []
        weights = await _weights(api, pod, args, env)
        model = args[args.index("--served-model-name") + 1] if "--served-model-name" in args else "judge"
        settings = {
            "tokenSha256": env.get("GENRM_TOKEN_SHA256", ""),
            "revision": env.get("GENRM_REVISION", ""),
            "model": model,
            "engine": _simulated(env.get("GENRM_ENGINE", "custom"), args),
            "weights": weights.to_json(),
            "slot": _slot(pod),
        }
        if address in self._known:
            self._simulator.forget(address)
        self._simulator.put(address, settings=settings)
        self._known[address] = uid


async def _weights(api: Api, pod: Mapping[str, Any], args: list[str], env: Mapping[str, str]) -> Weights:
    """What the launcher of this pod finds."""
    names = (v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "weights-pin")
    maps = f"/api/v1/namespaces/{pod['metadata']['namespace']}/configmaps"
    mounted = [m for name in names for m in await api.items(f"{maps}?fieldSelector=metadata.name%3D{name}")]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in (mounted[0]["data"] if mounted else {}).items():
            (Path(folder) / file).write_text(text)
        offline = {} if "HF_ENDPOINT" in env else {"HF_HUB_OFFLINE": "1"}
        return look_up(args, {**env, **offline, "GENRM_PIN_DIR": folder})[0]


def _slot(pod: Mapping[str, Any]) -> str:
    """The GPUs that it shares."""
    env = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0].get("env", [])}
    claims = [c["resourceClaimName"] for c in pod["spec"].get("resourceClaims", [])]
    return f"{claims} {env.get('NVIDIA_VISIBLE_DEVICES')}" if "GENRM_START_GATE" in env else ""


def _simulated(engine: str, args: list[str]) -> str:
    """The simulator's name for what a container starts."""
    kinds = {("vllm", True): "vllm-pooling", ("sglang", True): "sglang-embedding"}
    return kinds.get((engine, bool({"pooling", "--is-embedding"} & set(args))), engine)
