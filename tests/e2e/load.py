"""Clients that score one model without a pause, and an account of all that they did.

Each has what a worker of a run has: its own list of who serves, its own balancer, its own connections. The last one has
an *old list* instead: the addresses of the pods as they were, asleep or not. It is the client that no label and no
EndpointSlice keeps away from a sleeper; nothing but the door does.

They live in one thread with an event loop of its own, so that the test may wait for kubectl meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

from genrm_api.names import HEADER_BOOT_ID
from genrm_api.rewardmodel import RewardModel
from genrm_scoring import (
    AiohttpTransport,
    Cluster,
    Judgement,
    KubernetesEndpoints,
    Outcome,
    Sample,
    Scorer,
    StaticEndpoints,
    resolve,
)
from genrm_scoring.kubernetes import connect
from genrm_scoring.transport import Reply

from tests.e2e.conftest import NAMESPACE, wait_for
from tests.e2e.doors_word import Attempt

CLIENTS = 4
LAST_ANSWER_SECONDS = 150.0
"""A judgement ends by its deadline (`spec.scoring.timeout`, 120 s unless said otherwise)."""


class Witness:
    """A transport that writes down every request."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self._inner = AiohttpTransport()
        self._attempts = attempts

    async def post(self, url: str, body: bytes, timeout: float) -> Reply:
        sent, reply = time.time(), None
        try:
            reply = await self._inner.post(url, body, timeout)
            return reply
        finally:
            stamp = reply.headers.get(HEADER_BOOT_ID) if reply else None
            self._attempts.append(Attempt(url, sent, time.time(), reply.status if reply else None, stamp))

    async def close(self) -> None:
        await self._inner.close()


@dataclass
class Load:
    """What the clients of one model did so far. Written by their thread only, and only added to."""

    name: str
    asked: int = 0
    judgements: list[Judgement] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    judged: list[int] = field(default_factory=lambda: [0] * CLIENTS)
    """How many judgements each client has had."""
    end: threading.Event = field(default_factory=threading.Event)
    done: Future[None] = field(default_factory=Future)

    def each_scores(self, more: int = 1, timeout: float = 120.0) -> None:
        """Wait until every client has had so many more judgements."""
        before = list(self.judged)

        def had_them() -> bool:
            if self.done.done():
                self.done.result()
                raise AssertionError(f"the clients of {self.name} ended by themselves")
            return all(now >= was + more for was, now in zip(before, self.judged, strict=True))

        wait_for(f"{more} more judgements of each client of {self.name}", had_them, timeout)

    def answered_by(self, boot_id: str) -> list[Attempt]:
        return [attempt for attempt in list(self.attempts) if attempt.status == 200 and attempt.boot_id == boot_id]

    def turned_away_by(self, address: str) -> int:
        """How many requests a pod's door has answered 503."""
        return sum(a.status == 503 and a.url.startswith(f"http://{address}:") for a in list(self.attempts))

    def check(self) -> None:
        """None failed, none is missing, and none was asked twice without need."""
        bad = [j for j in self.judgements if j.outcome is not Outcome.OK]
        assert not bad, f"{self}; the first: {bad[0]}"
        assert self.asked == len(self.judgements) == sum(a.status == 200 for a in self.attempts), str(self)

    def __str__(self) -> str:
        outcomes = dict(Counter(str(judgement.outcome) for judgement in self.judgements))
        statuses = dict(Counter(str(attempt.status) for attempt in self.attempts))
        errors = dict(Counter(failure.error for judgement in self.judgements for failure in judgement.failures))
        longest = max((judgement.seconds for judgement in self.judgements), default=0.0)
        return (
            f"{self.name}: asked {self.asked}, ended {outcomes}, requests by status {statuses}, "
            f"asked again after {errors}, the longest took {longest:.1f} s"
        )

    async def run(self, old_list: Sequence[str]) -> None:
        async with connect() as cluster:
            model = await resolve(cluster, self.name, NAMESPACE)
            async with asyncio.TaskGroup() as clients:
                for number in range(CLIENTS):
                    old = old_list if number == CLIENTS - 1 else ()
                    clients.create_task(self._client(cluster, model, number, old))

    async def _client(self, cluster: Cluster, model: RewardModel, number: int, old_list: Sequence[str]) -> None:
        async with AsyncExitStack() as opened:
            transport = Witness(self.attempts)
            opened.push_async_callback(transport.close)
            endpoints = (
                StaticEndpoints(old_list)
                if old_list
                else await opened.enter_async_context(KubernetesEndpoints(cluster, self.name, NAMESPACE))
            )
            spec = model.spec
            scorer = Scorer(spec.scoring, model.served_name, endpoints, transport, engine=spec.engine.name)
            for i in itertools.count():
                if self.end.is_set():
                    return
                self.asked += 1
                sample = Sample(question=f"What is {number} plus {i}?", response=f"It is {number + i}.")
                self.judgements.append(await scorer.judge(sample))
                self.judged[number] += 1


@contextmanager
def scoring(name: str, old_list: Sequence[str] = ()) -> Iterator[Load]:
    """Clients score a model of the cluster that KUBECONFIG names, from here to the end of the block.

    `old_list`: addresses that the last client asks, whatever becomes of them; without it that one follows the cluster
    like the others.
    """
    load = Load(name)
    with ThreadPoolExecutor(1, thread_name_prefix=f"clients-{name}") as pool:
        load.done = pool.submit(lambda: asyncio.run(load.run([f"http://{address}:8000" for address in old_list])))
        try:
            yield load
        finally:
            load.end.set()
            load.done.result(LAST_ANSWER_SECONDS)
