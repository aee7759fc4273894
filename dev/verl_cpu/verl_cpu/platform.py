"""What verl asks about its device, answered for a CPU.

verl calls `torch.<device>` functions that exist for CUDA only; `_CpuDevice` answers those (no memory to account for,
one random state) and passes everything else on to `torch.cpu`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from verl.plugin.platform.platform_base import PlatformBase

_RAM: Final = 16 << 30


class _CpuDevice(types.ModuleType):
    _NO_BYTES = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
    _NOTHING_TO_DO = (
        "empty_cache",
        "ipc_collect",
        "manual_seed",
        "manual_seed_all",
        "reset_max_memory_allocated",
        "reset_peak_memory_stats",
        "set_device",
        "set_per_process_memory_fraction",
    )

    def __getattr__(self, name: str) -> Any:
        if name in self._NO_BYTES:
            return lambda *_, **__: 0
        if name in self._NOTHING_TO_DO:
            return lambda *_, **__: None
        match name:
            case "is_available":
                return lambda: False  # keeps verl out of its CUDA-only branches
            case "mem_get_info":
                return lambda *_, **__: (_RAM, _RAM)
            case "get_device_name":
                return lambda *_, **__: "CPU"
            case "get_rng_state":
                return lambda *_, **__: torch.get_rng_state()
            case "set_rng_state":
                return lambda state, *_, **__: torch.set_rng_state(state)
        return getattr(torch.cpu, name)


_DEVICE: Final = _CpuDevice("verl_cpu_device")


class CpuPlatform(PlatformBase):  # type: ignore[misc]
    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"  # verl counts GPU and NPU only; the run gives Ray one GPU that does not exist

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None
