"""How unmodified SGLang starts on a machine without a GPU: arguments, environment, and two stand-ins for CUDA packages.

Tests only. The stand-ins lie in `shim`, a folder to import from: `sgl_kernel` lets SGLang be imported, and
`torch_memory_saver` makes a released memory as deadly as on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

SHIM: Final = Path(__file__).parent / "shim"

ARGUMENTS: Final = (
    *("--attention-backend", "torch_native", "--disable-overlap-schedule"),
    *("--max-total-tokens", "16384"),
)
"""What a CPU without AMX needs, and what a tiny model needs not have."""

ENVIRONMENT: Final[Mapping[str, str]] = {"SGLANG_USE_CPU_ENGINE": "1", "PYTHONPATH": str(SHIM)}
