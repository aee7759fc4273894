"""Reading the GPUs' memory, of a library with NVML's calling convention: NVIDIA's own is nowhere to be had here."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from genrm_door import nvml
from genrm_door.asgi import Door
from genrm_door.gate import Gate
from genrm_door.nvml import DeviceMemory

from tests.unit.door.support import SETTINGS, TOKEN, Client, Engine

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


class Hangs:
    """A driver that does not answer before `go`; counts who waits for it."""

    def __init__(self) -> None:
        self.go, self.begun, self.asked = threading.Event(), threading.Event(), 0

    def __call__(self) -> DeviceMemory:
        self.asked += 1
        self.begun.set()
        self.go.wait(30)
        return DeviceMemory(self.asked, 8)


def test_a_driver_that_hangs_hangs_in_one_thread() -> None:
    meter = nvml.Meter(driver := Hangs())
    waiting = [meter.read() for _ in range(100)]
    assert driver.begun.wait(5) and meter.within(0.05) is None
    driver.go.set()
    assert {each.result(5) for each in waiting} == {DeviceMemory(1, 8)}
    assert meter.within(5) == DeviceMemory(2, 8)


def test_a_driver_that_fails_fails_who_asked_and_nobody_else() -> None:
    answers = iter([OSError("gone"), DeviceMemory(1, 8)])

    def measure() -> DeviceMemory:
        if isinstance(answer := next(answers), OSError):
            raise answer
        return answer

    meter = nvml.Meter(measure)
    with pytest.raises(OSError, match="gone"):
        meter.within(5)
    assert meter.within(5) == DeviceMemory(1, 8)


async def test_door_and_gate_answer_while_the_driver_hangs_and_leave_no_threads_behind() -> None:
    driver, before = Hangs(), threading.active_count()
    door, gate = Client(Door(Engine(), SETTINGS, gpus=driver)), Gate(replace(SETTINGS, boot_id="b"), gpus=driver)
    asks = {"authorization": [f"Bearer {TOKEN}".encode()], "genrm-boot-id": [], "genrm-epoch": []}
    try:
        for _ in range(5):
            answer = await door.get("/genrm/door", token=TOKEN, query=b"memory=1")
            assert answer.json()["deviceMemory"] is None
            status, document = gate.answer("GET", "/genrm/door?memory=1", asks, b"")
            assert (status, document["deviceMemory"]) == (200, None)
        assert driver.asked == 2 and threading.active_count() == before + 2, "one of each"
    finally:
        driver.go.set()
