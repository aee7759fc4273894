"""What a sleep gave back: the memory of a pod's GPUs that is in use, before it and after, by whomever."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

KEPT_BYTES: Final = 4 << 30
KEPT_SHARE: Final = 0.2
MOST_KEPT: Final = 0.5
"""What a good sleep may leave: so many bytes or this share of what was in use, whichever is more, but never more than
the most; of one that slept before anybody looked, so many bytes. It is the context and captured graphs of each GPU,
some hundred MiB to a few GiB, and what others that sleep there left; pooling runners are known to keep 80 to 87 %
(vllm#45107). Whether the next engine finds the room that it needs beside that is asked anew before it gets the GPUs
(`room`)."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """(bytes in use by whomever, bytes in all) of each of a pod's GPUs."""

    gpus: tuple[tuple[int, int], ...]

    @property
    def used(self) -> int:
        return sum(used for used, _ in self.gpus)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DeviceMemory | None:
        """`None`: nobody can say, or the door is of before. One that does not tell GPUs apart tells of them as one."""
        if (found := document.get("deviceMemory")) is None:
            return None
        each = found.get("gpus") or ((found["used"], found["total"]),)
        return cls(tuple((int(used), int(total)) for used, total in each))


@dataclass(frozen=True, slots=True)
class Night:
    """What a sleep gave back: bytes in use on the pod's GPUs before and after, by whomever; `None` is not measurable.

    With 0 before, all that is known is that too much was kept.
    """

    before: int | None
    after: int | None
    slept: bool = False
    """The engine said that it slept already when `before` was read: it may have had nothing left to give."""

    @property
    def effective(self) -> bool | None:
        """`None`: nobody can tell."""
        if self.before is None or self.after is None:
            return None
        if self.slept:
            return self.after <= KEPT_BYTES  # of what it had nobody knows a share
        return self.after <= min(max(KEPT_BYTES, self.before * KEPT_SHARE), self.before * MOST_KEPT)

    @property
    def released(self) -> int | None:
        """Bytes that its wake takes again; `None`: nobody can tell."""
        return None if not self.before or self.after is None or self.slept else self.before - self.after

    def over(self) -> Night:
        """What could be seen before and nobody can see any more was kept."""
        return dataclasses.replace(self, after=self.before) if self.after is None else self

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Night | None:
        if (found := document.get("night")) is None:
            return None
        before, after = (None if found[when] is None else int(found[when]) for when in ("before", "after"))
        return cls(before, after)
