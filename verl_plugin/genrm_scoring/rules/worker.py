"""A rule in a process of its own, with a time limit for each response and a memory limit for all.

Code that a policy's output flows through can run for ever or eat the machine: SymPy on `9^{9^{9^9}}`, a user's function
on a response that nobody thought of. Here that costs one response its score, which says so (`timeout`, `aborted`), and
the next one gets a fresh process. A thread could be neither stopped nor bounded.

A call blocks its thread; one worker scores one response at a time. `close` ends the process; a parent that dies does so
too, because the child's input ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from genrm_api.answer_rules import AnswerRule

from genrm_scoring.conversations import Turn
from genrm_scoring.errors import (
    ConfigurationError,
    GroundTruthUnusable,
    RuleAnswered,
    RuleDied,
    RuleFailed,
    RuleTimedOut,
)
from genrm_scoring.rules.functions import fields_of
from genrm_scoring.types import Outcome, Verdict

START_SECONDS: Final = 60.0
"""For the process to import what its rule needs: SymPy takes seconds on a busy machine."""
MEMORY: Final = 2 * 1024**3
"""Bytes of address space."""
_BY_OUTCOME: Final[Mapping[Outcome, type[RuleFailed]]] = {
    kind.outcome: kind for kind in (GroundTruthUnusable, RuleAnswered, RuleDied)
}
"""What a child says of a response that it has no number for."""


class RuleWorker:
    """
    Args:
        spec: the rule.
        seconds: for one response.
        memory: bytes of address space.
        source, filename: the module's text and where it is from, for kind python.
    """

    def __init__(
        self, spec: AnswerRule, *, seconds: float = 5.0, memory: int = MEMORY, source: str = "", filename: str = ""
    ) -> None:
        setup = {"rule": spec.model_dump(mode="json", by_alias=True, exclude_none=True), "memory": memory}
        self._setup = setup | {"source": source, "filename": filename}
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(
        self,
        response: str,
        ground_truth: Any,
        *,
        prompt: str = "",
        data_source: str = "",
        extra: Mapping[str, Any] | None = None,
        messages: Sequence[Turn] = (),
    ) -> Verdict:
        """
        Raises:
            RuleFailed: the rule has no number for this response, ran out of time, or ended.
            ConfigurationError: it cannot be started at all.
        """
        fields = fields_of(response, ground_truth, prompt, data_source, extra or {}, messages)
        with self._lock:
            process = self._process or self._start()
            self._process = process
            answer = self._asked(process, fields, self._seconds)
        if "value" in answer:
            return Verdict(str(answer["label"]), float(answer["value"]))
        raise _BY_OUTCOME[Outcome(answer["outcome"])](str(answer["detail"]))

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        """
        Raises:
            ConfigurationError: the rule cannot be what its spec says.
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
            RuleTimedOut, RuleDied: and the process is gone.
        """
        assert process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + seconds
        try:
            answer = _exchanged(
                process.stdin.fileno(), process.stdout.fileno(), json.dumps(question).encode(), deadline
            )
        except TimeoutError:
            self._end()
            raise RuleTimedOut(f"the rule took longer than {seconds:g} s") from None
        except (BrokenPipeError, EOFError):
            status = self._end()
            raise RuleDied(f"the rule's process ended with status {status}") from None
        found: dict[str, Any] = json.loads(answer)
        return found

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return status


def _exchanged(to: int, back: int, question: bytes, deadline: float) -> bytes:
    """One line there and one line back. Written piece by piece: a pipe holds less than a response may be long.

    Raises:
        TimeoutError, BrokenPipeError, EOFError
    """
    left, answer = memoryview(question + b"\n"), bytearray()
    os.set_blocking(to, False)
    while not answer.endswith(b"\n"):
        wait = deadline - time.monotonic()
        readable, writable, _ = select.select([back], [to] if left else [], [], max(0.0, wait))
        if not readable and not writable:
            raise TimeoutError
        if writable:
            left = left[os.write(to, left) :]
        if readable:
            piece = os.read(back, 1 << 16)
            if not piece:
                raise EOFError
            answer += piece
    return bytes(answer)
