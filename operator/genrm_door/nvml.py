"""How much memory of the container's GPUs is in use, whoever uses it: NVIDIA's management library, by ctypes.

Not torch, which would make a CUDA context of hundreds of megabytes in the API process to say the same. A container sees
the GPUs that it was given. Functions and structures: NVML API reference, `nvmlDeviceGetMemoryInfo`.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import Any, NamedTuple

LIBRARY = "libnvidia-ml.so.1"
"""The container runtime mounts it beside the driver."""


class DeviceMemory(NamedTuple):
    """Bytes, of all GPUs together."""

    used: int
    total: int
    gpus: tuple[tuple[int, int], ...] = ()
    """The same of each: an engine that spans several finds no room on one by what another has."""


class _Info(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def device_memory() -> DeviceMemory | None:
    """What is in use now; None where there is no GPU, or the driver does not say. May block while the driver does."""
    library = _library(LIBRARY)
    return None if library is None else _sum(library)


class Meter:
    """Reads in a thread of its own, one at a time: where the driver hangs each would, and looks do not end. Neither the
    engine's pool of threads nor the end of its process waits for it."""

    def __init__(self, measure: Callable[[], DeviceMemory | None]) -> None:
        self._measure = measure
        self._asked: Future[DeviceMemory | None] = Future()
        self._asked.set_result(None)

    def read(self) -> Future[DeviceMemory | None]:
        """Who comes while one is asked gets the same answer."""
        if self._asked.done():
            asked: Future[DeviceMemory | None] = Future()
            self._asked = asked
            asked.set_running_or_notify_cancel()  # who stops waiting takes it from nobody else
            threading.Thread(target=self._answer, args=(asked,), daemon=True).start()
        return self._asked

    def within(self, seconds: float) -> DeviceMemory | None:
        """None also where the driver takes longer."""
        try:
            return self.read().result(seconds)
        except TimeoutError:
            return None

    def _answer(self, asked: Future[DeviceMemory | None]) -> None:
        try:
            asked.set_result(self._measure())
        except Exception as error:
            asked.set_exception(error)


@functools.cache
def _library(name: str) -> Any | None:
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def _sum(library: Any) -> DeviceMemory | None:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0 or not count.value:
        return None
    gpus = []
    for index in range(count.value):
        device, info = ctypes.c_void_p(), _Info()
        if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) != 0:
            return None
        if library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(info)) != 0:
            return None
        gpus.append((info.used, info.total))
    return DeviceMemory(sum(used for used, _ in gpus), sum(total for _, total in gpus), tuple(gpus))
