"""What can go wrong with an engine, on demand.

Routes are written as their paths. `Faults()` is an engine in perfect health.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Faults:
    hang: frozenset[str] = frozenset()
    """These routes do not answer until the fault is lifted; only then they do what they do."""
    status: Mapping[str, int] = field(default_factory=dict)
    """These routes answer with this status and do nothing else: {"/wake_up": 500}. {"/health": 503} is a dead one."""
    slow: Mapping[str, float] = field(default_factory=dict)
    """Seconds that these routes take, scoring ones included."""
    lie: bool = False
    """/is_sleeping says the contrary. The metrics tell the truth."""
    deaf: frozenset[str] = frozenset()
    """/sleep or /wake_up here answer 200 and change nothing."""
    corrupt: bool = False
    """The weights are not what they were: everything is answered, and computed wrongly."""
    keeps: float = 0.03
    """The share of its GPU's memory that it does not give back in its sleep."""
    taken: float = 0.0
    """The share of its GPU's memory that somebody else has."""
    strays: int = 0
    """Requests that it counts as running, and that came by no door."""
    refuse: bool = False
    """The pod resets every connection, as a container that is not there."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Faults:
        """Read what `to_json` writes; what is left out is healthy.

        Raises:
            ValueError: an unknown fault, or one of the wrong type.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(document) - known):
            raise ValueError(f"unknown fault {', '.join(unknown)}: there are {', '.join(sorted(known))}")
        try:
            return cls(
                hang=frozenset(document.get("hang", ())),
                status={str(k): int(v) for k, v in dict(document.get("status", {})).items()},
                slow={str(k): float(v) for k, v in dict(document.get("slow", {})).items()},
                lie=bool(document.get("lie", False)),
                deaf=frozenset(document.get("deaf", ())),
                corrupt=bool(document.get("corrupt", False)),
                keeps=float(document.get("keeps", 0.03)),
                taken=float(document.get("taken", 0.0)),
                strays=int(document.get("strays", 0)),
                refuse=bool(document.get("refuse", False)),
            )
        except TypeError as error:
            raise ValueError(f"a fault of the wrong type: {error}") from error

    def to_json(self) -> dict[str, Any]:
        return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(self).items()}
