"""The e2e tier: a whole node, the operator's own image installed by Helm, real vLLM pods, stock verl."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import pytest
from rich.console import Console

from dev.prepare import Prepared, prepare
from dev.stack import Stack, judge
from dev.steps import Steps

T = TypeVar("T")
NAMESPACE = "rl"
MODEL = "judge"


def wait_for(what: str, look: Callable[[], T | Literal[False] | None], timeout: float, every: float = 0.05) -> T:
    """Wait until `look` returns something true, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}; last look: {found!r}")
        threading.Event().wait(every)
    return found


@pytest.fixture(scope="session")
def prepared() -> Prepared:
    return prepare(Steps(Console()))


@pytest.fixture(scope="session")
def node(prepared: Prepared) -> Iterator[Stack]:
    """The operator on a node, and no engine yet."""
    with Stack.up(f"e2e-{os.getpid()}", NAMESPACE, prepared, Steps(Console())) as up:
        yield up


@pytest.fixture(scope="session")
def stack(node: Stack, prepared: Prepared) -> Stack:
    """The operator on a node, and a judge of two vLLM pods that sleep."""
    node.apply(judge(prepared.models.judge, name=MODEL))
    node.wait_for_phase(MODEL, "Asleep", timeout=400)
    return node


@pytest.fixture
def asleep(stack: Stack) -> Stack:
    """The stack with nobody using it: both engines sleep."""
    stack.kubectl("-n", NAMESPACE, "scale", "rm", MODEL, "--replicas=2")
    stack.wait_for_phase(MODEL, "Asleep", timeout=300, patient=True)
    return stack


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path
