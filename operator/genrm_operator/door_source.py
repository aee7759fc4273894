"""The door as it is shipped to engine pods: one executable archive of its source (PEP 441).

`genrm_door` lies beside this package in the wheel. It is found, never imported: the operator and the door run in
different places and only share the wire format that `docs/reference/door.md` states.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ARCHIVE_NAME: Final = "genrm_door.pyz"
_ENTRY: Final = "from genrm_door.__main__ import main\n\nmain()\n"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip can say: the archive is the same wherever and whenever it is made."""


@dataclass(frozen=True, slots=True)
class DoorSource:
    archive: bytes
    digest: str
    """Of the sources, not of the archive: how a compressor packs them is nobody's business."""
    encoded: str = field(init=False, repr=False)
    """The archive as a ConfigMap's `binaryData` has it: one string for all RewardModels, whose children are kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", base64.b64encode(self.archive).decode())


@functools.cache
def door_source() -> DoorSource:
    """Read the modules of `genrm_door`; the digest names the ConfigMap, which is immutable."""
    spec = importlib.util.find_spec("genrm_door")
    assert spec is not None and spec.submodule_search_locations, "genrm_door is part of our wheel"
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = {path.name: path.read_text() for path in sorted(folder.glob("*.py"))}
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in files.items()).encode()).hexdigest()
    return DoorSource(_archive(files), digest)


def _archive(files: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in {"__main__.py": _ENTRY, **{f"genrm_door/{n}": t for n, t in files.items()}}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text, zipfile.ZIP_DEFLATED, compresslevel=9)
    return made.getvalue()
