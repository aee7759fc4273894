"""The door's own questions to the engine behind it, asked from inside, without a connection."""

from __future__ import annotations

import asyncio

from genrm_door.wire import App, Message, Scope


class Inner:
    def __init__(self, app: App) -> None:
        self.app = app
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, scope: Scope, path: str, seconds: float) -> tuple[int, bytes] | None:
        """GET `path` of the engine; its status and body, or None if it fails or takes longer than `seconds`.

        The scope is that of the request that made us ask: the engine's framework keeps its own things in there.
        """
        status = 0
        parts: list[bytes] = []
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.get_running_loop().create_future()  # nobody hangs up on an inner question
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        async def call() -> None:
            inner = {
                **scope,
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [],
            }
            await self.app(inner, receive, send)

        task = asyncio.create_task(call())
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._forget)
        try:
            # Not wait_for: an application that swallows its cancellation must not hold the answer back.
            await asyncio.wait({task}, timeout=seconds)
        finally:
            task.cancel()
        if not task.done() or task.cancelled() or task.exception() is not None or not status:
            return None
        return status, b"".join(parts)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: a failed question is an answer, not a log line about a lost exception
