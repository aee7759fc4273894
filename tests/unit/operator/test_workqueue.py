"""The work queue's three promises."""

from __future__ import annotations

import asyncio

from genrm_operator.workqueue import WorkQueue


async def test_many_events_become_one_look() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5):
        queue.add("a")
    assert await queue.get() == "a" and len(queue) == 0


async def test_an_event_during_a_look_leads_to_exactly_one_more() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "no second worker may take the key while the first one looks"
    queue.done("a")
    assert len(queue) == 1


async def test_the_earliest_of_several_later_looks_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    now = asyncio.get_running_loop().time()
    queue.add_at("a", now + 3600)
    queue.add_at("a", now)
    queue.add_at("a", now + 7200)
    async with asyncio.timeout(5):
        assert await queue.get() == "a"


async def test_an_event_replaces_a_later_look() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_at("a", asyncio.get_running_loop().time() + 3600)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_it_knows_how_long_a_key_waited_and_how_long_a_look_takes() -> None:
    waits: list[float] = []
    queue: WorkQueue[str] = WorkQueue(waits.append)
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(0.05)
    assert queue.longest_look() is None and not waits
    assert await queue.get() == "a"
    await asyncio.sleep(0.05)
    assert await queue.get() == "b"
    assert 0.05 <= waits[0] < waits[1]
    looked_at = queue.longest_look()
    assert looked_at is not None and looked_at[0] == "a" and looked_at[1] >= 0.05
    queue.done("a")
    assert queue.longest_look() != looked_at
    queue.done("b")
    assert queue.longest_look() is None


async def test_waiting_counts_as_stuck_only_while_a_worker_is_idle() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue._ready_since["lost"] = asyncio.get_running_loop().time() - 60  # what a bug would look like
    assert queue.longest_wait_while_idle() is None, "all workers are busy: it has to wait"
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    waits = queue.longest_wait_while_idle()
    assert waits is not None and waits[0] == "lost" and waits[1] >= 60
    worker.cancel()
