"""What the operator says of itself over HTTP, on one port: `/metrics` for Prometheus, `/healthz` for the kubelet.

`/healthz` is red (503, a sentence for each reason) only when a restart is what helps. The server lives in the event loop
that everything else lives in: a loop that hangs answers no probe, and that is the answer.

| red when | because |
|---|---|
| the reconciler's task has ended | nothing brings it back |
| a look at one RewardModel takes longer than `STUCK_LOOK_SECONDS` | every call in it has a deadline; it hangs where none was thought of |
| a RewardModel waits longer than `STUCK_QUEUE_SECONDS` while a worker has nothing to do | the queue has lost its workers |
| a watch is deaf and nobody tends it | see `watches` |
"""  # noqa: E501  (rows of a table)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web

from genrm_operator.errors import ConfigurationError
from genrm_operator.metrics import Key, Metrics
from genrm_operator.workqueue import WorkQueue

STUCK_LOOK_SECONDS: Final = 300.0
"""An API server that answers nothing costs a look some ten calls of 10 s; this is well past it."""
STUCK_QUEUE_SECONDS: Final = 30.0

Check = Callable[[], Iterable[str]]
"""Names what is wrong, a sentence each; nothing if all is well."""


def reconciler_lives(of: Callable[[], asyncio.Task[None] | None]) -> Check:
    """`of` names the reconciler's task, `None` before it begins."""

    def check() -> Iterable[str]:
        if (task := of()) is not None and task.done():
            error = None if task.cancelled() else task.exception()
            yield f"the reconciler has ended{f': {error!r}' if error else ''}"

    return check


def queue_moves(queue: WorkQueue[Key]) -> Check:
    def check() -> Iterable[str]:
        if (looked_at := queue.longest_look()) is not None and looked_at[1] > STUCK_LOOK_SECONDS:
            (namespace, name), seconds = looked_at
            yield f"a look at reward model {namespace}/{name} has taken {seconds:.0f} s so far"
        if (waits := queue.longest_wait_while_idle()) is not None and waits[1] > STUCK_QUEUE_SECONDS:
            (namespace, name), seconds = waits
            yield f"reward model {namespace}/{name} has waited {seconds:.0f} s for a look while a worker was idle"

    return check


async def serve(port: int, metrics: Metrics, checks: Iterable[Check], host: str | None = None) -> web.AppRunner:
    """Answer until the runner is cleaned up.

    Raises:
        ConfigurationError: the port cannot be had.
    """
    checks = tuple(checks)

    async def healthz(_: web.Request) -> web.Response:
        problems = [problem for check in checks for problem in check()]
        return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": metrics.content_type})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", show_metrics)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, OverflowError) as error:
        await runner.cleanup()
        raise ConfigurationError(f"GENRM_METRICS_PORT={port} cannot be listened on: {error}") from error
    return runner
