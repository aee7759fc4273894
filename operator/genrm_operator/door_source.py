"""The door's source text, as it is shipped to engine pods.

`genrm_door` lies beside this package in the wheel. It is found, never imported: the operator and the door run in
different places and only share the wire format that `docs/reference/door.md` states.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DoorSource:
    files: Mapping[str, str]
    digest: str


@functools.cache
def door_source() -> DoorSource:
    """Read the modules of `genrm_door`; the digest names the ConfigMap, which is immutable."""
    spec = importlib.util.find_spec("genrm_door")
    assert spec is not None and spec.submodule_search_locations, "genrm_door is part of our wheel"
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = {path.name: path.read_text() for path in sorted(folder.glob("*.py"))}
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in files.items()).encode()).hexdigest()
    return DoorSource(files, digest)
