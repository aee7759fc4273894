"""For tests only: lets SGLang be imported where its CUDA kernels cannot be installed.

SGLang imports names from here at many places and calls, on a CPU without AMX, none of them. So every name is there, and
is a function that says what it is. Submodules must stay absent: SGLang looks for some and takes another path without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} was called, and the kernels are not installed: a GPU is needed")

    return kernel
