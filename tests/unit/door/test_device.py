"""What an engine computes on, by the files that say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from genrm_door.device import product

CPU = "processor\t: 0\nmodel name\t: AMD EPYC 9654: 96-Core\nprocessor\t: 1\nmodel name\t: AMD EPYC 9654: 96-Core\n"


@pytest.mark.parametrize(
    ("gpus", "cpu", "said"),
    [
        ([], CPU, "AMD EPYC 9654: 96-Core"),
        (["NVIDIA H100 80GB HBM3"] * 8, CPU, "NVIDIA H100 80GB HBM3"),
        (["NVIDIA L4", "NVIDIA A100"], CPU, "NVIDIA A100 + NVIDIA L4"),
        ([""], CPU, "AMD EPYC 9654: 96-Core"),
        ([], "processor : 0\nBogoMIPS : 50.00\n", None),
        ([], None, None),
    ],
)
def test_gpus_come_first(tmp_path: Path, gpus: list[str], cpu: str | None, said: str | None) -> None:
    for i, model in enumerate(gpus):
        (folder := tmp_path / "gpus" / f"0000:{i:02x}:00.0").mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 42\nGPU UUID: \t GPU-1\n")
    if cpu is not None:
        (tmp_path / "cpuinfo").write_text(cpu)
    assert product(tmp_path / "gpus", tmp_path / "cpuinfo") == said
