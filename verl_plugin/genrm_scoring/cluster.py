"""The Kubernetes API as this library needs it: plain objects in, plain objects out, our own errors.

`Cluster` is what everything here is written against; `genrm_scoring.kubernetes` is the one module that speaks to a real
API server. Every call of a Cluster comes back within a few seconds, with an answer or an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from genrm_api import names

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


REWARD_MODELS: Final = Resource(names.GROUP, names.VERSION, names.REWARD_MODELS)
REWARD_FLEETS: Final = Resource(names.GROUP, names.VERSION, names.REWARD_FLEETS)
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps")
"""Of the core group, and here only to be read one by one."""
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases")
SELF_SUBJECT_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "selfsubjectreviews")


@dataclass(frozen=True, slots=True)
class Listing:
    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


class Cluster(Protocol):
    """Every method raises `ClusterError`."""

    @property
    def where(self) -> str:
        """The API server's address and where the credentials come from, for messages."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace that these credentials point to when nobody names one."""
        ...

    async def username(self) -> str:
        """Who these credentials are to the API server; empty if it does not say."""
        ...

    async def get(self, resource: Resource, namespace: str, name: str) -> Object: ...

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> Listing: ...

    def watch(
        self, resource: Resource, namespace: str, selector: str, resource_version: str, seconds: int
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`; ends by itself after `seconds`."""
        ...

    async def create(self, resource: Resource, namespace: str, obj: Object) -> Object: ...

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
        """JSON merge patch."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str) -> None: ...
