"""One engine behind its door, simulated or real, and what a test needs to treat them alike."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from genrm_door import ROUTES

from tests.e2e.contract.dialects import Dialect, Order

TOKEN = "the operator's token"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
KEY = "the key of this model's clients"
CLIENT = {"Authorization": f"Bearer {KEY}"}
REVISION = "contract-1"
TEXT = "Is 2+2=4?"
Background = Callable[..., Future[httpx.Response]]
LONGEST = 3
"""So many times as long as `long` an answer may be made without need: one of vLLM's has room for four."""
SAME = 0.03
"""How far the same answer may differ: what a cache of its beginning may change in the last bits of 16."""


@dataclass
class Engine:
    dialect: Dialect
    http: httpx.Client
    """A client of the model: it has the key."""
    nobody: httpx.Client
    """It has nothing, and sends what a test gives it."""
    routes: list[tuple[str, str]]
    born: dict[str, Any]
    hold: Callable[[bool], None]
    """Keep requests inside until told otherwise; a real engine is kept busy by `long` instead."""
    kill: Callable[[], None]
    alone: Callable[[], bool]
    """Whether the process that answers has no other beside it: there is no engine."""

    @property
    def table(self) -> Mapping[tuple[str, str], Any]:
        return ROUTES[self.dialect.door].table

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = self.http.get("/genrm/door", headers=ADMIN).json()
        return document

    def put(self, state: str, query: str = "") -> httpx.Response:
        return self.http.put(f"/genrm/door{query}", json={"state": state}, headers=ADMIN)

    def order(self, order: Order) -> httpx.Response:
        path, body = order
        return self.http.post(path, json=body, headers=ADMIN)

    def carry_out(self, *orders: Order) -> httpx.Response:
        """Each order, and the answer to the last."""
        for order in orders:
            answer = self.order(order)
            assert answer.status_code == 200, f"{order}: {answer.status_code} {answer.text}"
        return answer

    def serve(self) -> None:
        """Awake and serving, whatever was before, and those of before are gone."""
        until(lambda: self.document()["inside"] == 0)
        document = self.document()
        if (document["state"], document["asleep"]) == ("serving", False):
            return
        assert self.put("closed").status_code == 200
        self.carry_out(*self.dialect.wake)
        answer = self.put("serving")
        assert answer.status_code == 200, answer.text

    def sleep(self) -> None:
        document = self.document()
        if (document["state"], document["asleep"]) == ("asleep", True):
            return
        assert self.put("closed").status_code == 200
        self.carry_out(*self.dialect.sleep)
        answer = self.put("asleep")
        assert answer.status_code == 200, answer.text

    def ask(self, text: str = TEXT, headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        return self.http.post(self.dialect.scores_at, json=self.dialect.ask(text), headers=headers, **more)

    def ask_long(self, text: str, times: int = 1, **more: Any) -> httpx.Response:
        """`times`: so many times as long, of an engine that writes."""
        body = dict(self.dialect.long(text))
        if times > 1:
            body["max_tokens"] *= times
        return self.http.post(self.dialect.scores_at, json=body, **more)

    def keep_busy(
        self, background: Background, count: int, *, computing: bool = False, times: int = 1
    ) -> list[Future[httpx.Response]]:
        """So many long requests, all inside at once; `computing`: and begun by the engine itself."""
        asked: list[Future[httpx.Response]] = []
        lengths = itertools.chain(range(times, LONGEST), itertools.repeat(max(times, LONGEST)))

        def together() -> bool:
            # On a busy machine the first may end before the last has come, or before the engine's metrics say that both
            # compute: the next ones write more. They begin together, so that just after that none is about to end.
            if all(f.done() for f in asked):
                longer = next(lengths)
                asked[:] = [background(self.ask_long, f"{len(asked)} {i}", longer) for i in range(count)]
            return (self.at_work() if computing else self.document()["inside"]) == count

        until(together)
        return asked

    def drain_among(self, background: Background, count: int) -> list[Future[httpx.Response]]:
        """So many long requests, all still inside when the door says that it drains.

        It says so after the engine's own word, for which a busy engine takes seconds: who has left meanwhile is
        followed by as many, with more to write.
        """
        return self.among(background, count, lambda _: self.put("draining").json()["inside"] == count)

    def among(
        self,
        background: Background,
        count: int,
        met: Callable[[list[Future[httpx.Response]]], bool],
        *,
        computing: bool = False,
    ) -> list[Future[httpx.Response]]:
        """So many long requests that an order has met, as `met` gives it and says. A busy engine hears it seconds late:
        those that ended before are followed by as many, with more to write."""
        tries: list[list[Future[httpx.Response]]] = []

        def once() -> bool:
            self.serve()
            tries.append(self.keep_busy(background, count, computing=computing, times=len(tries) + 1))
            return met(tries[-1])

        until(once)
        return tries[-1]

    def verdict(self, text: str = TEXT) -> Any:
        answer = self.ask(text)
        assert answer.status_code == 200, answer.text
        return self.dialect.verdict(answer.json())

    def weight(self, text: str) -> float:
        answer = self.http.post(self.dialect.scores_at, json=self.dialect.weigh(text))
        assert answer.status_code == 200, answer.text
        return self.dialect.weight(answer.json())

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        samples = []
        for line in self.http.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                head, _, value = line.rpartition(" ")
                name, _, labels = head.partition("{")
                pairs = (pair.split("=", 1) for pair in labels.rstrip("}").split(",") if "=" in pair)
                samples.append((name, {k: v.strip('"') for k, v in pairs}, float(value)))
        return samples

    def at_work(self) -> int:
        """How many requests the engine itself has begun; the door counts one as soon as it comes."""
        if self.dialect.door == "vllm":
            # After the attacks the page has megabytes, and its server is late with it: no time to read all of it.
            try:
                page = self.http.get("/metrics").text
            except httpx.RemoteProtocolError:
                return -1  # it took the connection for idle meanwhile, and closed it
            return round(sum(map(float, re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", page, re.MULTILINE))))
        return sum(load["num_running_reqs"] for load in self.http.get("/v1/loads").json()["loads"])

    def sleep_metric(self) -> str | None:
        """The state that the engine's own metrics are in, where they tell one."""
        on = [
            labels["sleep_state"]
            for name, labels, value in self.metrics()
            if name == "vllm:engine_sleep_state" and value
        ]
        return ",".join(on) or None


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"


@contextmanager
def clients(url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Who has the model's key, and who has nothing."""
    with (
        httpx.Client(base_url=url, timeout=180, trust_env=False, verify=False, headers=CLIENT) as client,
        httpx.Client(base_url=url, timeout=180, trust_env=False, verify=False) as nobody,
    ):
        yield client, nobody
