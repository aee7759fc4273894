"""A namespace seen by several users: calls to a real API server as whoever one likes, and what it says against them."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import yaml
from genrm_api.leases import Phase, lease_manifest

from dev.cluster import Cluster

PATHS: Final = {
    "pods": "/api/v1",
    "configmaps": "/api/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}
MERGE, STRATEGIC, APPLY = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)


@dataclass
class Place:
    """A namespace with two runs in it: `trainer` and `rival` both have the role genrm-client.

    Every call returns what the API server says against it, or nothing. Without a `user` it is an admin's.
    """

    cluster: Cluster
    api: httpx.Client
    namespace: str

    def account(self, name: str) -> str:
        return f"system:serviceaccount:{self.namespace}:{name}"

    def call(
        self,
        method: str,
        target: str,
        user: str = "",
        body: Any = None,
        how: str = "application/json",
        namespace: str = "",
        **query: str,
    ) -> str:
        path = f"{PATHS[target.split('/')[0]]}/namespaces/{namespace or self.namespace}/{target}"
        headers = {"Content-Type": how} | ({"Impersonate-User": user} if user else {})
        content = None if body is None else json.dumps(body)
        answer = self.api.request(method, path, params=query, headers=headers, content=content)
        return "" if answer.is_success else str(answer.json()["message"])

    def create(self, kind: str, manifest: dict[str, Any], user: str = "", namespace: str = "", **query: str) -> str:
        return self.call("POST", kind, user, manifest, namespace=namespace, **query)

    def patch(self, target: str, change: Any, user: str = "") -> str:
        return self.call("PATCH", target, user, change, STRATEGIC if target.startswith("pods/") else MERGE)

    def delete(self, target: str, user: str = "", **query: str) -> str:
        return self.call("DELETE", target, user, **query)

    def lease(self, run: str, created_by: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return lease_manifest(run, "judge", self.namespace, Phase.IDLE, now, created_by=created_by)


def connection(cluster: Cluster) -> httpx.Client:
    """To the API server, as an admin."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server, admin = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as pem:
        pem.write(base64.b64decode(admin["client-certificate-data"]) + base64.b64decode(admin["client-key-data"]))
        pem.flush()
        context.load_cert_chain(pem.name)
    return httpx.Client(base_url=server["server"], verify=context, trust_env=False, timeout=30)
