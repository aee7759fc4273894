"""A process of its own for code that may run away, with a time limit for each question and a memory limit for all.

Code that a policy's output flows through can run for ever or eat the machine: SymPy on `9^{9^{9^9}}`, a user's function
on a response that nobody thought of. Here that costs one question its answer, and the next one gets a fresh process. A
thread could be neither stopped nor bounded.

A call blocks its thread; one process answers one question at a time, and a `Pool` of them several. `close` ends the
process; a parent that dies does so too, because the child's input ends. What the code has started itself (an
interpreter that runs the response's code) ends with the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from genrm_scoring.errors import ConfigurationError

START_SECONDS: Final = 60.0
"""For the process to import what its code needs: SymPy takes seconds on a busy machine."""
QUESTION_SECONDS: Final = 5.0
MEMORY: Final = 2 * 1024**3
"""Bytes of address space."""


class Hung(Exception):
    """No answer in time; the process is gone."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"took longer than {seconds:g} s")


class Ended(Exception):
    """The process ended by itself, or somebody killed it."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"process ended with status {status}")


class Process:
    """`genrm_scoring.rules.child`, as `setup` tells it to be; it starts with the first question.

    Args:
        seconds: for one question.
    """

    def __init__(self, setup: Mapping[str, Any], seconds: float = QUESTION_SECONDS) -> None:
        self._setup, self._seconds = setup, seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """
        Raises:
            Hung, Ended
            ConfigurationError: it cannot be started at all.
        """
        with self._lock:
            process = self._process or self._start()
            self._process = process
            return self._asked(process, question, self._seconds)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        """
        Raises:
            ConfigurationError: the code cannot be what the setup says.
        """
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "genrm_scoring.rules.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the trainer's to handle
        )
        answer = self._asked(process, self._setup, START_SECONDS)
        if refused := answer.get("refused"):
            self._end()
            field, _, sentence = str(refused).partition(": ")
            raise ConfigurationError(field, sentence)
        return process

    def _asked(self, process: subprocess.Popen[bytes], question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """
        Raises:
            Hung, Ended
        """
        assert process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + seconds
        try:
            answer = _exchanged(
                process.stdin.fileno(), process.stdout.fileno(), json.dumps(question).encode(), deadline
            )
        except TimeoutError:
            self._end()
            raise Hung(seconds) from None
        except (BrokenPipeError, EOFError):
            raise Ended(self._end()) from None
        except BaseException:
            self._end()  # what it still says would be taken for the answer to the next question
            raise
        found: dict[str, Any] = json.loads(answer)
        return found

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session, and has not been waited for
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return status


Worker = TypeVar("Worker")
Answer = TypeVar("Answer")


class Pool(Generic[Worker]):
    """Workers that block, for an event loop: as many questions at once as there are workers. Belongs to one loop."""

    def __init__(self, workers: Sequence[Worker], close: Callable[[Worker], None]) -> None:
        self._workers, self._close = workers, close
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in workers:
            self._idle.put_nowait(worker)

    async def ask(self, question: Callable[[Worker], Answer]) -> Answer:
        """Who is cancelled leaves the worker to end its question."""
        worker = await self._idle.get()
        asked = asyncio.ensure_future(asyncio.to_thread(question, worker))

        def over(_: asyncio.Future[Answer]) -> None:
            self._idle.put_nowait(worker)
            if not asked.cancelled():
                asked.exception()  # whoever waited for it may be gone

        asked.add_done_callback(over)
        return await asyncio.shield(asked)

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(self._close, worker) for worker in self._workers))


def _exchanged(to: int, back: int, question: bytes, deadline: float) -> bytes:
    """One line there and one line back. Written piece by piece: a pipe holds less than a response may be long.

    Not by `select`, which knows no descriptors from 1024 on: a gateway has that many connections.

    Raises:
        TimeoutError, BrokenPipeError, EOFError
    """
    left, answer = memoryview(question + b"\n"), bytearray()
    os.set_blocking(to, False)
    ready = select.poll()
    ready.register(to, select.POLLOUT)
    ready.register(back, select.POLLIN)
    while not answer.endswith(b"\n"):
        now = {which for which, _ in ready.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        if not now:
            raise TimeoutError
        if to in now:
            left = left[os.write(to, left) :]
            if not left:
                ready.unregister(to)
        if back in now:
            piece = os.read(back, 1 << 16)
            if not piece:
                raise EOFError
            answer += piece
    return bytes(answer)
