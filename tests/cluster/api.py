"""The API server for those who ask it thousands of times: asyncio, kept connections, watches."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from genrm_operator.kube import METADATA_ONLY

MERGE: Final = "application/merge-patch+json"


class Api:
    """Whatever a kubeconfig's only user may do; paths are those of the Kubernetes API."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server, self._session = server, session

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path) -> AsyncIterator[Api]:
        config = yaml.safe_load(kubeconfig.read_text())  # noqa: ASYNC240  (a small local file, once)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(base64.b64decode(user["client-certificate-data"]))
                pem.write(base64.b64decode(user["client-key-data"]))
                pem.flush()
                context.load_cert_chain(pem.name)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        connector = aiohttp.TCPConnector(limit=0, ssl=context)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            yield cls(cluster["server"], session)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Raises AssertionError for any answer but a success."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self._server + path, data=data, headers={"Content-Type": content_type}
        ) as answer:
            found: dict[str, Any] = await answer.json()
            assert answer.status < 300, f"{method} {path}: {answer.status} {found.get('message')}"
            return found

    async def items(self, path: str) -> list[dict[str, Any]]:
        return list((await self.call("GET", path))["items"])

    async def follow(self, path: str, *, metadata_only: bool = False) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What is there, as ADDED, and then every change, for as long as the caller listens.

        Where it has listened too slowly, what is there comes again as ADDED, and what went meanwhile as DELETED.
        """
        accept = METADATA_ONLY if metadata_only else "application/json"
        query = f"{'&' if '?' in path else '?'}watch=true&allowWatchBookmarks=true&resourceVersion="
        there: dict[str, dict[str, Any]] = {}
        version: str | None = None
        while True:
            if version is None:
                found = await self.call("GET", path)
                version = str(found["metadata"]["resourceVersion"])
                before, there = there, {item["metadata"]["uid"]: item for item in found["items"]}
                for uid in before.keys() - there.keys():
                    yield "DELETED", before[uid]
                for item in found["items"]:
                    yield "ADDED", item
            url = self._server + path + query + version
            async with self._session.get(url, headers={"Accept": accept}, read_bufsize=1 << 22) as stream:
                async for line in stream.content:
                    event = json.loads(line)
                    kind, changed = event["type"], event["object"]
                    if kind == "ERROR":
                        assert changed["code"] == 410, changed
                        version = None
                        break
                    version = changed["metadata"]["resourceVersion"]
                    if kind == "BOOKMARK":
                        continue
                    if kind == "DELETED":
                        there.pop(changed["metadata"]["uid"], None)
                    else:
                        there[changed["metadata"]["uid"]] = changed
                    yield kind, changed
