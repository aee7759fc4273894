"""Reading the GPUs' memory, of a library with NVML's calling convention: NVIDIA's own is nowhere to be had here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from genrm_door import nvml
from genrm_door.nvml import DeviceMemory

SOURCE = """
#include <stddef.h>
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
static int device[2];
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **found) { *found = &device[index]; return 0; }
int nvmlDeviceGetMemoryInfo(void *asked, nvmlMemory_t *memory) {
    if (asked != &device[0] && asked != &device[1]) return 2;
    unsigned long long total = 80ULL << 30, used = (asked == &device[0] ? 72ULL : 3ULL) << 30;
    memory->total = total; memory->free = total - used; memory->used = used;
    return INFO;
}
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    nvml._library.cache_clear()
    yield
    nvml._library.cache_clear()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("init", "count", "info", "found"),
    [
        (0, 2, 0, DeviceMemory(75 << 30, 160 << 30, ((72 << 30, 80 << 30), (3 << 30, 80 << 30)))),
        (0, 1, 0, DeviceMemory(72 << 30, 80 << 30, ((72 << 30, 80 << 30),))),
        (0, 0, 0, None),
        (9, 1, 0, None),
        (0, 1, 15, None),
    ],
)
def test_all_gpus_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: int, count: int, info: int, found: DeviceMemory | None
) -> None:
    source, library = tmp_path / "nvml.c", tmp_path / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    words = [f"-DINIT={init}", f"-DCOUNT={count}", f"-DINFO={info}"]
    subprocess.run(["cc", "-shared", "-fPIC", *words, "-o", library, source], check=True, timeout=60)
    monkeypatch.setattr(nvml, "LIBRARY", str(library))
    assert nvml.device_memory() == found


def test_without_a_driver_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-nobody-has.so.1")
    assert nvml.device_memory() is None
