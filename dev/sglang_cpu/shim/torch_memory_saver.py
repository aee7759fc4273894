"""For tests only: the memory saver without a GPU. It frees nothing, and is as dangerous as the real one.

On a GPU the saver takes the memory away under addresses that stay the same, so a forward pass over it is an illegal
access and ends the scheduler. Here such a pass raises the like, and the scheduler ends of that: what a release must
never meet, a test can see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_paused: set[str | None] = set()


@contextmanager
def configure_subprocess() -> Iterator[None]:
    """The real one preloads its library into the scheduler here."""
    yield


class TorchMemorySaver:
    enabled = True
    hook_mode = "preload"

    @contextmanager
    def region(self, tag: str = "default", enable_cpu_backup: bool = False) -> Iterator[None]:
        _forward_fails_while_paused()
        yield

    @contextmanager
    def cuda_graph(self, **_: Any) -> Iterator[None]:
        yield

    @contextmanager
    def disable(self) -> Iterator[None]:
        yield

    def pause(self, tag: str | None = None) -> None:
        _paused.add(tag)

    def resume(self, tag: str | None = None) -> None:
        _paused.discard(tag)


def _forward_fails_while_paused() -> None:
    """Put the danger in, once. Here and not at import: SGLang's model runner imports this module."""
    from sglang.srt.model_executor.model_runner import ModelRunner

    real = ModelRunner.forward
    if hasattr(real, "fails_while_paused"):
        return

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _paused:
            raise RuntimeError(f"simulated illegal memory access: {', '.join(map(str, _paused))} is released")
        return real(self, *args, **kwargs)

    forward.fails_while_paused = True  # type: ignore[attr-defined]
    ModelRunner.forward = forward


torch_memory_saver = TorchMemorySaver()
