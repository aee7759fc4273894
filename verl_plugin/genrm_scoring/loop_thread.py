"""An event loop in a thread of its own, with one thing open in it: for what must go on whatever the program does.

A program without an event loop has nothing else to keep such a thing alive; one that has a loop may block it, and what
renews itself there would stop. Nothing else in this package keeps a thread. It is a daemon: it must not keep a
finished program alive, and a killed program takes it down.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Opening = Callable[[], AbstractAsyncContextManager[T]]

ENDING_SECONDS: Final = 1.0
"""For what is cancelled to come to its end: what has children waits for theirs."""


class LoopThread(Generic[T]):
    """Opens what `opening` makes and keeps it until `close`, or the end of the program. Once: there is no second life.

    Args:
        name: of the thread.
        executor: does what the loop may not wait for; default: threads, as of any loop.
    """

    def __init__(
        self, name: str, opening: Opening[T], executor: concurrent.futures.ThreadPoolExecutor | None = None
    ) -> None:
        self._opening = opening
        self._loop = asyncio.new_event_loop()
        if executor is not None:
            self._loop.set_default_executor(executor)
        self._leave = asyncio.Event()
        self._asked: dict[concurrent.futures.Future[Any], Coroutine[Any, Any, Any]] = {}
        """What is not answered yet."""
        self._opened: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        for answer in (self._opened, self._ended):
            answer.set_running_or_notify_cancel()  # who stops waiting for it takes it from nobody else
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def open(self, timeout: float) -> T:
        """Open it and wait for it; what it raises is raised here. What opens later than that is closed again.

        Raises:
            TimeoutError
        """
        self._thread.start()
        try:
            return self._opened.result(timeout)
        except BaseException:
            self.tell(self._leave.set)
            raise

    async def aopen(self, timeout: float) -> T:
        """The same in an event loop of any kind."""
        self._thread.start()
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(self._opened)
        except BaseException:
            self.tell(self._leave.set)
            raise

    @property
    def opened(self) -> T | None:
        """`None` while it is not, and if it could not be."""
        return self._opened.result() if self._opened.done() and not self._opened.exception() else None

    def tell(self, what: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
        """Have it done there; returns at once. Once it is closed there is nobody to tell."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *args)

    def ask(self, question: Coroutine[Any, Any, R]) -> concurrent.futures.Future[R]:
        """Have it answered there.

        Raises:
            RuntimeError: it is closed.
        """
        try:
            asked = asyncio.run_coroutine_threadsafe(question, self._loop)
        except RuntimeError:
            question.close()
            raise
        self._asked[asked] = question
        asked.add_done_callback(lambda asked: self._asked.pop(asked, None))
        if self._ended.done():  # in the moment between
            self._give_up(asked)
        return asked

    def close(self, timeout: float | None = None) -> None:
        """Close it and end the thread; gives up after `timeout` seconds."""
        if self._thread.is_alive():
            self.tell(self._leave.set)
            self._thread.join(timeout)

    async def aclose(self, timeout: float) -> None:
        if self._thread.is_alive():
            self.tell(self._leave.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await asyncio.wrap_future(self._ended)

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as e:
            if self._opened.done():
                raise
            self._opened.set_exception(e)
        finally:
            self._loop.close()
            self._ended.set_result(None)
            for asked in tuple(self._asked):
                self._give_up(asked)

    def _give_up(self, asked: concurrent.futures.Future[Any]) -> None:
        """Its question came when nobody listened any more."""
        question = self._asked.pop(asked, None)
        asked.cancel()
        if question is not None and inspect.getcoroutinestate(question) == inspect.CORO_CREATED:
            question.close()

    async def _live(self) -> None:
        try:
            async with self._opening() as opened:
                self._opened.set_result(opened)
                await self._leave.wait()
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for asked in left:
                asked.cancel()  # nobody would answer those any more
            if left:
                await asyncio.wait(left, timeout=ENDING_SECONDS)
