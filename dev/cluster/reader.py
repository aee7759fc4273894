"""Reads objects over one kept connection, for loops that wait: a kubectl for each look costs 0.1 s of CPU, which on a
small machine is taken from what the loop waits for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from kubernetes import config

_RESOURCES: Final = {
    "configmaps": "/api/v1/namespaces/{}/configmaps",
    "deployments": "/apis/apps/v1/namespaces/{}/deployments",
    "endpointslices": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "events": "/api/v1/namespaces/{}/events",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "namespaces": "/api/v1/namespaces",
    "networkpolicies": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "poddisruptionbudgets": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "pods": "/api/v1/namespaces/{}/pods",
    "replicasets": "/apis/apps/v1/namespaces/{}/replicasets",
    "rewardfleets": "/apis/genrm.dev/v1alpha1/namespaces/{}/rewardfleets",
    "rewardmodels": "/apis/genrm.dev/v1alpha1/namespaces/{}/rewardmodels",
    "services": "/api/v1/namespaces/{}/services",
}
_SECONDS: Final = 30.0


class ReadFailed(Exception):
    """The API server answered with an error; `status` is its HTTP status."""

    def __init__(self, path: str, status: int, answer: str) -> None:
        super().__init__(f"GET {path}: {status} {answer[:300]}")
        self.status = status


class Reader:
    """Whatever a kubeconfig's current context may read; usable from several threads."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api = config.new_client_from_config(str(kubeconfig))

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        """Return one object.

        Raises:
            ReadFailed: there is none, or it may not be read.
        """
        return self._read(f"{_RESOURCES[resource].format(namespace)}/{name}", [])

    def list(self, resource: str, namespace: str = "", selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of a namespace ("" for all of them) that a label selector fits."""
        path = (
            _RESOURCES[resource].format(namespace) if namespace else _RESOURCES[resource].replace("/namespaces/{}", "")
        )
        return list(self._read(path, [("labelSelector", selector)] if selector else [])["items"])

    def _read(self, path: str, query: Sequence[tuple[str, str]]) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        call = self._api.param_serialize(
            "GET", path, query_params=query, header_params=headers, auth_settings=["BearerToken"]
        )
        response = self._api.call_api(*call, _request_timeout=_SECONDS)
        body = response.read()
        if response.status != 200:
            raise ReadFailed(path, response.status, body.decode(errors="replace"))
        found = dict(json.loads(body))
        for item in found.get("items", [found]):
            item["metadata"].pop("managedFields", None)  # as kubectl does: nobody here reads them
        return found
