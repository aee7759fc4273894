"""What the engine computes on, in its maker's words: other hardware gives other last digits. Read from files."""

from __future__ import annotations

from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")
"""A folder for each GPU that the container sees, by NVIDIA's kernel driver."""
CPU = Path("/proc/cpuinfo")


def product(gpus: Path = GPUS, cpu: Path = CPU) -> str | None:
    """The GPUs' names, else the processor's; None if neither is told."""
    models = {model for path in gpus.glob("*/information") if (model := _field(path, "Model")) is not None}
    return " + ".join(sorted(models)) or _field(cpu, "model name")


def _field(path: Path, name: str) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, colon, value = line.partition(":")
                if colon and key.strip() == name and value.strip():
                    return value.strip()[:200]
    except OSError:
        pass
    return None
