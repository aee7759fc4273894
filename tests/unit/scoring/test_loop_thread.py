"""A thread with one thing open in it: what becomes of those who ask it something while it ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from genrm_scoring.loop_thread import LoopThread


@asynccontextmanager
async def opening() -> AsyncIterator[str]:
    yield "open"


@pytest.mark.parametrize("children", [False, True])
def test_whoever_waits_for_an_answer_when_it_is_closed_hears_that_none_comes(children: bool) -> None:
    there, begun = LoopThread("test", opening), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # a connection that is closed takes its turns of the loop

    async def question() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(slow())

    there.open(5)
    asked = there.ask(question() if children else slow())
    assert begun.wait(5)
    there.close(5)
    with pytest.raises(concurrent.futures.CancelledError):
        asked.result(5)


def test_a_question_that_comes_while_it_closes_is_not_waited_for_for_ever() -> None:
    closing = threading.Event()

    @asynccontextmanager
    async def slow_to_close() -> AsyncIterator[str]:
        yield "open"
        closing.set()
        await asyncio.sleep(0.05)

    async def question() -> str:
        await asyncio.sleep(60)
        return "an answer"

    there = LoopThread("test", slow_to_close)
    there.open(5)
    closer = threading.Thread(target=there.close)
    closer.start()
    assert closing.wait(5)
    asked = []
    while closer.is_alive():
        try:
            asked.append(there.ask(question()))
        except RuntimeError:
            break
    closer.join(5)
    assert asked
    for each in asked:
        with pytest.raises(concurrent.futures.CancelledError):
            each.result(5)
