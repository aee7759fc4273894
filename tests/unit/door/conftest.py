from __future__ import annotations

import pytest
from genrm_door import Door

from tests.unit.door.support import SETTINGS, Client, Engine


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def door(engine: Engine) -> Door:
    return Door(engine, SETTINGS, boot_id="boot-1")


@pytest.fixture
def client(door: Door) -> Client:
    return Client(door)
