"""A server of a user's own: no door stands before it, and it counts what it has inside.

It sleeps by vLLM's routes, and as that one does: what is inside at a sleep is aborted, what comes later hangs.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulator.asgi import Receive, Scope, Send, answer_json
from tests.simulator.engine import Handler
from tests.simulator.vllm import SimVllm


class SimCustom(SimVllm):
    door = ""

    def handlers(self) -> Mapping[tuple[str, str], Handler]:
        return {**super().handlers(), ("GET", "/in_flight"): self._in_flight}

    async def _in_flight(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"in_flight": len(self.jobs)})
