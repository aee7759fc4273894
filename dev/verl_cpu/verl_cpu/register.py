"""The four places where verl must learn of a CPU, each with the error that stops it otherwise."""

from __future__ import annotations

import os
from typing import Any

import torch.distributed
from verl.plugin.platform import platform_manager
from verl.workers.rollout import base as rollout_base
from verl.workers.rollout.replica import RolloutReplicaRegistry

from .platform import CpuPlatform

BACKEND = "cpu_hf"


def register() -> None:
    _platform()
    _rollout()
    _engines()
    _process_group()


def _platform() -> None:
    """`Distributed package doesn't have NCCL built in`: verl falls back to CUDA where it finds no accelerator."""
    platform_manager.PlatformRegistry.register(platform="cpu")(CpuPlatform)
    current = platform_manager._current_platform
    if current is not None and current.device_name != "cpu":
        platform_manager.set_platform(CpuPlatform())


def _rollout() -> None:
    """`vllm version None not supported`: every rollout backend of verl needs an accelerator."""
    rollout_base._ROLLOUT_REGISTRY[(BACKEND, "async")] = "verl_cpu.rollout.WeightPusher"

    def load() -> Any:
        from .rollout import CpuReplica

        return CpuReplica

    RolloutReplicaRegistry.register(BACKEND, load)


def _engines() -> None:
    """verl registers its FSDP engines for cuda and npu only; this is its own switch to take them for another device."""
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
    os.environ.setdefault("VERL_ENGINE_VENDOR", "nvidia")


def _process_group() -> None:
    """`Duplicate device type cpu`: verl asks for `cpu:gloo,<device>:<backend>`, which is `cpu:gloo` twice here."""
    original = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if backend is not None:
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group
