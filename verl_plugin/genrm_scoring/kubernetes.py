"""`Cluster` on the official client's asyncio half, and a run's Lease in the cluster that the environment points to:

    async with run_lease("judge") as lease:              with slot_lease("judge", ["a", "b"]) as slots:
        async with lease.scoring():                          with slots.holding(timeout=120):
            ...                                                  ...

The only module here that imports a Kubernetes client (a contract in pyproject.toml sees to it).

Credentials, first hit wins: the file(s) named by KUBECONFIG, the pod's service account, ~/.kube/config. Tokens expire:
on a 401 they are loaded once more before the call is given up.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from genrm_api.leases import DEFAULT_TTL_SECONDS
from kubernetes.aio import client, config
from yaml import YAMLError

from genrm_scoring.cluster import CONFIG_MAPS, SELF_SUBJECT_REVIEWS, Cluster, Listing, Object, Resource, WatchEvent
from genrm_scoring.errors import (
    AccessDenied,
    AlreadyExists,
    ApiRejected,
    ClusterError,
    ClusterUnreachable,
    ConfigurationError,
    NotFound,
    WatchExpired,
)
from genrm_scoring.fleet_leases import own_name, target_lease
from genrm_scoring.lease_thread import LeaseThread
from genrm_scoring.leases import gpu_lease
from genrm_scoring.resolve import resolve
from genrm_scoring.run_lease import RunLease
from genrm_scoring.slot_thread import SlotThread

CALL_SECONDS: Final = 4.0
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TRANSIENT: Final = (429, 500, 502, 503, 504)


@asynccontextmanager
async def connect() -> AsyncIterator[KubernetesCluster]:
    """Open the cluster that the environment points to. No call is made yet."""
    cluster = KubernetesCluster()
    await cluster.load()
    try:
        yield cluster
    finally:
        await cluster.close()


def run_lease(
    name: str,
    *,
    run: str | None = None,
    namespace: str | None = None,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    priority: int = 0,
    prewake: bool = False,
) -> LeaseThread:
    """Hold a run's Lease on the RewardModel `name`, or on all models of the RewardFleet, while the block is open; with
    `async with`, or with `with` in a program without an event loop. Its phase starts as idle.

    It is renewed in a thread, so that the program may do what it likes meanwhile.

    Args:
        run: what the models are needed for, as their status shows it; a second Lease of that name is refused
            while the first is renewed, and takes over what it left behind once it has expired. Default: a name of
            this process's own.
        namespace: default: that of the credentials.
        ttl_seconds: after which the engines may sleep if this process dies.
        priority: of runs that wait for the same GPUs the larger comes first.
        prewake: wake the engines ahead of each block of `scoring`, by how long the pauses before it took.

    Raises (the block, when it is entered):
        RewardModelError, ClusterError, ConfigurationError, LeaseTaken
    """
    hold = partial(
        target_lease, name=name, namespace=namespace, run=run, ttl_seconds=ttl_seconds, priority=priority,
        prewake=prewake,
    )  # fmt: skip
    return LeaseThread(connect, hold)


def slot_lease(
    reward_model: str,
    slots: str | Iterable[str],
    *,
    run: str | None = None,
    namespace: str | None = None,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    priority: int = 0,
    pods: Sequence[str] = (),
) -> SlotThread:
    """Queue for the GPUs that a RewardModel calls by the names of these slots, for memory of the program's own, with
    `async with` or `with`; they are its own inside `holding`. See `leases.gpu_lease`.

    The Lease is renewed in a thread, so that the program may do what it likes meanwhile.

    Args:
        run: as it names itself for the models that it scores with: only so is it told that it waits for itself.
            Default: a name of this process's own.
        namespace: default: that of the credentials.
        ttl_seconds: after which this process counts as dead. What it had is then given to nobody until it is sure to
            be free.
        priority: of who waits for the same GPUs the larger comes first.
        pods: in whose processes the memory is, by name: once none of them exists, it is sure to be free.

    Raises (the block, when it is entered):
        RewardModelError, ClusterError, ConfigurationError, LeaseTaken
        ValueError: `slots` names none.
    """

    @asynccontextmanager
    async def hold(cluster: Cluster) -> AsyncIterator[RunLease]:
        rm = await resolve(cluster, reward_model, namespace)
        async with gpu_lease(
            cluster, run or own_name(), rm.name, slots, rm.namespace, ttl_seconds, priority, pods
        ) as lease:
            yield lease

    return SlotThread(connect, hold)


class KubernetesCluster:
    def __init__(self) -> None:
        self._api: Any = None
        self._source = ""
        self._namespace = "default"
        self._username = ""
        self._loading = asyncio.Lock()
        self._calls: Counter[Any] = Counter()
        """Under way, by the client whose connections they have."""

    @property
    def where(self) -> str:
        return f"{self._api.api_client.configuration.host} ({self._source})"

    @property
    def namespace(self) -> str:
        return self._namespace

    async def load(self) -> None:
        """(Re)read the credentials.

        Raises:
            ConfigurationError: there are none, or they cannot be read.
            ClusterUnreachable: the program that prints them does not finish.
        """
        settings = client.Configuration()
        kubeconfig = os.environ.get("KUBECONFIG")
        default = Path.home() / ".kube" / "config"
        try:
            if not kubeconfig and (_SERVICE_ACCOUNT / "token").exists():
                config.load_incluster_config(client_configuration=settings)
                self._source = "service account of this pod"
                self._namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
            elif kubeconfig or default.exists():
                file = kubeconfig or str(default)
                if not _is_there(file):
                    raise ConfigurationError("KUBECONFIG", f"{file} is not there; correct it, or unset it")
                async with asyncio.timeout(CALL_SECONDS):
                    await config.load_kube_config(config_file=file, client_configuration=settings, persist_config=False)
                active = config.list_kube_config_contexts(file)[1]
                self._source = f"{file}, context {active['name']}"
                self._namespace = active["context"].get("namespace") or "default"
            else:
                raise ConfigurationError(
                    "KUBECONFIG",
                    "no cluster to ask: not set, no ~/.kube/config, and not in a pod with a service account",
                )
        except TimeoutError:
            raise ClusterUnreachable(kubeconfig or str(default), "its credential program does not finish") from None
        except (config.ConfigException, YAMLError, OSError, LookupError, TypeError, ValueError) as e:
            sentence = f"{kubeconfig or default} cannot be used: {' '.join(str(e).split())}"
            raise ConfigurationError("KUBECONFIG", sentence) from e
        before, self._api = self._api, client.CustomObjectsApi(client.ApiClient(settings))
        self._username = ""
        if before is not None and not self._calls[before]:
            await before.api_client.close()

    async def close(self) -> None:
        for api in {self._api, *self._calls} - {None}:
            await api.api_client.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """The client of now. One that other credentials have taken the place of is closed after its last call."""
        api = self._api
        self._calls[api] += 1
        try:
            yield api
        finally:
            self._calls[api] -= 1
            if not self._calls[api]:
                del self._calls[api]
                if api is not self._api:
                    await api.api_client.close()

    async def username(self) -> str:
        if not self._username:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            try:
                answer = await self._call("create", SELF_SUBJECT_REVIEWS, "", "", review)
            except (AccessDenied, NotFound):
                return ""  # an API server that is told to keep it to itself
            self._username = str(answer["status"]["userInfo"]["username"])
        return self._username

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        found: Object = await self._call("get", resource, namespace, name, name)
        # The core group's objects come as classes of the client's.
        return found if resource.group else self._api.api_client.sanitize_for_serialization(found)

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> Listing:
        answer = await self._call("list", resource, namespace, "", label_selector=selector)
        return Listing(tuple(answer["items"]), answer["metadata"]["resourceVersion"])

    async def create(self, resource: Resource, namespace: str, obj: Object) -> Object:
        created: Object = await self._call("create", resource, namespace, obj["metadata"]["name"], obj)
        return created

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
        merge = "application/merge-patch+json"
        patched: Object = await self._call("patch", resource, namespace, name, name, patch, _content_type=merge)
        return patched

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        await self._call("delete", resource, namespace, name, name)

    async def watch(
        self, resource: Resource, namespace: str, selector: str, resource_version: str, seconds: int
    ) -> AsyncIterator[WatchEvent]:
        try:
            async with self._connected() as api:
                async with asyncio.timeout(CALL_SECONDS):
                    response = await api.list_namespaced_custom_object_without_preload_content(
                        resource.group, resource.version, namespace, resource.plural,
                        label_selector=selector, resource_version=resource_version, watch=True,
                        allow_watch_bookmarks=True, timeout_seconds=seconds, _request_timeout=seconds + CALL_SECONDS,
                    )  # fmt: skip
                async with response:
                    if response.status != 200:
                        raise self._rejected("watch", resource, namespace, "", response.status, await response.text())
                    async for line in response.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise self._rejected(
                                "watch", resource, namespace, "", status.get("code", 500), status.get("message", "")
                            )
                        yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, OSError, ValueError) as e:  # TimeoutError is an OSError
            raise ClusterUnreachable(self.where, _words(e)) from e

    async def _call(self, verb: str, resource: Resource, namespace: str, name: str, *args: Any, **more: Any) -> Any:
        """Call the client's method for `verb`; `name` is for messages, `args` and `more` go to the method."""
        api = self._api
        try:
            return await self._once(verb, resource, namespace, name, *args, **more)
        except AccessDenied as e:
            if e.status != 401:
                raise
        async with self._loading:
            if self._api is api:  # else another call has loaded them: to do it again would end that one's second try
                await self.load()
        return await self._once(verb, resource, namespace, name, *args, **more)

    async def _once(self, verb: str, resource: Resource, namespace: str, name: str, *args: Any, **more: Any) -> Any:
        try:
            async with self._connected() as api, asyncio.timeout(CALL_SECONDS):
                if resource == CONFIG_MAPS and verb == "get":
                    call = partial(client.CoreV1Api(api.api_client).read_namespaced_config_map, name, namespace)
                else:
                    method = getattr(api, f"{verb}_{'namespaced' if namespace else 'cluster'}_custom_object")
                    place = (resource.group, resource.version, namespace, resource.plural)
                    call = partial(method, *filter(None, place), *args, **more)
                return await call(_request_timeout=CALL_SECONDS)
        except client.ApiException as e:
            raise self._rejected(verb, resource, namespace, name, e.status, e.body or e.reason or "") from e
        except (aiohttp.ClientError, OSError) as e:
            raise ClusterUnreachable(self.where, _words(e)) from e

    def _rejected(
        self, verb: str, resource: Resource, namespace: str, name: str, status: int, body: str
    ) -> ClusterError:
        detail = _message(body)
        match status:
            case 401 | 403:
                return AccessDenied(status, verb, str(resource), namespace, detail)
            case 404:
                return NotFound(str(resource), namespace, name)
            case 409:
                return AlreadyExists(detail)
            case 410:
                return WatchExpired(detail)
            case _ if status in _TRANSIENT:
                return ClusterUnreachable(self.where, f"{status}: {detail}")
            case _:
                return ApiRejected(status, detail)


def _is_there(kubeconfig: str) -> bool:
    """Whether any of the files is; there may be several."""
    return any(Path(each).exists() for each in kubeconfig.split(os.pathsep))


def _message(body: str) -> str:
    """The sentence in a Kubernetes Status object, or the body as it is."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300]


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
