"""sglang-router in front of the engines: its workers are the pods that serve, no more and no fewer.

The router pod's warden (`genrm_door.router`) takes the whole list at once. What should be there is decided here from
the cache, and told whenever the warden's own answer differs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from genrm_api.names import ENGINE_PORT, HEADER_EPOCH, ROUTER_PATH, WARDEN_PORT

from genrm_operator.calls import Calls, Unreachable
from genrm_operator.errors import EngineError
from genrm_operator.observed import Pod, SidePod

log = logging.getLogger(__name__)

TIMEOUT: Final = 6.0
"""Seconds for a change: the warden itself waits 4 s for its router."""


def url(ip: str, port: int) -> str:
    return f"http://[{ip}]:{port}" if ":" in ip else f"http://{ip}:{port}"


def workers(pods: Iterable[Pod]) -> list[str]:
    """Where a router should send: the pods that carry our label, sorted."""
    return sorted(url(pod.ip, ENGINE_PORT) for pod in pods if pod.serving and not pod.deleting and pod.ip is not None)


class Routers:
    """A connection pool to all wardens. `epoch` says under which leadership orders are given."""

    def __init__(self, epoch: Callable[[], int | None] = lambda: None) -> None:
        self._epoch = epoch
        self._calls = Calls(most_connections=64)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._calls.__aexit__(*exc)

    async def follow_all(self, routers: Iterable[SidePod], token: str, wanted: list[str]) -> tuple[str, str] | None:
        """Tell every router of a RewardModel who serves, whatever ails others; return what is wrong with one, as
        (reason, sentence)."""
        there = [pod for pod in routers if not pod.deleting]
        found = await asyncio.gather(*(self._trouble_of(pod, token, wanted) for pod in there))
        return next((trouble for trouble in found if trouble is not None), None)

    async def _trouble_of(self, pod: SidePod, token: str, wanted: list[str]) -> tuple[str, str] | None:
        if pod.trouble is not None:
            return pod.trouble.reason, f"pod {pod.name}: {pod.trouble.message}"
        if not pod.ready or pod.ip is None:
            return None
        try:
            if await self.follow(pod, token, wanted):
                log.info("router follows namespace=%s pod=%s workers=%d", pod.namespace, pod.name, len(wanted))
        except EngineError as error:
            log.warning("router does not follow namespace=%s %s", pod.namespace, error)
            return "RouterUnreachable", f"{error}; it is tried again"
        return None

    async def follow(self, pod: SidePod, token: str, wanted: list[str]) -> bool:
        """Make the router's workers equal to `wanted`; return whether anything had to be changed.

        Raises:
            EngineError: the warden does not answer, or its router did not follow in time.
        """
        if await self._ask(pod, token, "GET") == wanted:
            return False
        if (there := await self._ask(pod, token, "PUT", {"workers": wanted})) != wanted:
            raise EngineError(pod.name, f"the router has the workers {there}, and should have {wanted}")
        return True

    async def _ask(self, pod: SidePod, token: str, method: str, body: Mapping[str, Any] | None = None) -> list[str]:
        assert pod.ip is not None, "only pods with an address are called"
        headers = {"Authorization": f"Bearer {token}"}
        if method != "GET" and (epoch := self._epoch()) is not None:
            headers[HEADER_EPOCH] = str(epoch)
        try:
            answer = await self._calls.send(method, url(pod.ip, WARDEN_PORT) + ROUTER_PATH, headers, TIMEOUT, body)
            if answer.status == 200:
                return [str(worker) for worker in answer.json()["workers"]]
        except Unreachable as error:
            raise EngineError(pod.name, f"{method} {ROUTER_PATH}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(pod.name, f"{method} {ROUTER_PATH}: {error!r}") from error
        raise EngineError(pod.name, f"{method} {ROUTER_PATH} answered {answer.status}: {answer.text}")
