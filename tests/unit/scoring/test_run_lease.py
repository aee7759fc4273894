"""A run's Lease as a program holds it, by one name: renewed beside the program, whatever that does meanwhile.

The API server lives in a thread too, because some of these programs block their event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from genrm_api.leases import DemandLease, Phase
from genrm_api.names import ANNOTATION_GRANTED, ANNOTATION_REFUSED
from genrm_scoring.errors import NoSuchRewardModel, NotAwake, WakeRefused
from genrm_scoring.kubernetes import run_lease, slot_lease
from genrm_scoring.loop_thread import LoopThread

from tests.unit.scoring.stub_api import StubApi, reward_model


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    there = LoopThread("stub-api", StubApi)
    api = there.open(10)
    api.put("rewardmodels", "rl", "judge", **reward_model())
    api.objects["rewardmodels", "rl", "judge"]["metadata"]["uid"] = "uid-judge"
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config", namespace="rl")))
    yield api
    there.close(10)


def raw(api: StubApi) -> list[dict[str, Any]]:
    return [obj for (plural, _, _), obj in list(api.objects.items()) if plural == "leases"]


def held(api: StubApi) -> DemandLease:
    (lease,) = raw(api)
    return DemandLease.from_object(lease)


def answer(api: StubApi, annotation: str, word: str) -> None:
    (lease,) = raw(api)
    lease["metadata"]["annotations"][annotation] = word


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Blocks, on purpose: in an async test the whole event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def longest_silence(api: StubApi, seconds: float) -> float:
    """Block for so long; return the longest time in which nobody renewed the Lease."""
    seen, since, longest = held(api).renewal, time.monotonic(), 0.0
    began = since

    def over() -> bool:
        nonlocal seen, since, longest
        now = time.monotonic()
        if held(api).renewal != seen:
            seen, since = held(api).renewal, now
        longest = max(longest, now - since)
        return now - began > seconds

    until(over, seconds + 5)
    return longest


async def test_a_program_that_blocks_its_event_loop_for_longer_than_the_ttl_keeps_its_lease(api: StubApi) -> None:
    ttl = 2
    async with run_lease("judge", ttl_seconds=ttl) as lease, lease.scoring():
        until(lambda: held(api).phase is Phase.SCORING)
        assert longest_silence(api, 2 * ttl) < ttl, "an operator would have taken it for expired"
        assert held(api).phase is Phase.SCORING
    assert not raw(api)


def grants(api: StubApi) -> None:
    """The operator's part, once: whoever asks for GPUs gets them. Blocks."""
    until(lambda: bool(raw(api)) and held(api).asked is not None)
    answer(api, ANNOTATION_GRANTED, str(held(api).asked))


def refuses(api: StubApi, why: str) -> None:
    """The same, to whoever never will get them."""
    until(lambda: held(api).asked is not None)
    answer(api, ANNOTATION_REFUSED, why)


async def test_a_trainer_that_blocks_its_event_loop_for_longer_than_the_ttl_keeps_its_gpus(api: StubApi) -> None:
    ttl = 2
    async with slot_lease("judge", ["b", "a"], run="run-7", pods=["ray-0"], ttl_seconds=ttl, priority=3) as slots:
        found = held(api)
        assert (found.namespace, found.run, found.slots, found.pods) == ("rl", "run-7", ("a", "b"), ("ray-0",))
        assert (slots.name, found.priority, found.phase) == (found.name, 3, Phase.IDLE)
        assert "ownerReferences" not in raw(api)[0]["metadata"], "who deletes the model frees no GPUs by that"
        granted = asyncio.create_task(asyncio.to_thread(grants, api))
        async with slots.holding(timeout=10) as seconds:
            assert 0 < seconds < 10
            asked = held(api).asked
            assert longest_silence(api, 2 * ttl) < ttl, "an operator would have taken it for dead"
            assert (held(api).phase, held(api).asked) == (Phase.SCORING, asked), "it is the same wish, and granted"
        until(lambda: held(api).phase is Phase.IDLE and held(api).asked is None)
        await granted
    assert not raw(api)


def test_a_trainer_without_an_event_loop_takes_turns_like_one_that_has_one(api: StubApi) -> None:
    with ThreadPoolExecutor() as operator, slot_lease("judge", "a", ttl_seconds=1) as slots:
        wishes = set()
        for _ in range(2):
            granted = operator.submit(grants, api)
            with slots.holding(timeout=10):
                wishes.add(held(api).asked)
            until(lambda: held(api).phase is Phase.IDLE)
            granted.result()
        assert len(wishes) == 2, "what was granted once is not granted again by itself"
        late = r"slot a of reward model rl/judge is not this run's after 0\.1 s"
        with pytest.raises(NotAwake, match=late), slots.holding(timeout=0.1):
            raise AssertionError("somebody else has them")
        until(lambda: held(api).phase is Phase.IDLE)
    assert not raw(api)
    assert "genrm-lease" not in {thread.name for thread in threading.enumerate()}


async def test_a_trainer_that_may_not_have_gpus_is_told_and_asks_no_more(api: StubApi) -> None:
    async with slot_lease("judge", "a") as slots:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), slots.holding(timeout=60):
                raise AssertionError("nobody gave them")
        await asyncio.to_thread(until, lambda: held(api).phase is Phase.IDLE)
        refused = asyncio.create_task(asyncio.to_thread(refuses, api, "SlotDeadlock: run run-7 waits for itself"))
        with pytest.raises(WakeRefused, match=r"slot a of .* is not given to this run: SlotDeadlock: run run-7"):
            async with slots.holding(timeout=60):
                raise AssertionError("it was refused")
        await refused
        await asyncio.to_thread(until, lambda: held(api).phase is Phase.IDLE)


def test_an_api_server_that_is_away_for_less_than_the_ttl_costs_nothing(api: StubApi) -> None:
    with run_lease("judge", ttl_seconds=3) as lease:
        before, away = held(api).renewal, time.monotonic()
        api.denied["patch"] = 503
        with lease.scoring():
            until(lambda: [verb for verb, _ in api.requests].count("patch") >= 5 and time.monotonic() - away > 1.5)
            assert (held(api).phase, held(api).renewal) == (Phase.IDLE, before)
            del api.denied["patch"]
            until(lambda: held(api).phase is Phase.SCORING and held(api).renewal != before, 3 - 1.5)
    assert [verb for verb, path in api.requests if path.endswith("/leases")] == ["create"]


async def test_the_name_is_enough(api: StubApi) -> None:
    async with run_lease("judge") as lease, run_lease("judge") as another:
        one, two = (DemandLease.from_object(obj) for obj in raw(api))
        assert (one.namespace, one.reward_model, one.phase) == ("rl", "judge", Phase.IDLE)
        assert one.run != two.run, "nobody takes the other's"
        assert {lease.name, another.name} == {f"rl/{one.name}", f"rl/{two.name}"}
        assert all(obj["metadata"]["ownerReferences"][0]["uid"] == "uid-judge" for obj in raw(api))
    assert not raw(api)
    with run_lease("judge", run="run-7", priority=3):
        assert (held(api).run, held(api).priority) == ("run-7", 3)


async def test_the_name_of_a_fleet_means_all_of_its_models(api: StubApi) -> None:
    api.put("rewardmodels", "rl", "critic", **reward_model())
    terms = [{"name": name, "rewardModel": {"name": name}} for name in ("judge", "critic")]
    api.put("rewardfleets", "rl", "team", spec={"terms": terms})
    async with run_lease("team", run="run-7") as lease, lease.scoring():
        until(lambda: [DemandLease.from_object(obj).phase for obj in raw(api)] == [Phase.SCORING] * 2)
    assert not raw(api)


def test_a_program_without_an_event_loop_has_the_same(api: StubApi) -> None:
    with run_lease("judge", ttl_seconds=1, prewake=True) as lease:
        with lease.scoring(), lease.scoring():
            until(lambda: held(api).phase is Phase.SCORING)
            with pytest.raises(NotAwake, match=r"rl/judge is not awake after 0\.1 s"):
                lease.awake(0.1)
            answer(api, ANNOTATION_GRANTED, "2026-11-21T10:00:00.000000Z")
            assert 0 < lease.awake(5) < 5
            left = time.monotonic()
        until(lambda: held(api).phase is Phase.IDLE)
        renewed = held(api).renewal
        until(lambda: held(api).renewal != renewed)
        with lease.scoring():
            until(lambda: held(api).phase is Phase.SCORING)
            longest = time.monotonic() - left
        until(lambda: held(api).phase is Phase.PREWAKE)
        assert 0 < (held(api).needed_in or 0) < longest, "by the pause before"
        lease.set_phase(Phase.PREWAKE, needed_in=60)
        until(lambda: (held(api).needed_in or 0) > 50)
    assert not raw(api)
    assert "genrm-lease" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError):
        lease.awake(1)


async def test_who_waits_in_an_event_loop_leaves_it_free_and_may_stop_waiting(api: StubApi) -> None:
    async with run_lease("judge") as lease, lease.scoring():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await lease.awake(60)
        waiting = asyncio.create_task(lease.awake(60))
        await asyncio.to_thread(until, lambda: held(api).phase is Phase.SCORING)
        answer(api, ANNOTATION_REFUSED, "run r holds slot a by rl/policy")
        with pytest.raises(WakeRefused, match="run r holds slot a"):
            await waiting


def test_what_cannot_be_held_is_said_on_entering_and_leaves_nothing(api: StubApi) -> None:
    with pytest.raises(NoSuchRewardModel, match="did you mean judge"), run_lease("juge"):
        pass

    async def program() -> None:
        async with run_lease("juge"):
            pass

    with pytest.raises(NoSuchRewardModel, match="did you mean judge"):
        asyncio.run(program())
    with pytest.raises(RuntimeError, match="enter the block"), run_lease("judge").scoring():
        pass
    with pytest.raises(NoSuchRewardModel, match="did you mean judge"), slot_lease("juge", "a"):
        pass
    with pytest.raises(ValueError, match="slots: names none of reward model rl/judge"), slot_lease("judge", []):
        pass
    with pytest.raises(RuntimeError, match="enter the block"), slot_lease("judge", "a").holding(1):
        pass
    assert not raw(api)


@pytest.mark.parametrize("how", ["it fails", "it is cancelled"])
async def test_a_block_that_ends_badly_gives_back_what_it_held(api: StubApi, how: str) -> None:
    async def program() -> None:
        async with run_lease("judge") as lease, lease.scoring():
            if how == "it fails":
                raise ZeroDivisionError
            await asyncio.Event().wait()

    running = asyncio.create_task(program())
    if how == "it is cancelled":
        await asyncio.to_thread(until, lambda: bool(raw(api)) and held(api).phase is Phase.SCORING)
        running.cancel()
    with pytest.raises((ZeroDivisionError, asyncio.CancelledError)):
        await running
    assert not raw(api)


async def test_who_is_cancelled_while_the_lease_opens_leaves_none_behind(api: StubApi) -> None:
    async def program() -> None:
        async with run_lease("judge"):
            await asyncio.Event().wait()

    for _ in range(5):
        running = asyncio.create_task(program())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    until(lambda: "genrm-lease" not in {thread.name for thread in threading.enumerate()})
    assert not raw(api)
