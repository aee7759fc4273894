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
