"""The few lines of HTTP that the simulator's applications share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from genrm_door.asgi import App, Message, Receive, Scope, Send

__all__ = ["App", "Message", "Receive", "Scope", "Send", "answer", "answer_json", "body_of", "lifespan"]


async def body_of(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return b"".join(parts)


async def answer(
    send: Send, status: int, body: bytes = b"", content_type: str = "application/json", headers: Mapping[str, str] = {}
) -> None:
    pairs = {"content-type": content_type, "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, status: int, document: Any) -> None:
    await answer(send, status, json.dumps(document, separators=(",", ":")).encode())


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
